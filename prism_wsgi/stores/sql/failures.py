"""What the errors of each database's drivers mean for the statement, and for the connection."""

import re
from enum import Enum, auto
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError


class WrongAnswerError(Exception):
    """The answer on a connection was that to another question."""


class Failure(Enum):
    """What a driver's error means for the statement, and for the connection."""

    DUPLICATE = auto()
    """The primary key is taken."""
    BUSY = auto()
    """A deadlock, a serialisation failure or a lock held too long: rolled back, worth another attempt."""
    LOST = auto()
    """The connection broke; whether the statement took effect is unknown."""
    STALE = auto()
    """What the server has prepared fits the table no more, so that it did nothing; a new connection has no such."""
    UNPREPARED = auto()
    """The server does not know what this client has prepared, or knows something else by that name."""
    READ_ONLY = auto()
    """The server was demoted or lost its quorum; a new connection may reach its successor."""
    NO_TABLE = auto()
    """The sessions table does not exist."""
    NO_COLUMN = auto()
    """The sessions table is from an earlier version."""
    OTHER = auto()


BREAKING = frozenset({Failure.LOST, Failure.STALE, Failure.UNPREPARED, Failure.READ_ONLY, Failure.OTHER})
"""After these a connection is not used again: it is gone, leads to the wrong server, or is in no known state."""

BREAKING_ALL = frozenset({Failure.LOST, Failure.STALE, Failure.UNPREPARED, Failure.READ_ONLY})
"""After these the connections that idle are no better."""

# SQLSTATEs of PostgreSQL, appendix A of its manual
_SQLSTATES = {
    "23505": Failure.DUPLICATE,
    "40001": Failure.BUSY,
    "40P01": Failure.BUSY,
    "55P03": Failure.BUSY,
    "25006": Failure.READ_ONLY,
    "26000": Failure.UNPREPARED,
    "42P05": Failure.UNPREPARED,
    "57P01": Failure.LOST,
    "57P02": Failure.LOST,
    "57P03": Failure.LOST,
    "42P01": Failure.NO_TABLE,
    "42703": Failure.NO_COLUMN,
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
    1054: Failure.NO_COLUMN,
}
# 0A000 says that something is not supported; of statements that work, only this is said.
_CACHED_PLAN = "cached plan must not change result type"
# The server, or this user of it, has as many connections as may be. PostgreSQL sends 53300 with it, but psycopg does
# not pass on the code of an error at connecting.
_MYSQL_REFUSALS = (1040, 1203, 1226)
_REFUSED = re.compile(
    r"too many connections|too many clients|connection slots are reserved|no more connections", re.I
)
# What an error says, and what helps
_ADVICE = (
    (
        "unable to open database file",
        "the directory must exist, and this user must have the right to write in it: SQLite makes files beside the "
        "database",
    ),
    (
        "attempt to write a readonly database",
        "this user must have the right to write to the file and in its directory, where SQLite makes other files",
    ),
    (
        "cannot use a string pattern on a bytes-like object",
        "the database is in SQL_ASCII, and texts come as bytes: append ?client_encoding=utf8 to your engine's URL",
    ),
    ("'cryptography' package is required", "pip install 'prism_wsgi[mysql]'"),
    (
        "unsupported startup parameter",
        "leave `options` out of the URL, set transaction_pooling=True, and name the schema by schema=",
    ),
)
# Primary result codes of SQLite: BUSY, LOCKED
_SQLITE_BUSY = (5, 6)


def classify(dialect: Dialect, error: Exception, connection: Any) -> Failure:
    """Say what a driver's error means; `error` may be one of SQLAlchemy's that has the driver's in it."""
    if isinstance(error, WrongAnswerError):
        return Failure.LOST
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return Failure.LOST
        error = error.orig if isinstance(error.orig, Exception) else error
    failure = Failure.OTHER
    if dialect.name == "postgresql":
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg 3, psycopg2
        failure = Failure.STALE if _CACHED_PLAN in str(error) else _SQLSTATES.get(code or "", Failure.OTHER)
    elif dialect.name in ("mysql", "mariadb"):
        failure = _MYSQL_NUMBERS.get(error.args[0] if error.args else 0, Failure.OTHER)
    elif dialect.name == "sqlite":
        failure = _classify_sqlite(error)
    elif isinstance(error, dialect.loaded_dbapi.IntegrityError):
        failure = Failure.DUPLICATE
    if failure is Failure.OTHER and dialect.is_disconnect(error, connection, None):  # type: ignore[arg-type]
        return Failure.LOST
    return failure


def advice(error: BaseException) -> str:
    """Return what helps against an error, empty where its own words have to do."""
    said = str(error)
    return next((f"; {helps}" for words, helps in _ADVICE if words in said), "")


def is_refusal(dialect: Dialect, error: Exception) -> bool:
    """Tell whether an error at connecting says that the server gives no more connections."""
    found = error.orig if isinstance(error, DBAPIError) else error
    if dialect.name in ("mysql", "mariadb"):
        return found is not None and found.args[:1] != () and found.args[0] in _MYSQL_REFUSALS
    return dialect.name == "postgresql" and _REFUSED.search(str(found)) is not None


def _classify_sqlite(error: Exception) -> Failure:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF in _SQLITE_BUSY:
        return Failure.BUSY
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_CONSTRAINT_PRIMARYKEY"):
        return Failure.DUPLICATE
    if "no such table" in str(error):
        return Failure.NO_TABLE
    return Failure.NO_COLUMN if re.search("no such column|no column named", str(error)) else Failure.OTHER
