"""The SQL store's upkeep: what sweeps, lists, counts and ends sessions, away from the path of a request."""

from sqlalchemy import ColumnElement, Connection, Executable, Table, and_, case, delete, func, select, text

from prism_wsgi.schema import sweep_bucket
from prism_wsgi.stores.base import StoredSession, StoreStats
from prism_wsgi.stores.rows import loaded_columns, stored_session


class Upkeep:
    """The statements of upkeep on one table, each run on a connection that is given.

    `now` and `before` are Unix ms.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._dialect = dialect

    def sweep(self, connection: Connection, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before`; return how many."""
        return int(connection.execute(self._sweep_statement(before, limit)).rowcount)

    def find(
        self, connection: Connection, now: int, user: str | None, limit: int, after: str | None
    ) -> list[StoredSession]:
        """Return the sessions that live at `now`; see `IndexedStore.find`."""
        columns = self._table.c
        statement = (
            select(columns.id, *loaded_columns(self._table))
            .where(columns.expires_at > now, columns.superseded.is_(False))
            .order_by(columns.id)
            .limit(limit)
        )
        if user is not None:
            statement = statement.where(self._belongs_to(user))
        if after is not None:
            statement = statement.where(columns.id > bytes.fromhex(after))
        return [stored_session(bytes(row[0]).hex(), row[1:]) for row in connection.execute(statement)]

    def destroy_all(self, connection: Connection, user: str, except_id: str | None) -> int:
        """Delete every session of the user but `except_id`; return how many."""
        statement = delete(self._table).where(self._belongs_to(user))
        if except_id is not None:
            statement = statement.where(self._table.c.id != bytes.fromhex(except_id))
        return int(connection.execute(statement).rowcount)

    def stats(self, connection: Connection, now: int) -> StoreStats:
        """Count what is stored at `now`; reads the whole table."""
        columns = self._table.c
        is_live, is_marker = columns.expires_at > now, columns.superseded.is_(True)

        def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

        statement = select(
            count(and_(is_live, ~is_marker)),
            count(~is_live),
            count(and_(is_live, is_marker)),
            count(and_(is_live, columns.user_id.is_not(None))),
            func.coalesce(func.sum(func.length(columns.data)), 0),
            func.min(case((~is_live, columns.expires_at))),
        )
        *counts, oldest_expired = tuple(connection.execute(statement).one())
        live, expired, superseded, logged_in, data_bytes = map(int, counts)
        return StoreStats(live, expired, superseded, logged_in, data_bytes, oldest_expired)

    def _belongs_to(self, user: str) -> ColumnElement[bool]:
        # MariaDB ignores trailing spaces in comparisons, so put something behind; the first one uses the index.
        column = self._table.c.user_id
        return and_(column == user, column + "." == user + ".")

    def _sweep_statement(self, before: int, limit: int) -> Executable:
        # The DELETE itself repeats the condition on expires_at: one that relies on its subquery alone deletes
        # sessions that were extended in between.
        table = self._table
        expired = and_(table.c.sweep_bucket <= sweep_bucket(before), table.c.expires_at <= before)
        if self._dialect in ("mysql", "mariadb"):
            # IN (subquery) is eighty times slower here and blocks everybody; this form locks what it deletes.
            return text(
                f"DELETE FROM {table.name} WHERE sweep_bucket <= :bucket AND expires_at <= :before "  # noqa: S608
                "ORDER BY sweep_bucket LIMIT :limit"
            ).bindparams(bucket=sweep_bucket(before), before=before, limit=limit)
        oldest = select(table.c.id).where(expired).order_by(table.c.sweep_bucket).limit(limit)
        if self._dialect == "postgresql":
            oldest = oldest.with_for_update(skip_locked=True)
        return delete(table).where(table.c.id.in_(oldest), table.c.expires_at <= before)
