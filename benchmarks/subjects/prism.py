"""prism_wsgi, on each of its engines."""

import time
from collections.abc import Callable
from wsgiref.types import WSGIApplication

import prism_wsgi
from benchmarks.machine.databases import Places
from benchmarks.subjects.registry import PRISM
from benchmarks.subjects.scenarios import ACTIONS, Action, bare_application, plain_application, read
from benchmarks.subjects.subject import SECRET, SHORT_TTL, TTL, Subject
from prism_wsgi import MemoryStore, Session, SessionMiddleware, SessionStore, SQLAlchemyStore

_ENGINES = ("memory", "sqlite", "postgresql", "mariadb", "redis")


def subjects(places: Places) -> list[Subject]:
    """Return prism_wsgi on each of its engines."""
    return [_on(engine, place) for engine, place in places.items() if engine in _ENGINES]


class MovableClock:
    """The system's clock, moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def _on(engine: str, place: str) -> Subject:
    actions: dict[str, Action] = {**ACTIONS, "/touch": read, "/login": _login}
    app = plain_application("prism.session", actions)

    def middleware(clock: Callable[[], float], ttl: int) -> WSGIApplication:
        store: SessionStore
        if engine == "memory":
            store = MemoryStore(max_sessions=1_000_000, ttl=400 * 24 * 3600, clock=clock)
        elif engine == "redis":
            store = prism_wsgi.RedisStore(place, clock=clock)
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


def _login(session: Session) -> bytes:
    session.login("alice")
    return b"ok"
