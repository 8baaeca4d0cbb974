"""The cost of recording activity on PostgreSQL: how many of the updates are HOT, and how many there are."""

import random
import threading
import time
from typing import Any

from sqlalchemy import Engine, create_engine

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.parts.visitor import Visitor
from benchmarks.report.figures import Figures
from benchmarks.subjects.prism import MovableClock
from benchmarks.subjects.scenarios import ACTIONS, SCENARIOS, plain_application
from benchmarks.subjects.subject import SECRET, SHORT_TTL
from prism_wsgi import SessionMiddleware, SQLAlchemyStore, migrate

THREADS = 8
SESSIONS = 200
INTERVAL = 1.0
HOURS = 12

_TABLE = "touched_sessions"
_READ = next(scenario for scenario in SCENARIOS if scenario.name == "read")


def measure(places: Places, plan: Plan) -> Figures:
    """Count the updates on PostgreSQL, where it is measured."""
    return {"touches": touches(places["postgresql"], 2 * plan.rounds)} if "postgresql" in places else {}


def touches(place: str, seconds: float) -> dict[str, Any]:
    """Return the updates of threads that read the same sessions, and of sessions used all day long."""
    migrate.upgrade(place, table_name=_TABLE)
    return {"under_load": _under_load(place, seconds), "all_day": _all_day(place)}


def _under_load(place: str, seconds: float) -> dict[str, Any]:
    """Several requests of each session at a time, `INTERVAL` between touches."""
    store = SQLAlchemyStore(place, table_name=_TABLE)
    app = SessionMiddleware(
        plain_application("prism.session", ACTIONS), store=store, secret=SECRET, touch_interval=INTERVAL
    )
    cookies = [Visitor(app, _READ).cookie for _ in range(SESSIONS)]
    before = _updates(place)
    until = time.monotonic() + seconds
    began = time.monotonic()

    def work(thread: int) -> None:
        visitor = Visitor(app, _READ)
        chosen = random.Random(thread)  # noqa: S311
        while time.monotonic() < until:
            number = chosen.randrange(SESSIONS)
            visitor.cookie = cookies[number]
            visitor.send()
            cookies[number] = visitor.received_cookie() or cookies[number]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    store.close()
    updates, hot = _difference(place, before)
    # The last interval has begun but need not have ended.
    allowed = SESSIONS * (int(elapsed / INTERVAL) + 1)
    return {"updates": updates, "hot": hot / updates, "allowed": allowed, "seconds": elapsed}


def _all_day(place: str) -> dict[str, Any]:
    """One request of each session whenever a touch is due, with the default lifetimes."""
    clock = MovableClock()
    store = SQLAlchemyStore(place, table_name=_TABLE, clock=clock)
    app = SessionMiddleware(
        plain_application("prism.session", ACTIONS), store=store, secret=SECRET, clock=clock, ttl=SHORT_TTL
    )
    visitors = [Visitor(app, _READ) for _ in range(50)]
    before = _updates(place)
    for _ in range(HOURS * 10):
        clock.ahead += SHORT_TTL / 10 + 1
        for visitor in visitors:
            visitor.send()
            visitor.cookie = visitor.received_cookie() or visitor.cookie
    store.close()
    updates, hot = _difference(place, before)
    return {"updates": updates, "hot": hot / updates, "hours": HOURS}


def _difference(place: str, before: tuple[int, int]) -> tuple[int, int]:
    after = _updates(place)
    return after[0] - before[0], after[1] - before[1]


def _updates(place: str) -> tuple[int, int]:
    """Return (updates, HOT updates) once every connection has reported its own."""
    engine = create_engine(place, isolation_level="AUTOCOMMIT")
    time.sleep(1.5)
    seen = _counted(engine)
    for _ in range(20):
        time.sleep(0.5)
        now = _counted(engine)
        if now == seen:
            break
        seen = now
    engine.dispose()
    return seen


def _counted(engine: Engine) -> tuple[int, int]:
    query = f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{_TABLE}'"
    with engine.connect() as connection:
        updates, hot = connection.exec_driver_sql(query).one()
    return int(updates), int(hot)
