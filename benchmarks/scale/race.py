"""Extensions racing the sweep: a session whose touch was acknowledged must be there afterwards."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from random import Random
from threading import Barrier, Event  # a manager's stand for those in other processes
from typing import Any

from sqlalchemy import create_engine

from benchmarks.scale.generate import HOUR_MS, clear, due_rows, fill
from prism_wsgi import SQLAlchemyStore, StoredSession
from prism_wsgi.sweeper import Sweeper

SWEEPERS = 2
TOUCHERS = 2
AHEAD_SECONDS = 3600


def race(url: str, count: int) -> dict[str, Any]:
    """Sweep `count` sessions by a clock that is ahead, while others extend them; count those wrongly deleted."""
    clear(url)
    now = int(time.time() * 1000)
    fill(url, due_rows(count, expires_at=now + AHEAD_SECONDS * 500, chance=Random(2)))
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(SWEEPERS + TOUCHERS, mp_context=context) as workers:
        together, done = manager.Barrier(SWEEPERS + TOUCHERS), manager.Event()
        sweeping = [workers.submit(_sweep, url, together) for _ in range(SWEEPERS)]
        touching = [workers.submit(_touch, url, number, together, done) for number in range(TOUCHERS)]
        deleted = sum(one.result() for one in sweeping)
        done.set()
        extended = {session_id for one in touching for session_id in one.result()}
    left = set(_ids(url, "SELECT id FROM prism_sessions"))
    found = {
        "sessions": count,
        "deleted": deleted,
        "extended": len(extended),
        "wrongly_deleted": len(extended - left),
    }
    print(f"  race: {found}", flush=True)
    return found


def _sweep(url: str, together: Barrier) -> int:
    store = SQLAlchemyStore(url, timeout=60)
    together.wait()
    result = Sweeper(store, pause=0, clock=lambda: time.time() + AHEAD_SECONDS).sweep()
    store.close()
    if result.error is not None:
        raise result.error
    return result.deleted


def _touch(url: str, number: int, together: Barrier, done: Event) -> set[bytes]:
    """Extend sessions until the sweepers are done: those they come to next, or, every second process, any."""
    store = SQLAlchemyStore(url, timeout=60)
    expires_at = int(time.time() * 1000) + 24 * HOUR_MS
    statement = f"SELECT id FROM prism_sessions WHERE expires_at < {expires_at - HOUR_MS} ORDER BY sweep_bucket"
    ids = _ids(url, statement)
    chance, extended = Random(number), set[bytes]()
    together.wait()
    while not done.is_set():
        some = chance.sample(ids, 200) if number % 2 else _ids(url, f"{statement} LIMIT 200 OFFSET 1000")
        extended.update(key for key in some if store.touch(StoredSession(key.hex(), b"", 1, 0, expires_at)))
    store.close()
    return extended


def _ids(url: str, statement: str) -> list[bytes]:
    engine = create_engine(url)
    with engine.connect() as connection:
        ids = [bytes(row[0]) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return ids
