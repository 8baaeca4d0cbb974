"""The SQL store's maintenance: what sweeps, lists, counts and ends sessions, away from the path of a request."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    case,
    delete,
    func,
    select,
)

from prism_wsgi.stores.base import AGE_LIMITS, SessionSummary, StoredSession, StoreStats
from prism_wsgi.stores.sql.rows import loaded_columns, required_key, stored_session
from prism_wsgi.stores.sql.sweeping import BatchDeletion


class Maintenance:
    """The statements of maintenance on one table, each run on a connection that is given.

    `now` and `before` are Unix ms.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._sweeping = BatchDeletion(table, dialect)
        self.sweep_pace = self._sweeping.pace

    def sweep(self, connection: Connection, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before`; return how many."""
        return self._sweeping.delete_batch(connection, before, limit)

    def oldest_expired(self, connection: Connection, before: int) -> int | None:
        """Return the earliest expiry at or before `before`; reads the lowest bucket only."""
        columns = self._table.c
        lowest = select(func.min(columns.sweep_bucket)).scalar_subquery()
        statement = select(func.min(columns.expires_at)).where(columns.sweep_bucket == lowest)
        oldest: int | None = connection.execute(statement).scalar_one()
        return None if oldest is None or oldest > before else oldest

    def count_expired(self, connection: Connection, before: int) -> int:
        """Count the sessions that expired at or before `before`."""
        statement = select(func.count()).select_from(self._table).where(self._sweeping.is_due(before))
        return int(connection.execute(statement).scalar_one())

    def find(
        self, connection: Connection, now: int, user: str | None, limit: int, after: str | None
    ) -> list[StoredSession]:
        """Return the sessions that live at `now`; see `IndexedStore.find`."""
        columns = self._table.c
        statement = select(columns.id, *loaded_columns(self._table)).where(
            columns.expires_at > now, columns.superseded.is_(False)
        )
        statement = self._page(statement, user, limit, after)
        return [stored_session(bytes(row[0]).hex(), row[1:]) for row in connection.execute(statement)]

    def summaries(
        self,
        connection: Connection,
        now: int,
        *,
        user: str | None,
        created_before: int | None,
        limit: int,
        after: str | None,
    ) -> list[SessionSummary]:
        """Return what `find` does, without the data; `created_before` (Unix ms) leaves out younger sessions."""
        columns = self._table.c
        statement = select(
            columns.id,
            columns.user_id,
            columns.created_at,
            columns.expires_at,
            func.length(columns.data),
            columns.version,
        ).where(columns.expires_at > now, columns.superseded.is_(False))
        if created_before is not None:
            statement = statement.where(columns.created_at < created_before)
        statement = self._page(statement, user, limit, after)
        return [SessionSummary(bytes(row[0]).hex(), *row[1:]) for row in connection.execute(statement)]

    def destroy_many(self, connection: Connection, ids: Sequence[str]) -> int:
        """Delete the sessions of these ids, or where they have moved; return how many there were."""
        columns = self._table.c
        destroyed, ending = 0, list(map(bytes.fromhex, ids))
        markers: list[bytes] = []
        while ending:
            live = delete(self._table).where(columns.id.in_(ending), columns.superseded.is_(False))
            destroyed += int(connection.execute(live).rowcount)
            moved = select(columns.id, columns.data).where(columns.id.in_(ending), columns.superseded.is_(True))
            # FOR UPDATE reads what is there now, where the transaction's snapshot may be older.
            rows = connection.execute(moved.with_for_update()).all()
            markers += [bytes(row.id) for row in rows]
            ending = [bytes(row.data) for row in rows if row.data]
        if markers:
            connection.execute(delete(self._table).where(columns.id.in_(markers)))
        return destroyed

    def destroy_all(self, connection: Connection, user: str, except_id: str | None) -> int:
        """Delete every session of the user but `except_id`; return how many."""
        statement = delete(self._table).where(self._belongs_to(user))
        if except_id is not None:
            statement = statement.where(self._table.c.id != required_key("except_id", except_id))
        return int(connection.execute(statement).rowcount)

    def stats(self, connection: Connection, now: int) -> StoreStats:
        """Count what is stored at `now`; reads the whole table."""
        columns = self._table.c
        is_unexpired, is_marker = columns.expires_at > now, columns.superseded.is_(True)
        is_live = and_(is_unexpired, ~is_marker)
        begun_after = [now - limit * 1000 for limit in AGE_LIMITS]

        def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

        statement = select(
            count(is_live),
            count(~is_unexpired),
            count(and_(is_unexpired, is_marker)),
            count(and_(is_live, columns.user_id.is_not(None))),
            func.coalesce(func.sum(func.length(columns.data)), 0),
            count(and_(is_live, columns.version == 1)),
            func.coalesce(func.max(case((is_live, func.length(columns.data)))), 0),
            *(count(and_(is_live, columns.created_at > moment)) for moment in begun_after),
            func.min(case((~is_unexpired, columns.expires_at))),
        )
        *counts, oldest = connection.execute(statement).one()
        live, expired, superseded, logged_in, data_bytes, saved_once, largest, *younger = map(int, counts)
        ages = tuple(more - fewer for fewer, more in pairwise([0, *younger, live]))
        return StoreStats(live, expired, superseded, logged_in, data_bytes, oldest, saved_once, largest, ages)

    def _page(self, statement: Select[Any], user: str | None, limit: int, after: str | None) -> Select[Any]:
        column = self._table.c.id
        if user is not None:
            statement = statement.where(self._belongs_to(user))
        if after is not None:
            statement = statement.where(column > required_key("after", after))
        return statement.order_by(column).limit(limit)

    def _belongs_to(self, user: str) -> ColumnElement[bool]:
        # MariaDB ignores trailing spaces in comparisons, so put something behind; the first one uses the index.
        column = self._table.c.user_id
        return and_(column == user, column + "." == user + ".")
