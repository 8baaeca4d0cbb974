"""The audit trail on a table of many events: inserts, a user's list, and the sweep of a day beside inserts."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from random import Random
from statistics import median
from threading import Event
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.scale.generate import DAY_MS
from benchmarks.scale.live import Sample
from prism_wsgi import SQLAlchemyStore
from prism_wsgi.observers.audit import AuditTrail
from prism_wsgi.pages.overview import EVENTS_AT_MOST
from prism_wsgi.stores.base import StoredEvent
from prism_wsgi.sweeper import Sweeper

EVENTS = "prism_sessions_events"
DAYS = 90
EVENTS_OF_A_USER = 50
BUSY = "busy"
"""A user with one event in a thousand: a robot, or an account that a whole office shares."""
LISTS = 1000
WARM_UP_SECONDS = 3
THREADS = 4
INSERTS_PER_SECOND = 100

# Four events a session: it starts, somebody logs in, logs out, and it ends. The times fill the days evenly.
_FILL = """
INSERT INTO prism_sessions_events (timestamp, kind, reason, session_id, user_id, actor_id)
SELECT :began + n * :step,
    (ARRAY['started', 'logged_in', 'logged_out', 'ended'])[n % 4 + 1],
    CASE n % 4 WHEN 3 THEN 'logout' END,
    sha256(CAST(CAST(n / 4 AS text) AS bytea)),
    CASE WHEN n % 1000 = 0 THEN 'busy' ELSE 'user-' || CAST(hashint8(n / 4) AS bigint) % :users END,
    CASE WHEN n % 10000 = 1 THEN 'admin-' || n % 7 END
FROM generate_series(CAST(1 AS bigint), CAST(:count AS bigint)) AS n
"""


def trail(url: str, count: int, quiet: float, longest: float) -> dict[str, Any]:
    """Measure on PostgreSQL with `count` events of 90 days.

    Inserts are timed for `quiet` seconds without a sweep, and beside sweeps of at most `longest` seconds.
    """
    filled = fill_trail(url, count)
    print(f"\npostgresql, a trail of {count} events: {filled}", flush=True)
    lists = list_times(url, count)
    print(f"  lists, ms: {lists}", flush=True)
    day = day_beside_inserts(url, quiet, longest)
    print(f"  a day being swept: {day['sweep']}\n  inserts, ms: {day['inserts_ms']}", flush=True)
    return {"events": count, "filled": filled, "lists_ms": lists, **day}


def fill_trail(url: str, count: int) -> dict[str, float]:
    """Make the trail one of `count` events; return how long that took, and the sizes in MiB."""
    started = time.monotonic()
    store = SQLAlchemyStore(url)
    (events,) = (table for table in store.table.metadata.tables.values() if table.name == EVENTS)
    values = {
        "began": int(time.time() * 1000) - DAYS * DAY_MS,
        "step": DAYS * DAY_MS / count,
        "users": _users(count),
        "count": count,
    }
    engine = create_engine(url)
    with engine.begin() as connection:
        # Emptied in the same transaction, and without indexes: a server with wal_level=minimal logs none of the rows.
        connection.exec_driver_sql(f"TRUNCATE {EVENTS} RESTART IDENTITY")
        connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '1GB'")
        for index in events.indexes:
            index.drop(connection)
        connection.execute(text(_FILL), values)
        for index in events.indexes:
            index.create(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (f"VACUUM ANALYZE {EVENTS}", "CHECKPOINT"):
            connection.exec_driver_sql(statement)
        sizes = f"SELECT pg_table_size('{EVENTS}') / 1048576, pg_indexes_size('{EVENTS}') / 1048576"
        rows, indexes = connection.exec_driver_sql(sizes).one()
    engine.dispose()
    return {"seconds": round(time.monotonic() - started), "rows_mib": int(rows), "indexes_mib": int(indexes)}


def list_times(url: str, count: int) -> dict[str, dict[str, float]]:
    """Time what reads the trail, in ms: users drawn at random, a busy one, and the hours of AdminPage."""
    store, chance, users = SQLAlchemyStore(url, timeout=60), Random(1), _users(count)
    middle = count // 2
    yesterday = int(time.time() * 1000) - DAY_MS
    questions: dict[str, tuple[int, Callable[[], object]]] = {
        "one_user": (LISTS, lambda: store.find_events(user=f"user-{chance.randrange(users)}")),
        "busy_user": (20, lambda: store.find_events(user=BUSY)),
        "busy_user_later_page": (20, lambda: store.find_events(user=BUSY, before=middle)),
        "nobody": (100, lambda: store.find_events(user="no-such-user")),
        "hours_of_admin_page": (10, lambda: store.events_an_hour(yesterday, EVENTS_AT_MOST)),
    }
    found = {name: percentiles([_timed(ask) for _ in range(times)]) for name, (times, ask) in questions.items()}
    store.close()
    return found


def _timed(ask: Callable[[], object]) -> float:
    started = time.monotonic()
    ask()
    return time.monotonic() - started


def _users(count: int) -> int:
    return max(1, count // EVENTS_OF_A_USER)


def day_beside_inserts(url: str, quiet: float, longest: float) -> dict[str, Any]:
    """Insert events all the time; beside it, sweep the oldest day: at the usual pace, then in a hurry."""
    paces: dict[str, dict[str, Any]] = {"usual_pace": {}, "in_a_hurry": {"target_ms": 10, "pause": 0}}
    swept: dict[str, dict[str, float]] = {}
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(1, mp_context=context) as workers:
        ready, stop = manager.Event(), manager.Event()
        inserting = workers.submit(insert_steadily, url, ready, stop)
        ready.wait()
        time.sleep(WARM_UP_SECONDS)
        spans = {"alone": (time.monotonic(), time.monotonic() + quiet)}
        time.sleep(quiet)
        store = SQLAlchemyStore(url, timeout=60)
        for name, pace in paces.items():
            began = time.monotonic()
            result = Sweeper(AuditTrail(store, keep=DAYS - 1), max_seconds=longest, **pace).sweep()
            if result.error is not None:
                raise result.error
            spans[name] = (began, time.monotonic())
            swept[name] = {
                "deleted": result.deleted,
                "rows_per_second": round(result.rows_per_second),
                "rows_a_batch": round(result.deleted / max(1, result.batches)),
            }
        store.close()
        stop.set()
        samples = inserting.result()
    inserts = {
        name: percentiles([took for at, took in samples if begin <= at < end]) for name, (begin, end) in spans.items()
    }
    return {"sweep": swept, "inserts_ms": inserts}


def insert_steadily(url: str, ready: Event, stop: Event) -> list[Sample]:
    """Insert at most INSERTS_PER_SECOND events until told to stop, each timed by itself."""
    store = SQLAlchemyStore(url, timeout=60)
    samples: list[Sample] = []

    def insert(number: int) -> None:
        chance = Random(number)
        while not stop.is_set():
            time.sleep(chance.expovariate(INSERTS_PER_SECOND / THREADS))
            user = f"user-{chance.randrange(100_000)}"
            moment, session_id = int(time.time() * 1000), chance.randbytes(32).hex()
            event = StoredEvent(timestamp=moment, kind="logged_in", session_id=session_id, user=user)
            began = time.monotonic()
            store.add_event(event)
            samples.append((began, time.monotonic() - began))

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    store.close()
    return samples


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the shortest time, the median and the 99th percentile, in ms."""
    taken = sorted(1000 * one for one in seconds)
    if not taken:
        return {}
    return {
        "least": round(taken[0], 2),
        "p50": round(median(taken), 2),
        "p99": round(taken[int(len(taken) * 0.99)], 2),
    }
