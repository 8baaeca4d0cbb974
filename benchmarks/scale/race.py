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


def race(url: str, count: int) -> dict[str, Any]:
    """Sweep `count` expired sessions while others extend them; count those wrongly deleted.

    A request that has loaded a session may extend it also when it has expired since.
    """
    clear(url)
    fill(url, due_rows(count, expires_at=int(time.time() * 1000) - HOUR_MS, chance=Random(2)))
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(SWEEPERS + TOUCHERS, mp_context=context) as workers:
        together, done = manager.Barrier(SWEEPERS + TOUCHERS), manager.Event()
        sweeping = [workers.submit(_sweep, url, together) for _ in range(SWEEPERS)]
        touching = [workers.submit(_touch, url, number, together, done) for number in range(TOUCHERS)]
        deleted = sum(one.result() for one in sweeping)
        done.set()
        extended = {session_id for one in touching for session_id in one.result()}
    left = {key for key, _ in _rows(url, "SELECT id, version FROM prism_sessions")}
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
    result = Sweeper(store, pause=0).sweep()
    store.close()
    if result.error is not None:
        raise result.error
    return result.deleted


def _touch(url: str, number: int, together: Barrier, done: Event) -> set[bytes]:
    """Extend sessions until the sweepers are done: those they come to next, or, every second process, any."""
    store = SQLAlchemyStore(url, timeout=60)
    expires_at = int(time.time() * 1000) + 24 * HOUR_MS
    statement = (
        f"SELECT id, version FROM prism_sessions WHERE expires_at < {expires_at - HOUR_MS} ORDER BY sweep_bucket"
    )
    rows = _rows(url, statement)
    chance, extended = Random(number), set[bytes]()
    together.wait()
    while not done.is_set():
        some = chance.sample(rows, 200) if number % 2 else _rows(url, f"{statement} LIMIT 200 OFFSET 1000")
        for key, version in some:
            if store.touch(StoredSession(key.hex(), b"", version, 0, expires_at)):
                extended.add(key)
    store.close()
    return extended


def _rows(url: str, statement: str) -> list[tuple[bytes, int]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [(bytes(row[0]), int(row[1])) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return rows
