"""Fill a sessions table with any number of sessions, as fast as the engine takes them."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random
from typing import Any

from sqlalchemy import create_engine, make_url

from prism_wsgi.stores.base import KEPT_EXPIRED_MS
from prism_wsgi.stores.sql.schema import sweep_bucket

TABLE = "prism_sessions"
SOURCE = "source_sessions"
COLUMNS = ("id", "data", "version", "user_id", "created_at", "expires_at", "sweep_bucket", "superseded")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Row = tuple[bytes, bytes, int, str | None, int, int, int, bool]


def rows(count: int, *, now: int, chance: Random, expired_each: int = 2) -> Iterator[Row]:
    """Yield sessions begun in the ten days before `now` (Unix ms), every second one expired, and due for a sweep.

    `expired_each=20` makes it every twentieth. One in three belongs to a user. They hold 60 to 400 bytes.
    """
    begun, step = now - 10 * DAY_MS, 10 * DAY_MS / count
    for number in range(count):
        created_at = int(begun + number * step)
        if number % expired_each:
            expires_at = now + chance.randint(HOUR_MS, 14 * DAY_MS)
        else:
            used = int(chance.expovariate(1 / HOUR_MS))
            expires_at = min(created_at + used + HOUR_MS, now - KEPT_EXPIRED_MS - chance.randint(1, HOUR_MS))
        user = f"user-{chance.randrange(50_000)}" if number % 3 == 0 else None
        yield _row(created_at, expires_at, chance, user)


def due_rows(count: int, *, expires_at: int, chance: Random) -> Iterator[Row]:
    """Yield sessions that all expire at about `expires_at` (Unix ms)."""
    for number in range(count):
        yield _row(expires_at - DAY_MS + number // 100, expires_at - number // 1000, chance, None)


def fill(url: str, generated: Iterable[Row]) -> None:
    """Insert sessions: by COPY on PostgreSQL, elsewhere by executemany."""
    engine = create_engine(url)
    pooled = engine.raw_connection()
    cursor: Any = pooled.cursor()
    columns = ", ".join(COLUMNS)
    if engine.dialect.name == "postgresql":
        with cursor.copy(f"COPY {TABLE} ({columns}) FROM STDIN") as copy:
            for row in generated:
                copy.write_row(row)
    else:
        mark = "?" if engine.dialect.name == "sqlite" else "%s"
        insert = f"INSERT INTO {TABLE} ({columns}) VALUES ({', '.join([mark] * len(COLUMNS))})"
        source = iter(generated)
        while batch := list(islice(source, 5000)):
            cursor.executemany(insert, batch)
            pooled.commit()
    pooled.commit()
    pooled.close()
    engine.dispose()
    settle(url)


def make_source(url: str, generated: Iterable[Row]) -> None:
    """Keep sessions in a second table, from which each measurement starts again."""
    clear(url)
    fill(url, generated)
    _execute(url, f"CREATE TABLE {SOURCE} AS SELECT * FROM {TABLE}")


def copy_source(url: str) -> None:
    """Make the sessions those of the source again."""
    clear(url)
    columns = ", ".join(COLUMNS)
    _execute(url, f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM {SOURCE}")
    settle(url)


def drop_source(url: str) -> None:
    """Drop the source."""
    _execute(url, f"DROP TABLE {SOURCE}")


def clear(url: str) -> None:
    """Delete every session."""
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    _execute(url, f"DELETE FROM {TABLE}" if is_sqlite else f"TRUNCATE TABLE {TABLE}")


def settle(url: str) -> None:
    """Make the engine do its background work now, instead of in the middle of a measurement."""
    statements = {
        "postgresql": (f"VACUUM ANALYZE {TABLE}", "CHECKPOINT"),
        "sqlite": ("PRAGMA wal_checkpoint(TRUNCATE)",),
    }
    for statement in statements.get(make_url(url).get_backend_name(), (f"ANALYZE TABLE {TABLE}",)):
        _execute(url, statement)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement).close()
    engine.dispose()


def _row(created_at: int, expires_at: int, chance: Random, user: str | None) -> Row:
    session_id = created_at.to_bytes(6, "big") + os.urandom(26)
    data = b"\x01" + chance.randbytes(chance.randint(59, 399))
    version = 1 if chance.random() < 0.3 else chance.randint(2, 40)
    return session_id, data, version, user, created_at, expires_at, sweep_bucket(expires_at), False
