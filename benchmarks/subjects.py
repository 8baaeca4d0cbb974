"""What is measured: prism_wsgi, the floor, and the peers, each with the same application around its session."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from wsgiref.types import WSGIApplication

from sqlalchemy import make_url

import prism_wsgi
from benchmarks import floor
from benchmarks.databases import REDIS_PREFIX, Places
from benchmarks.scenarios import ACTIONS, Action, bare_application, plain_application, read
from prism_wsgi import MemoryStore, SessionMiddleware, SessionStore, SQLAlchemyStore

PRISM = "prism_wsgi"
FLOOR = "floor"
PEERS = {
    "Beaker": "beaker",
    "Django": "django",
    "Flask-Session": "flask_session",
    "Flask cookie": "flask_cookie",
    "pyramid_session_redis": "pyramid_redis",
}
"""The peers by name, and the modules here that set them up."""

SECRET = "k8dV2yLr0mXw5sQpZ7bT1nHfJ4cG9aEu"  # noqa: S105
TTL = 14 * 24 * 3600  # longer than ten runs: no session is touched or expires unless the scenario says so
SHORT_TTL = 3600

_PRISM_ONLY = frozenset({"expired"})
_OURS_ONLY = frozenset({"expired", "touch", "read_4k", "write_4k"})


@dataclass
class Subject:
    """One library on one engine. `bare` is the same application in the same framework without sessions."""

    name: str
    engine: str
    application: WSGIApplication
    bare: WSGIApplication
    framework: str = "plain WSGI"
    omits: frozenset[str] = _OURS_ONLY
    """Scenarios that it has no way of."""
    elsewhere: Mapping[str, WSGIApplication] = field(default_factory=dict)
    """Scenarios that need an application of their own."""
    before: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """What is done before each request of a scenario, untimed."""

    def serves(self, scenario: str) -> bool:
        """Tell whether it can be measured in a scenario."""
        return scenario not in self.omits


def subjects(places: Places, names: Sequence[str]) -> list[Subject]:
    """Return everything that can be measured; a peer that is not installed is left out, and said to be."""
    found: list[Subject] = []
    if PRISM in names:
        found += prism_subjects(places)
    if FLOOR in names:
        found += floor_subjects(places)
    for name, module in PEERS.items():
        if name in names:
            try:
                found += import_module(f"benchmarks.peers.{module}").subjects(places)
            except ImportError as error:
                print(f"{name} is left out: {error}")
    return found


class MovableClock:
    """The system's clock, moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def prism_subjects(places: Places) -> list[Subject]:
    """Return prism_wsgi on each of its engines."""
    engines = ("memory", "sqlite", *_SERVER_CURSORS, "redis")
    return [_prism(engine, place) for engine, place in places.items() if engine in engines]


def _prism(engine: str, place: str) -> Subject:
    actions: dict[str, Action] = {**ACTIONS, "/touch": read, "/login": _prism_login}
    app = plain_application("prism.session", actions)

    def middleware(clock: Callable[[], float], ttl: int) -> WSGIApplication:
        store: SessionStore
        if engine == "memory":
            store = MemoryStore(max_sessions=1_000_000, ttl=400 * 24 * 3600, clock=clock)
        elif engine == "redis":
            store = prism_wsgi.RedisStore(place, prefix=REDIS_PREFIX, clock=clock)
        else:
            store = SQLAlchemyStore(place, clock=clock)
        return SessionMiddleware(app, store=store, secret=SECRET, ttl=ttl, clock=clock)

    later, touched = MovableClock(), MovableClock()

    def expire() -> None:
        later.ahead = 2 * SHORT_TTL

    def wait_for_touch() -> None:
        touched.ahead += SHORT_TTL / 10 + 1

    return Subject(
        PRISM,
        engine,
        middleware(time.time, TTL),
        bare_application,
        omits=frozenset(),
        elsewhere={"expired": middleware(later, SHORT_TTL), "touch": middleware(touched, SHORT_TTL)},
        before={"expired": expire, "touch": wait_for_touch},
    )


def _prism_login(session: "_Login") -> bytes:
    session.login("alice")
    return b"ok"


class _Login:
    def login(self, user: str) -> None: ...


def floor_subjects(places: Places) -> list[Subject]:
    """Return the floor on each of its engines."""
    actions: dict[str, Action] = {**ACTIONS, "/touch": _floor_touch, "/login": _prism_login}
    found = []
    for engine, place in places.items():
        store = floor_store(engine, place)
        if store is not None:
            app = floor.FloorMiddleware(plain_application(floor.SESSION_KEY, actions), store, SECRET.encode())
            found.append(Subject(FLOOR, engine, app, bare_application, omits=_PRISM_ONLY))
    return found


def _floor_touch(session: floor.FloorSession) -> bytes:
    session.get("user")
    session.renewed = True
    return b"ok"


def floor_store(engine: str, place: str) -> floor.FloorStore | None:
    """Return the floor's store for an engine, with a connection of its own."""
    if engine == "memory":
        return floor.MemoryFloor()
    if engine == "sqlite":
        cursor = floor.sqlite_cursor(make_url(place).database or "")
        return floor.SQLFloor(cursor, mark="?", begin="BEGIN IMMEDIATE")
    if engine in _SERVER_CURSORS:
        return floor.SQLFloor(_SERVER_CURSORS[engine](place), prepare=engine == "postgresql")
    return None


def shared_floor(engine: str, place: str, threads: int) -> floor.SharedFloor:
    """Return a floor's store that as many threads can use at a time."""
    stores = [store for _ in range(threads) if (store := floor_store(engine, place)) is not None]
    return floor.SharedFloor(stores)


def _postgresql_cursor(place: str) -> object:
    return floor.postgresql_cursor(place.replace("postgresql+psycopg:", "postgresql:", 1))


def _mariadb_cursor(place: str) -> object:
    url = make_url(place)
    return floor.mariadb_cursor(url.host, url.port or 3306, url.username, url.password, url.database)


_SERVER_CURSORS = {"postgresql": _postgresql_cursor, "mariadb": _mariadb_cursor}
