"""The tables of sessions, sweeps and events, shared by the SQL store and the migrations."""

import re
from typing import Any

from sqlalchemy import (
    BINARY,
    DDL,
    VARBINARY,
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
    text,
)
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from prism_wsgi.errors import ConfigError
from prism_wsgi.stores.url_settings import DEFAULT_TABLE_NAME as DEFAULT_TABLE_NAME  # the store takes it from here

HOUR_MS = 3_600_000
BUCKET_SLACK = 2
"""The number of hours by which a row's bucket may lie behind the hour in which the row expires."""

_LAST_HOUR = 2**31 - 3  # the column is an Integer
_ID = LargeBinary(32).with_variant(
    BINARY(32), "mysql", "mariadb"
)  # a LargeBinary is BLOB there, which cannot be a key
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite generates values for an INTEGER key only
_OPTIONS: dict[str, Any] = {
    # User ids that differ in case or accent are different users: compare bytes.
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}

# The key of the version table is prism_alembic_version_<name>_pkc, and names in PostgreSQL have at most 63 bytes.
# Lower case only, since MySQL ignores the case of names on some systems.
_PLAIN_NAME = re.compile(r"(?!prism_alembic_version)[a-z_][a-z0-9_]{0,36}")


def buckets(expires_at: int) -> tuple[int, int]:
    """Return the first and the last bucket in which a row may be that expires at `expires_at` (Unix ms).

    A bucket is a number of hours since 1970. A row gets the last one, and keeps it until its expiry has moved past
    it: for three hours, if the session is used all the time. The index is on the bucket, not on the exact expiry, so
    most touches leave it alone and PostgreSQL updates the row in place (HOT). With an index on `expires_at`, none of
    the updates was HOT; with a bucket that is always the hour of the expiry, 83 % were.
    """
    hour = -(-expires_at // HOUR_MS)
    if hour > _LAST_HOUR:
        hour = _LAST_HOUR
    return hour, hour + BUCKET_SLACK


def sweep_bucket(expires_at: int) -> int:
    """Return the bucket of a new row that expires at `expires_at` (Unix ms), the last that a sweep has to read."""
    return buckets(expires_at)[1]


def table_names(name: str) -> tuple[str, str, str]:
    """Return the names of the sessions table `name` and of the tables of sweeps and events that belong to it."""
    return name, f"{name}_sweeps", f"{name}_events"


def checked_schema(name: str | None) -> str | None:
    """Return the name of a schema. Raises ConfigError for a name that needs quotes."""
    if name is None:
        return None
    if not isinstance(name, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) or name in RESERVED_WORDS:
        raise ConfigError(f"schema must be a plain name in lower case, such as auth, not {name!r}")
    return name


def sessions_table(name: str = DEFAULT_TABLE_NAME, metadata: MetaData | None = None) -> Table:
    """Return the sessions table under `name`, and put it into `metadata` with its tables of sweeps and events."""
    if not _PLAIN_NAME.fullmatch(name):
        raise ConfigError(
            f"table_name {name!r}: use 1 to 37 lower-case letters, digits and underscores, not a digit first "
            "and not prism_alembic_version"
        )
    metadata = MetaData() if metadata is None else metadata
    sweeps_table(name, metadata)
    events_table(name, metadata)
    table = Table(
        name,
        metadata,
        Column("id", _ID, primary_key=True),
        # A BLOB of MySQL holds 64 KiB, and cuts longer data without strict mode.
        Column("data", LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb"), nullable=False),
        Column("version", Integer, nullable=False),
        Column("user_id", String(255)),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("sweep_bucket", Integer, nullable=False),
        Column("superseded", Boolean, nullable=False),
        *added_columns(),
        # Rows without a user are not indexed: SQLite then inserts them in four fifths of the time.
        _index_where_known(name, "user_id"),
        _index_where_known(name, "actor_id"),
        Index(f"ix_{name}_sweep_bucket", "sweep_bucket"),
        **_OPTIONS,
    )
    # Room on each page for the new version of a touched row. SQLAlchemy 2.0 has no table option for this.
    room: Any = DDL("ALTER TABLE %(fullname)s SET (fillfactor = 85)")  # type: ignore[no-untyped-call]
    event.listen(table, "after_create", room.execute_if(dialect="postgresql"))
    return table


def added_columns() -> list[Column[Any]]:
    """Return the columns that revision 0004 adds, in their order. Those that a touch writes have no index (HOT)."""
    return [
        Column("last_seen_at", BigInteger),
        Column("authenticated_at", BigInteger),
        Column("auth_method", String(64)),
        Column("actor_id", String(255)),
        Column("client_address", String(64)),
        Column("user_agent", String(256)),
        Column("device_key", LargeBinary().with_variant(VARBINARY(72), "mysql", "mariadb")),
    ]


def sweeps_table(name: str, metadata: MetaData) -> Table:
    """Return the table of sweeps that belongs to the sessions table `name`. Times are Unix ms."""
    return Table(
        table_names(name)[1],
        metadata,
        Column("id", _NUMBER, Identity(), primary_key=True, autoincrement=True),
        Column("started_at", BigInteger, nullable=False),
        Column("ended_at", BigInteger),
        Column("deleted", BigInteger, nullable=False),
        Column("outcome", String(32), nullable=False),
        Column("host", String(255), nullable=False),
        **_OPTIONS,
    )


def events_table(name: str, metadata: MetaData) -> Table:
    """Return the table of events that belongs to the sessions table `name`. `timestamp` is Unix ms."""
    events = table_names(name)[2]
    return Table(
        events,
        metadata,
        Column("id", _NUMBER, Identity(), primary_key=True, autoincrement=True),
        Column("timestamp", BigInteger, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("reason", String(32)),
        Column("session_id", _ID),
        Column("previous_id", _ID),
        Column("user_id", String(255)),
        Column("actor_id", String(255)),
        Column("client_address", String(64)),
        Column("user_agent", String(256)),
        Column("author", String(255)),
        Index(f"ix_{events}_timestamp", "timestamp"),
        # A user's newest events are the last of theirs in the index, however many there are.
        _index_where_known(events, "user_id", "id"),
        _index_where_known(events, "actor_id", "id"),
        **_OPTIONS,
    )


def _index_where_known(table: str, column: str, *further: str) -> Index:
    name, condition = "_".join(("ix", table, column, *further)), text(f"{column} IS NOT NULL")
    return Index(name, column, *further, sqlite_where=condition, postgresql_where=condition)
