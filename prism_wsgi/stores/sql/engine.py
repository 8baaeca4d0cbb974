"""The database engine of the SQL store, which is tuned for short statements and limits every wait."""

import math
from contextlib import suppress
from typing import Any

from sqlalchemy import URL, Engine, NullPool, event

from prism_wsgi.stores.sql.database import (
    CredentialProvider,
    ask_for_credentials,
    connect_by,
    make_engine,
    parse_url,
)
from prism_wsgi.stores.sql.pooling import Pooling, refuses_parameters

# How often psycopg runs a statement before it prepares it on the server; psycopg's default too.
_PREPARE_THRESHOLD = 5
_MOST_KEEPALIVES = 127  # Linux refuses more, and with it the connection


def create_store_engine(
    url: str | URL,
    *,
    timeout: float,
    sqlite_synchronous: str,
    pooling: Pooling,
    credential_provider: CredentialProvider | None,
) -> Engine:
    """Return an engine for the database at `url`; nothing is connected yet.

    `timeout` (seconds) limits connecting, waiting for a lock, and waiting for an answer. `credential_provider` is
    called for each connection. Raises ConfigError when the URL cannot be read or its driver is not installed.
    """
    parsed = parse_url(url)
    engine = make_engine(
        parsed,
        # A load is then one message instead of three; the store begins a transaction only if it needs one.
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        connect_args=_connect_arguments(parsed, timeout),
        poolclass=NullPool,  # the store keeps its connections itself
    )
    if parsed.get_backend_name() == "sqlite":
        _set_pragmas_on_connect(engine, sqlite_synchronous)
    elif engine.dialect.driver == "psycopg":
        _connect_with_bounds(engine, timeout, pooling)
    elif "init_command" in parsed.query:
        _set_variables_on_connect(engine, _mysql_variables(parsed, timeout))
    ask_for_credentials(engine, credential_provider)
    return engine


def _connect_arguments(url: URL, timeout: float) -> dict[str, Any]:
    """Return the driver's arguments that limit its waits, except those that the URL sets."""
    seconds = max(1, math.ceil(timeout))
    driver = url.get_dialect().driver
    arguments: dict[str, Any] = {}
    if driver == "pysqlite":
        arguments = {"timeout": timeout}
    elif driver == "psycopg":
        arguments = {
            "connect_timeout": max(2, seconds),  # libpq uses 2 for 1
            # A server that has vanished acknowledges nothing; see also BoundedConnection.
            "tcp_user_timeout": math.ceil(timeout * 1000),
            "keepalives_idle": seconds,
            "keepalives_interval": 1,
            "keepalives_count": min(seconds, _MOST_KEEPALIVES),
            "prepare_threshold": _PREPARE_THRESHOLD,
        }
    elif driver in ("pymysql", "mysqldb"):
        arguments = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "write_timeout": seconds,
            "autocommit": True,
            "init_command": _mysql_variables(url, timeout),
        }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if driver == "psycopg":
        arguments["options"] = _postgresql_options(url, timeout)
    return arguments


def _postgresql_options(url: URL, timeout: float) -> str:
    milliseconds = math.ceil(timeout * 1000)
    bounds = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    return f"{bounds} {url.query.get('options', '')}".strip()  # the URL's come last, and win


def _mysql_variables(url: URL, timeout: float) -> str:
    # The driver's flag may say that the server commits by itself even if it does not. The URL's lock wait is kept.
    statement = "SET SESSION autocommit=1"
    if "innodb_lock_wait_timeout" in str(url.query.get("init_command", "")):
        return statement
    return f"{statement}, innodb_lock_wait_timeout={max(1, math.ceil(timeout))}"


def _connect_with_bounds(engine: Engine, timeout: float, pooling: Pooling) -> None:
    from prism_wsgi.stores.sql.psycopg_bound import BoundedConnection  # psycopg may not be installed

    own = str(engine.url.query.get("options", ""))
    bounds = _postgresql_options(engine.url, timeout)

    def connect(*arguments: Any, **named: Any) -> BoundedConnection:
        options = named.pop("options", bounds)  # a listener may have changed them
        if pooling.is_transactional:
            named["prepare_threshold"] = None
            options = own if options == bounds else options
        if options:
            named["options"] = options
        connection = BoundedConnection.connect(*arguments, **named)
        # Later than the server's statement_timeout and lock_timeout, which leave the connection intact.
        connection.answer_seconds = timeout + 0.5
        return connection

    def connect_or_meet_pooler(_: object, *arguments: Any, **named: Any) -> BoundedConnection:
        try:
            return connect(*arguments, **named)
        except engine.dialect.loaded_dbapi.OperationalError as error:
            if own or not refuses_parameters(error):
                raise
        pooling.find_out("The database refuses start-up options")
        return connect(*arguments, **named)

    connect_by(engine, connect_or_meet_pooler)


def _set_variables_on_connect(engine: Engine, statement: str) -> None:
    def set_variables(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    event.listen(engine, "connect", set_variables)


def _set_pragmas_on_connect(engine: Engine, synchronous: str) -> None:
    def set_pragmas(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            # With WAL, readers and the writer do not wait for each other. SQLite keeps the mode in the file. If
            # another connection uses the file at this moment, SQLite does not wait for it, and the mode stays as it
            # is.
            with suppress(engine.dialect.loaded_dbapi.OperationalError):
                cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    event.listen(engine, "connect", set_pragmas)
