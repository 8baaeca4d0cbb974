"""Fill and sweep one table over and over: what it takes on disk must not grow from cycle to cycle."""

import time
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import create_engine, make_url

from benchmarks.scale.generate import HOUR_MS, clear, due_rows, fill
from prism_wsgi import SQLAlchemyStore
from prism_wsgi.sweeper import Sweeper

CYCLES = 10


def cycles(url: str, count: int) -> list[dict[str, float]]:
    """Insert `count` sessions and sweep them, ten times; return the size on disk after each sweep.

    On PostgreSQL each sweep is followed by the VACUUM that autovacuum would run.
    """
    clear(url)
    found = []
    store = SQLAlchemyStore(url, timeout=60)
    for number in range(CYCLES):
        fill(url, due_rows(count, expires_at=int(time.time() * 1000) - HOUR_MS, chance=Random(number)))
        result = Sweeper(store, pause=0).sweep()
        found.append({"deleted": result.deleted, "mib": _size_after_sweep(url) / 1024**2})
    store.close()
    print("  cycles, MiB after each: " + " ".join(f"{one['mib']:.0f}" for one in found), flush=True)
    return found


def _size_after_sweep(url: str) -> float:
    place = make_url(url)
    if place.get_backend_name() == "sqlite":
        assert place.database is not None
        return Path(place.database).stat().st_size
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM prism_sessions")
            statement = "SELECT pg_total_relation_size('prism_sessions')"
        else:
            connection.exec_driver_sql("ANALYZE TABLE prism_sessions").fetchall()
            statement = (
                "SELECT file_size FROM information_schema.innodb_sys_tablespaces "
                "WHERE name = concat(database(), '/prism_sessions')"
            )
        size: Any = connection.exec_driver_sql(statement).scalar_one()
    engine.dispose()
    return float(size)
