"""The failures of databases: what a driver's error means for the statement and for the connection."""

import re
from enum import Enum, auto
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError


class WrongAnswerError(Exception):
    """The answer on a connection belongs to another statement."""


class Failure(Enum):
    """The meaning of a driver's error for the statement and for the connection."""

    DUPLICATE = auto()
    """The primary key is taken."""
    BUSY = auto()
    """A deadlock, a serialisation failure or a long lock; the statement was rolled back and can be tried again."""
    LOST = auto()
    """The connection broke; whether the statement took effect is unknown."""
    STALE = auto()
    """A prepared statement does not fit the table any more, and did nothing; a new connection has none."""
    UNPREPARED = auto()
    """The server does not know a statement that this client has prepared, or knows another one by that name."""
    READ_ONLY = auto()
    """The server was demoted or lost its quorum; a new connection may reach its successor."""
    NO_TABLE = auto()
    """The sessions table does not exist."""
    NO_COLUMN = auto()
    """The sessions table is from an earlier version."""
    OTHER = auto()


BREAKING = frozenset({Failure.LOST, Failure.STALE, Failure.UNPREPARED, Failure.READ_ONLY, Failure.OTHER})
"""Failures after which a connection is not used again: it is gone, or on the wrong server, or in an unknown state."""

BREAKING_ALL = frozenset({Failure.LOST, Failure.STALE, Failure.UNPREPARED, Failure.READ_ONLY})
"""Failures after which idle connections are not used again either."""

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
# Error numbers of MySQL and MariaDB. 1020 is the serialisation failure of innodb_snapshot_isolation, which is on by
# default from MariaDB 11.6.2. 1290 and 1836 are --read-only. A Galera node that is cut off from the others
# refuses new statements with 1047. It answers a commit with 1180 if it cannot know whether the others have it.
_MYSQL_NUMBERS = {
    1062: Failure.DUPLICATE,
    1020: Failure.BUSY,
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
# 0A000 is "not supported"; of statements that work otherwise, PostgreSQL says only this.
_CACHED_PLAN = "cached plan must not change result type"
# The server, or its user, has the maximum of connections. PostgreSQL sends 53300 too, but psycopg does not pass on
# the code of an error at connecting.
_MYSQL_REFUSALS = (1040, 1203, 1226)
_REFUSED = re.compile(
    r"too many connections|too many clients|connection slots are reserved|no more connections", re.I
)
# Words of an error, and what to do about it
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
    """Return the meaning of a driver's error; `error` may be the SQLAlchemy error around it."""
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
    """Return what to do about an error, behind a semicolon; empty if that is unknown."""
    said = str(error)
    return next((f"; {helps}" for words, helps in _ADVICE if words in said), "")


def is_refusal(dialect: Dialect, error: Exception) -> bool:
    """Tell whether the server refuses a connection because it has its maximum of connections."""
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
