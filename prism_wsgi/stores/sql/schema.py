"""The sessions table, shared by the SQL store and the migrations."""

import re

from sqlalchemy import (
    BINARY,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)
from sqlalchemy.dialects.mysql import LONGBLOB

from prism_wsgi.errors import ConfigError
from prism_wsgi.stores.url_settings import DEFAULT_TABLE_NAME as DEFAULT_TABLE_NAME  # the store takes it from here

HOUR_MS = 3_600_000

_IS_KNOWN = text("user_id IS NOT NULL")

# The key of the table's version table is prism_alembic_version_<name>_pkc, and PostgreSQL's names end at 63
# bytes. Lower case only: MySQL folds names on some systems.
_PLAIN_NAME = re.compile(r"(?!prism_alembic_version)[a-z_][a-z0-9_]{0,36}")


def sweep_bucket(expires_at: int) -> int:
    """Return the hour (since 1970) in or at whose end a session expires; `expires_at` is Unix ms.

    Indexing this instead of the exact expiry leaves the index alone at most touches: PostgreSQL then
    updates the row in place (HOT), where an indexed `expires_at` made none of the updates HOT.
    """
    return -(-expires_at // HOUR_MS)


def sessions_table(name: str = DEFAULT_TABLE_NAME, metadata: MetaData | None = None) -> Table:
    """Return the sessions table under `name`, in `metadata` or in metadata of its own."""
    if not _PLAIN_NAME.fullmatch(name):
        raise ConfigError(
            f"table_name {name!r}: use 1 to 37 lower-case letters, digits and underscores, not a digit first "
            "and not prism_alembic_version"
        )
    return Table(
        name,
        MetaData() if metadata is None else metadata,
        # A plain LargeBinary is BLOB on MySQL, which cannot be a primary key.
        Column("id", LargeBinary(32).with_variant(BINARY(32), "mysql", "mariadb"), primary_key=True),
        # BLOB on MySQL ends at 64 KiB, and without strict mode it cuts what is longer.
        Column("data", LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb"), nullable=False),
        Column("version", Integer, nullable=False),
        Column("user_id", String(255)),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("sweep_bucket", Integer, nullable=False),
        Column("superseded", Boolean, nullable=False),
        # Most sessions may be those of visitors nobody knows: without them, an insert is a fifth faster on SQLite.
        Index(f"ix_{name}_user_id", "user_id", sqlite_where=_IS_KNOWN, postgresql_where=_IS_KNOWN),
        Index(f"ix_{name}_sweep_bucket", "sweep_bucket"),
        # Room on each page for the new version of a touched row.
        postgresql_with={"fillfactor": 85},
        # User ids that differ in case or accent are different users: compare bytes.
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )
