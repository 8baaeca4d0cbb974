"""The statements of the hot verbs, which SQLAlchemy Core compiles once for an engine."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    Integer,
    Table,
    bindparam,
    case,
    delete,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from prism_wsgi.stores.base import StoredSession
from prism_wsgi.stores.sql.rows import loaded_columns
from prism_wsgi.stores.sql.schema import buckets

TOUCHED = ("last_seen_at", "client_address", "user_agent")
"""The columns that a touch writes besides the expiry. None has an index, so PostgreSQL updates in place (HOT)."""


def used_values(session: StoredSession, key: bytes) -> dict[str, object]:
    """Return the values that a touch and a save have in common."""
    first, last = buckets(session.expires_at)
    return {
        "p_id": key,
        "p_version": session.version,
        "p_expires": session.expires_at,
        "p_first_bucket": first,
        "p_bucket": last,
        "p_last_seen_at": session.last_seen_at,
        "p_client_address": session.client_address,
        "p_user_agent": session.user_agent,
    }


class Statements:
    """The hot verbs' statements, compiled for one engine."""

    def __init__(self, table: Table, engine: Engine) -> None:
        columns = table.c
        has_id = columns.id == bindparam("p_id")
        has_version = columns.version == bindparam("p_version")
        is_session = columns.superseded.is_(False)
        expires_at = bindparam("p_expires", type_=BigInteger)
        one: ColumnElement[int] = literal_column("1")
        bucket: ColumnElement[int] = bindparam("p_bucket", type_=Integer)
        is_bucket_right = columns.sweep_bucket.between(bindparam("p_first_bucket"), bucket)
        used: dict[str, Any] = {name: bindparam(f"p_{name}") for name in TOUCHED}
        saved: dict[str, Any] = {
            "data": bindparam("p_data"),
            "expires_at": expires_at,
            **used,
            **{name: bindparam(f"p_{name}") for name in ("authenticated_at", "auth_method", "device_key")},
        }
        indexed: dict[str, Any] = {"user_id": bindparam("p_user_id"), "actor_id": bindparam("p_actor_id")}
        named = {**indexed, "superseded": bindparam("p_superseded")}
        born = {"id": bindparam("p_id"), "version": one, "created_at": bindparam("p_created")}
        self.select = Statement(select(columns.id, *loaded_columns(table)).where(has_id), engine)
        self.insert = Statement(insert(table).values(**born, **saved, **named, sweep_bucket=bucket), engine)
        self.end = Statement(delete(table).where(has_id, is_session), engine)
        self.delete = Statement(delete(table).where(has_id), engine)
        # On a row that never exists: a server that takes no writes, or none from this user, refuses even that.
        self.ping = Statement(update(table).values(last_seen_at=columns.last_seen_at).where(has_id), engine)
        update_version = update(table).values(version=columns.version + one, **saved).where(has_id, has_version)
        move = (
            update(table)
            .values(expires_at=case((columns.expires_at < expires_at, expires_at), else_=columns.expires_at), **used)
            .where(has_id, has_version, is_session)
        )
        kept_bucket = case((is_bucket_right, columns.sweep_bucket), else_=bucket)
        moved_bucket = case(
            (or_(columns.expires_at > expires_at, is_bucket_right), columns.sweep_bucket), else_=bucket
        )
        self.update = Statement(update_version.values(**named, sweep_bucket=kept_bucket), engine)
        self.touch = Statement(move.values(sweep_bucket=moved_bucket), engine)
        self.lean_update: Statement | None = None
        self.lean_touch: Statement | None = None
        if engine.dialect.name == "sqlite":
            # SQLite rewrites the index of each column in SET, also if the value is the same: 32 µs instead of 14 µs.
            # So the store first tries a statement without these columns, which works for all but one save in three
            # hours.
            same = [columns[name].is_not_distinct_from(value) for name, value in named.items()]
            self.lean_update = Statement(update_version.where(*same, is_bucket_right), engine)
            self.lean_touch = Statement(move.where(is_bucket_right), engine)


class Statement:
    """One statement, in the form that the driver takes."""

    def __init__(self, statement: ClauseElement, engine: Engine) -> None:
        compiled = statement.compile(dialect=engine.dialect)
        assert isinstance(compiled, SQLCompiler)
        self._sql = str(compiled)
        self._order = compiled.positiontup

    def run(self, cursor: DBAPICursor, values: Mapping[str, object]) -> int:
        """Execute with these values and return how many rows it matched."""
        cursor.execute(self._sql, values if self._order is None else [values[name] for name in self._order])
        return cursor.rowcount
