"""Loading from and inserting into a small and a large table, in turns."""

import hashlib
import random
import sqlite3
import statistics
import time
from typing import Any

from sqlalchemy import create_engine, make_url

from benchmarks.machine.databases import Places, set_sqlite_pragmas
from benchmarks.parts.plan import Plan
from benchmarks.report.figures import Figures
from benchmarks.subjects.scenarios import SMALL_STORED
from prism_wsgi import SQLAlchemyStore, StoredSession, migrate

LOADS, INSERTS, SLICE = 20_000, 3000, 100

_BEGIN_MS = 1_700_000_000_000
_EXPIRES_MS = 4_000_000_000_000
_SPREAD_HOURS = 336
_BATCH = 250_000


def measure(places: Places, plan: Plan) -> Figures:
    """Measure tables of the plan's sizes, on each SQL engine."""
    return {"rows": by_table_size(places, plan.table_sizes)}


def by_table_size(places: Places, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Return the median load (microseconds) and the inserts a second at each size, for each SQL engine."""
    figures: dict[str, Any] = {}
    for engine in ("sqlite", "postgresql", "mariadb"):
        if engine in places:
            print(f"Filling tables of {engine} ...", flush=True)
            stores = {size: _filled(engine, places[engine], size) for size in sizes}
            figures[engine] = _in_turns(stores)
            for store in stores.values():
                store.close()
    return figures


def _in_turns(stores: dict[int, SQLAlchemyStore]) -> list[dict[str, Any]]:
    loads: dict[int, list[int]] = {size: [] for size in stores}
    inserting = dict.fromkeys(stores, 0)
    chosen = random.Random(0)  # noqa: S311
    for _ in range(LOADS // SLICE):
        for size, store in stores.items():
            for number in chosen.choices(range(size), k=SLICE):
                session_id = _id(number)
                began = time.perf_counter_ns()
                found = store.load(session_id)
                loads[size].append(time.perf_counter_ns() - began)
                assert found is not None
    for turn in range(INSERTS // SLICE):
        for size, store in stores.items():
            first = size + turn * SLICE
            sessions = [_session(number) for number in range(first, first + SLICE)]
            began = time.perf_counter_ns()
            for session in sessions:
                store.save(session)
            inserting[size] += time.perf_counter_ns() - began
    return [
        {
            "rows": size,
            "load_us": statistics.median(loads[size]) / 1000,
            "load_p99_us": statistics.quantiles(loads[size], n=100)[98] / 1000,
            "inserts_per_second": INSERTS / (inserting[size] / 1e9),
        }
        for size in stores
    ]


def _id(number: int) -> str:
    return f"{_BEGIN_MS + number:012x}{hashlib.sha256(str(number).encode()).hexdigest()[:52]}"


def _session(number: int) -> StoredSession:
    expires_at = _EXPIRES_MS + number % _SPREAD_HOURS * 3_600_000
    return StoredSession(_id(number), SMALL_STORED, 0, _BEGIN_MS + number, expires_at)


def _filled(engine: str, place: str, size: int) -> SQLAlchemyStore:
    table = f"rows_{size}"
    migrate.upgrade(place, table_name=table)
    {"sqlite": _fill_sqlite, "postgresql": _fill_postgresql, "mariadb": _fill_mariadb}[engine](place, table, size)
    return SQLAlchemyStore(place, table_name=table)


_COLUMNS = "id, data, version, created_at, expires_at, sweep_bucket, superseded"
_FIRST_BUCKET = _EXPIRES_MS // 3_600_000 + 1


def _fill_sqlite(place: str, table: str, size: int) -> None:
    connection = sqlite3.connect(make_url(place).database or "", isolation_level=None)
    set_sqlite_pragmas(connection, None)
    rows = (
        (
            bytes.fromhex(_id(number)),
            *(SMALL_STORED, 1, _BEGIN_MS + number),
            *(_EXPIRES_MS + number % _SPREAD_HOURS * 3_600_000, _FIRST_BUCKET + number % _SPREAD_HOURS, 0),
        )
        for number in range(size)
    )
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {table} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.close()


def _fill_postgresql(place: str, table: str, size: int) -> None:
    row_id = f"decode(lpad(to_hex({_BEGIN_MS} + n), 12, '0'), 'hex') || substr(sha256(n::text::bytea), 1, 26)"
    _fill_server(place, table, size, row_id, f"'\\x{SMALL_STORED.hex()}'", "generate_series({}::bigint, {}) AS n")
    with create_engine(place, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table}")
        connection.exec_driver_sql("CHECKPOINT")


def _fill_mariadb(place: str, table: str, size: int) -> None:
    row_id = f"unhex(concat(lpad(hex({_BEGIN_MS} + n), 12, '0'), left(sha2(n, 256), 52)))"
    _fill_server(
        place, table, size, row_id, f"x'{SMALL_STORED.hex()}'", "(SELECT seq AS n FROM seq_{}_to_{}) AS numbers"
    )
    with create_engine(place, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"ANALYZE TABLE {table}").all()


def _fill_server(place: str, table: str, size: int, row_id: str, data: str, numbers: str) -> None:
    values = (
        f"{row_id}, {data}, 1, {_BEGIN_MS} + n, {_EXPIRES_MS} + mod(n, {_SPREAD_HOURS}) * 3600000, "
        f"{_FIRST_BUCKET} + mod(n, {_SPREAD_HOURS}), false"
    )
    with create_engine(place, isolation_level="AUTOCOMMIT").connect() as connection:
        for first in range(0, size, _BATCH):
            last = min(size, first + _BATCH) - 1
            source = numbers.format(first, last)
            connection.exec_driver_sql(f"INSERT INTO {table} ({_COLUMNS}) SELECT {values} FROM {source}")
