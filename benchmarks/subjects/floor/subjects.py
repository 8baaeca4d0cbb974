"""The floor on each engine, and its stores for several threads at a time."""

from sqlalchemy import make_url

from benchmarks.machine.databases import Places
from benchmarks.subjects.floor.middleware import SESSION_KEY, FloorMiddleware, FloorSession
from benchmarks.subjects.floor.redis_store import RedisFloor
from benchmarks.subjects.floor.stores import (
    FloorStore,
    MemoryFloor,
    SharedFloor,
    SQLFloor,
    mariadb_cursor,
    postgresql_cursor,
    sqlite_cursor,
)
from benchmarks.subjects.registry import FLOOR
from benchmarks.subjects.scenarios import ACTIONS, Action, bare_application, plain_application
from benchmarks.subjects.subject import PRISM_ONLY, SECRET, Subject


def subjects(places: Places) -> list[Subject]:
    """Return the floor on each of its engines."""
    actions: dict[str, Action] = {**ACTIONS, "/touch": _touch, "/login": _login}
    app = plain_application(SESSION_KEY, actions)
    return [
        Subject(FLOOR, engine, FloorMiddleware(app, store, SECRET.encode()), bare_application, omits=PRISM_ONLY)
        for engine, place in places.items()
        if (store := floor_store(engine, place)) is not None
    ]


def floor_store(engine: str, place: str) -> FloorStore | None:
    """Return the floor's store for an engine, with a new connection; None for an engine without a floor."""
    if engine == "memory":
        return MemoryFloor()
    if engine == "sqlite":
        return SQLFloor(sqlite_cursor(make_url(place).database or ""), mark="?", begin="BEGIN IMMEDIATE")
    if engine == "postgresql":
        conninfo = place.replace("postgresql+psycopg:", "postgresql:", 1)
        return SQLFloor(postgresql_cursor(conninfo), prepare=True)
    if engine == "mariadb":
        url = make_url(place)
        return SQLFloor(mariadb_cursor(url.host, url.port or 3306, url.username, url.password, url.database))
    if engine == "redis":
        return RedisFloor(place)
    return None


def shared_floor(engine: str, place: str, threads: int) -> SharedFloor:
    """Return a floor's store that as many threads can use at a time."""
    stores = [store for _ in range(threads) if (store := floor_store(engine, place)) is not None]
    return SharedFloor(stores)


def _touch(session: FloorSession) -> bytes:
    session.get("user")
    session.renewed = True
    return b"ok"


def _login(session: FloorSession) -> bytes:
    session.login("alice")
    return b"ok"
