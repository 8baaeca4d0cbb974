"""The database engine of the SQL store: made for short statements, with every wait bounded."""

import math
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import Dialect

from prism_wsgi.stores.sql.database import make_engine, parse_url


def create_store_engine(url: str | URL, *, timeout: float, sqlite_synchronous: str) -> Engine:
    """Return an engine for the database at `url`; nothing is connected yet.

    `timeout` (seconds) bounds each of connecting, waiting for a pooled connection, a lock, and an answer.
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
        **({} if is_sqlite else {"pool_timeout": timeout, "pool_use_lifo": True}),
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


class Failure(Enum):
    """What a driver's error means for the statement, and for the connection."""

    DUPLICATE = auto()
    """The primary key is taken."""
    BUSY = auto()
    """A deadlock, a serialisation failure or a lock held too long: rolled back, worth another attempt."""
    LOST = auto()
    """The connection broke; whether the statement took effect is unknown."""
    READ_ONLY = auto()
    """The server was demoted or lost its quorum; a new connection may reach its successor."""
    NO_TABLE = auto()
    """The sessions table does not exist."""
    OTHER = auto()


# SQLSTATEs of PostgreSQL, appendix A of its manual
_SQLSTATES = {
    "23505": Failure.DUPLICATE,
    "40001": Failure.BUSY,
    "40P01": Failure.BUSY,
    "55P03": Failure.BUSY,
    "25006": Failure.READ_ONLY,
    "57P01": Failure.LOST,
    "57P02": Failure.LOST,
    "57P03": Failure.LOST,
    "42P01": Failure.NO_TABLE,
}
# Error numbers of MySQL and MariaDB. 1290 and 1836 are --read-only. A Galera node that is cut off from the others
# refuses what is new with 1047, and answers 1180 to a commit of which it cannot know whether the others have it.
_MYSQL_NUMBERS = {
    1062: Failure.DUPLICATE,
    1213: Failure.BUSY,
    1205: Failure.BUSY,
    1180: Failure.LOST,
    1047: Failure.READ_ONLY,
    1290: Failure.READ_ONLY,
    1792: Failure.READ_ONLY,
    1836: Failure.READ_ONLY,
    1146: Failure.NO_TABLE,
}
# Primary result codes of SQLite: BUSY, LOCKED
_SQLITE_BUSY = (5, 6)


def classify(dialect: Dialect, error: Exception, connection: Any) -> Failure:
    """Say what a driver's error means."""
    failure = Failure.OTHER
    if dialect.name == "postgresql":
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg 3, psycopg2
        failure = _SQLSTATES.get(code or "", Failure.OTHER)
    elif dialect.name in ("mysql", "mariadb"):
        failure = _MYSQL_NUMBERS.get(error.args[0] if error.args else 0, Failure.OTHER)
    elif dialect.name == "sqlite":
        failure = _classify_sqlite(error)
    elif isinstance(error, dialect.loaded_dbapi.IntegrityError):
        failure = Failure.DUPLICATE
    if failure is Failure.OTHER and dialect.is_disconnect(error, connection, None):  # type: ignore[arg-type]
        return Failure.LOST
    return failure


def _classify_sqlite(error: Exception) -> Failure:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF in _SQLITE_BUSY:
        return Failure.BUSY
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_CONSTRAINT_PRIMARYKEY"):
        return Failure.DUPLICATE
    return Failure.NO_TABLE if "no such table" in str(error) else Failure.OTHER
