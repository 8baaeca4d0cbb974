"""The database engine of the SQL store: made for short statements, with every wait bounded."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import URL, Engine, NullPool, event
from sqlalchemy.engine import Dialect

from prism_wsgi.stores.sql.database import make_engine, parse_url


def create_store_engine(url: str | URL, *, timeout: float, sqlite_synchronous: str) -> Engine:
    """Return an engine for the database at `url`; nothing is connected yet.

    `timeout` (seconds) bounds each of connecting, waiting for a lock, and for an answer.
    Raises ConfigError when the URL cannot be read or its driver is not installed.
    """
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    engine = make_engine(
        parsed,
        # A load is then one message instead of three; a transaction is begun where one is needed.
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        connect_args=_connect_arguments(parsed, timeout),
        poolclass=NullPool,  # the store keeps its connections itself
    )
    if is_sqlite:
        _set_pragmas_on_connect(engine, sqlite_synchronous)
    elif engine.dialect.driver == "psycopg":
        _bound_answers(engine, timeout)
    return engine


def _connect_arguments(url: URL, timeout: float) -> dict[str, Any]:
    """Return what bounds the driver's waits; what the URL itself sets stands."""
    seconds = max(1, math.ceil(timeout))
    milliseconds = math.ceil(timeout * 1000)
    driver = url.get_dialect().driver
    arguments: dict[str, Any] = {}
    if driver == "pysqlite":
        arguments = {"timeout": timeout}
    elif driver == "psycopg":
        arguments = {
            "connect_timeout": max(2, seconds),  # libpq takes 1 for 2
            # A server that vanished acknowledges nothing; see also BoundedConnection.
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": seconds,
            "keepalives_interval": 1,
            "keepalives_count": seconds,
        }
    elif driver in ("pymysql", "mysqldb"):
        arguments = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "write_timeout": seconds,
            "init_command": f"SET SESSION innodb_lock_wait_timeout={seconds}",
        }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if driver == "psycopg":
        own = url.query.get("options", "")
        bounds = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        arguments["options"] = f"{bounds} {own}".strip()  # later ones win
    return arguments


def _bound_answers(engine: Engine, timeout: float) -> None:
    from prism_wsgi.stores.sql.psycopg_bound import BoundedConnection  # psycopg may not be installed

    def connect(_: Dialect, __: object, arguments: Sequence[Any], named: dict[str, Any]) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **named)
        # Let the server's own statement_timeout and lock_timeout come first: they leave the connection intact.
        connection.answer_seconds = timeout + 0.5
        return connection

    event.listen(engine, "do_connect", connect)


def _set_pragmas_on_connect(engine: Engine, synchronous: str) -> None:
    def set_pragmas(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            # Readers and the writer then do not wait for each other. The mode stays with the file. Somebody
            # using the file at this moment keeps it from changing, and SQLite does not wait for them.
            with suppress(engine.dialect.loaded_dbapi.OperationalError):
                cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    event.listen(engine, "connect", set_pragmas)
