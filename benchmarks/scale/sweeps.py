"""Ways to delete expired sessions: the usual loop, and any number of sweepers."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Barrier

from sqlalchemy import Engine, create_engine, text

from prism_wsgi import SQLAlchemyStore
from prism_wsgi.stores.sql.schema import sweep_bucket
from prism_wsgi.sweeper import Sweeper

USUAL_BATCH = 1000

_EXPIRED = "SELECT id FROM prism_sessions WHERE sweep_bucket <= :bucket AND expires_at <= :before LIMIT :limit"


@dataclass
class Turn:
    """One process's turn: what it deleted, in which time and in how many batches."""

    deleted: int
    started: float
    ended: float
    batches: int
    peak_kib: int
    error: str = ""


def usual_loop(url: str, seconds: float, together: Barrier) -> Turn:
    """Delete by `id IN (SELECT ... LIMIT 1000)` until the time is up."""
    engine = create_engine(url)
    statement = f"DELETE FROM prism_sessions WHERE id IN ({_EXPIRED})"
    if engine.dialect.name not in (
        "sqlite",
        "postgresql",
    ):  # MariaDB takes LIMIT in a subquery within that of IN only
        statement = f"DELETE FROM prism_sessions WHERE id IN (SELECT id FROM ({_EXPIRED}) AS expired)"
    turn = _repeat(lambda: _execute(engine, statement), seconds, together)
    engine.dispose()
    return turn


def plain_loop(url: str, seconds: float, together: Barrier) -> Turn:
    """Delete by MariaDB's `DELETE ... LIMIT 1000` until the time is up."""
    engine = create_engine(url)
    statement = (
        "DELETE FROM prism_sessions WHERE sweep_bucket <= :bucket AND expires_at <= :before "
        "ORDER BY sweep_bucket LIMIT :limit"
    )
    turn = _repeat(lambda: _execute(engine, statement), seconds, together)
    engine.dispose()
    return turn


def sweeper(url: str, seconds: float, together: Barrier) -> Turn:
    """Sweep as `prism-wsgi sweep` does, until the time is up."""
    store = SQLAlchemyStore(url, timeout=60)
    return _sweep(store, Sweeper(store, max_seconds=seconds), together)


def hurried_sweeper(url: str, seconds: float, together: Barrier) -> Turn:
    """Sweep as `prism-wsgi sweep --target-ms 10 --pause 0` does, until the time is up."""
    store = SQLAlchemyStore(url, timeout=60)
    return _sweep(store, Sweeper(store, max_seconds=seconds, target_ms=10, pause=0), together)


def _sweep(store: SQLAlchemyStore, sweeper: Sweeper, together: Barrier) -> Turn:
    store.sweep(0, 1)
    together.wait()
    started = time.monotonic()
    result = sweeper.sweep()
    ended = time.monotonic()
    store.close()
    return Turn(result.deleted, started, ended, result.batches, _peak_kib(), str(result.error or ""))


def _repeat(delete: Callable[[], int], seconds: float, together: Barrier) -> Turn:
    together.wait()
    turn = Turn(0, time.monotonic(), 0.0, 0, 0)
    while time.monotonic() - turn.started < seconds:
        gone = delete()
        turn.deleted += gone
        turn.batches += 1
        if gone < USUAL_BATCH:
            break
    turn.ended, turn.peak_kib = time.monotonic(), _peak_kib()
    return turn


def _execute(engine: Engine, statement: str) -> int:
    before = int(time.time() * 1000)
    values = {"bucket": sweep_bucket(before), "before": before, "limit": USUAL_BATCH}
    with engine.begin() as connection:
        return int(connection.execute(text(statement), values).rowcount)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
