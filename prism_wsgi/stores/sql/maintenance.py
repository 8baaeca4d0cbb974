"""The SQL store's maintenance: sweeping, listing, counting and ending sessions, apart from the hot verbs."""

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
    text,
)
from sqlalchemy.exc import OperationalError

from prism_wsgi.stores.base import AGE_LIMITS, KEPT_EXPIRED_MS, SessionSummary, StoredSession, StoreStats
from prism_wsgi.stores.sql.rows import concerns, loaded_columns, required_key, stored_session
from prism_wsgi.stores.sql.schema import BUCKET_SLACK
from prism_wsgi.stores.sql.sweeping import BatchDeletion

_ESTIMATES = {
    "postgresql": "SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = CAST(:table AS regclass)",
    "sqlite": "SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = :table",
    **dict.fromkeys(
        ("mysql", "mariadb"),
        "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :table",
    ),
}


# In Unix seconds. SQLite uses this host's clock.
_CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(sysdate(6))",
    "mariadb": "SELECT unix_timestamp(sysdate(6))",
}


class Maintenance:
    """The statements of maintenance on one table, each run on the connection that it is given.

    `now` and `before` are Unix ms.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._dialect = dialect
        self._sweeping = BatchDeletion(table, dialect)
        self.sweep_pace = self._sweeping.pace

    def sweep(self, connection: Connection, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before`; return how many."""
        return self._sweeping.delete_batch(connection, before, limit)

    def server_time(self, connection: Connection) -> float | None:
        """Return the server's time in Unix seconds, None for a database without a query for it."""
        statement = _CLOCKS.get(self._dialect)
        return None if statement is None else float(connection.exec_driver_sql(statement).scalar_one())

    def oldest_expired(self, connection: Connection, before: int) -> int | None:
        """Return the earliest expiry at or before `before`; reads the lowest buckets only."""
        columns = self._table.c
        # A row's bucket may lie up to BUCKET_SLACK hours behind its expiry, so a later bucket may hold an earlier
        # one.
        last = select(func.min(columns.sweep_bucket) + BUCKET_SLACK).scalar_subquery()
        statement = select(func.min(columns.expires_at)).where(columns.sweep_bucket <= last)
        oldest: int | None = connection.execute(statement).scalar_one()
        return None if oldest is None or oldest > before else oldest

    def count_expired(self, connection: Connection, before: int) -> int:
        """Count the sessions that expired at or before `before`."""
        statement = select(func.count()).select_from(self._table).where(self._sweeping.is_due(before))
        return int(connection.execute(statement).scalar_one())

    def find(
        self, connection: Connection, now: int, user: str | None, limit: int, after: str | None
    ) -> list[StoredSession]:
        """Return the sessions that are live at `now`, of one user or of everybody; see `IndexedStore.find`."""
        statement = select(self._table.c.id, *loaded_columns(self._table)).where(*self._is_live(now))
        statement = self._page(statement, user, limit, after)
        return [stored_session(bytes(row[0]).hex(), row[1:]) for row in connection.execute(statement)]

    def count(self, connection: Connection, now: int, user: str | None) -> int:
        """Count the sessions that are live at `now`, of one user or of everybody."""
        statement = select(func.count()).select_from(self._table).where(*self._is_live(now))
        if user is not None:
            statement = statement.where(self._concerns(user))
        return int(connection.execute(statement).scalar_one())

    def estimate(self, connection: Connection) -> int | None:
        """Return the planner's number of rows, None if it has no statistics of the table."""
        statement = _ESTIMATES.get(connection.dialect.name)
        if statement is None:
            return None
        try:
            found = connection.execute(text(statement), {"table": self._table.fullname}).scalar()
        except OperationalError:
            return None  # SQLite makes its table of statistics with the first ANALYZE
        return None if found is None or int(found) < 0 else int(found)

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
        """Return the sessions of `find` without their data; `created_before` leaves out younger ones."""
        columns = self._table.c
        statement = select(
            columns.id,
            columns.user_id,
            columns.created_at,
            columns.expires_at,
            func.length(columns.data),
            columns.version,
            columns.last_seen_at,
            columns.authenticated_at,
            columns.auth_method,
            columns.actor_id,
            columns.client_address,
            columns.user_agent,
        ).where(*self._is_live(now))
        if created_before is not None:
            statement = statement.where(columns.created_at < created_before)
        statement = self._page(statement, user, limit, after)
        return [SessionSummary(bytes(row[0]).hex(), *row[1:]) for row in connection.execute(statement)]

    def destroy_many(self, connection: Connection, ids: Sequence[str]) -> int:
        """Delete the sessions of these ids, also if they have moved under the same user; return how many."""
        columns = self._table.c
        destroyed, ending = 0, set(map(bytes.fromhex, ids))
        markers: set[bytes] = set()
        while ending:
            live = delete(self._table).where(columns.id.in_(ending), columns.superseded.is_(False))
            destroyed += int(connection.execute(live).rowcount)
            moved = select(columns.id, columns.data, columns.user_id).where(
                columns.id.in_(ending), columns.superseded.is_(True)
            )
            # FOR UPDATE reads the present rows; the transaction's snapshot may be older.
            rows = connection.execute(moved.with_for_update()).all()
            markers |= {bytes(row.id) for row in rows}
            moves = {(bytes(row.data), row.user_id) for row in rows if row.data}
            following = select(columns.id, columns.user_id).where(columns.id.in_([place for place, _ in moves]))
            found = connection.execute(following.with_for_update()).all() if moves else []
            ending = {bytes(row.id) for row in found if (bytes(row.id), row.user_id) in moves} - markers
        if markers:
            connection.execute(delete(self._table).where(columns.id.in_(markers)))
        return destroyed

    def destroy_all(self, connection: Connection, user: str, except_id: str | None) -> int:
        """Delete every session that concerns the user but `except_id`; return how many."""
        columns = self._table.c
        condition = and_(self._concerns(user), columns.superseded.is_(False))
        if except_id is not None:
            condition = and_(condition, columns.id != required_key("except_id", except_id))
        destroyed = int(connection.execute(delete(self._table).where(condition)).rowcount)
        # Once more: MariaDB waits for a session that is moving, which is then stored under its new id.
        while more := int(connection.execute(delete(self._table).where(condition)).rowcount):
            destroyed += more
        return destroyed

    def stats(self, connection: Connection, now: int) -> StoreStats:
        """Measure the sessions that are stored at `now`; reads the whole table."""
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
            func.min(case((columns.expires_at <= now - KEPT_EXPIRED_MS, columns.expires_at))),
        )
        *counts, oldest = connection.execute(statement).one()
        live, expired, superseded, logged_in, data_bytes, saved_once, largest, *younger = map(int, counts)
        ages = tuple(more - fewer for fewer, more in pairwise([0, *younger, live]))
        return StoreStats(live, expired, superseded, logged_in, data_bytes, oldest, saved_once, largest, ages)

    def _page(self, statement: Select[Any], user: str | None, limit: int, after: str | None) -> Select[Any]:
        column = self._table.c.id
        if user is not None:
            statement = statement.where(self._concerns(user))
        if after is not None:
            statement = statement.where(column > required_key("after", after))
        return statement.order_by(column).limit(limit)

    def _is_live(self, now: int) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        return columns.expires_at > now, columns.superseded.is_(False)

    def _concerns(self, user: str) -> ColumnElement[bool]:
        return concerns(self._table, user)
