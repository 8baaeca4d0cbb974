"""The database engine of the SQL store: made for short statements, with every wait bounded."""

import math
from enum import Enum, auto
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from prism_wsgi.errors import ConfigError

_EXTRAS = {"psycopg": "postgresql", "pymysql": "mariadb", "mysqldb": "mysqlclient"}


def create_store_engine(url: str | URL, *, timeout: float, sqlite_synchronous: str) -> Engine:
    """Return an engine for the database at `url`; nothing is connected yet.

    `timeout` (seconds) bounds each of connecting, waiting for a pooled connection, a lock, and an answer.
    Raises ConfigError when the URL cannot be read or its driver is not installed.
    """
    parsed = parse_url(url)
    options: dict[str, Any] = {
        # A load is then one message instead of three; transactions are begun where one is needed.
        "isolation_level": "AUTOCOMMIT",
        "skip_autocommit_rollback": True,
        "pool_reset_on_return": None,
        "hide_parameters": True,
    }
    backend = parsed.get_backend_name()
    if backend != "sqlite":
        options |= {"pool_timeout": timeout, "pool_use_lifo": True}
    driver = _driver(parsed)
    defaults = _connect_arguments(driver, timeout)
    options["connect_args"] = {name: value for name, value in defaults.items() if name not in parsed.query}
    try:
        engine = create_engine(parsed, **options)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(driver)
        install = f'pip install "prism_wsgi[{extra}]"' if extra else f"pip install {error.name}"
        raise ConfigError(
            f"The driver of {parsed.drivername!r}, {error.name}, is not installed: {install}"
        ) from error
    if backend == "sqlite":
        _set_pragmas_on_connect(engine, sqlite_synchronous)
    return engine


def parse_url(url: str | URL) -> URL:
    """Return the parsed URL, or raise ConfigError without showing what may be a password."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except NoSuchModuleError:
        raise ConfigError(
            f"No database is called {make_url(url).drivername!r}; the URL begins with sqlite, postgresql, mariadb "
            "or mysql, for example sqlite:///sessions.db"
        ) from None
    except (ArgumentError, ValueError, AttributeError):
        raise ConfigError(
            "The database URL cannot be read; it looks like sqlite:///sessions.db, "
            "postgresql://user:password@host/database or mariadb+pymysql://user:password@host/database"
        ) from None
    return parsed


def _driver(url: URL) -> str:
    return str(url.get_dialect().driver)


def _connect_arguments(driver: str, timeout: float) -> dict[str, Any]:
    seconds = max(1, math.ceil(timeout))
    milliseconds = math.ceil(timeout * 1000)
    if driver == "pysqlite":
        return {"timeout": timeout}
    if driver == "psycopg":
        return {
            "connect_timeout": max(2, seconds),  # libpq takes 1 for 2
            # A server that vanished answers nothing, so no statement_timeout of its own ends the wait.
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": seconds,
            "keepalives_interval": 1,
            "keepalives_count": seconds,
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        }
    if driver in ("pymysql", "mysqldb"):
        return {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "write_timeout": seconds,
            "init_command": f"SET SESSION innodb_lock_wait_timeout={seconds}",
        }
    return {}


def _set_pragmas_on_connect(engine: Engine, synchronous: str) -> None:
    def set_pragmas(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        # Readers and the writer do not wait for each other. The mode stays with the file.
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
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
# Error numbers of MySQL and MariaDB. 1047 is Galera without quorum, 1290 and 1836 --read-only.
_MYSQL_NUMBERS = {
    1062: Failure.DUPLICATE,
    1213: Failure.BUSY,
    1205: Failure.BUSY,
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
        failure = _SQLSTATES.get(getattr(error, "sqlstate", None) or "", Failure.OTHER)
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
