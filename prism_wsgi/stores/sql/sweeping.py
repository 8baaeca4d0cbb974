"""The deletion of expired sessions on each engine, a batch at a time.

Every DELETE repeats the condition on expires_at. If it relied on a SELECT, it would delete sessions that were
extended in between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Table, and_, bindparam, delete, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from prism_wsgi.stores.base import SweepPace
from prism_wsgi.stores.sql.schema import sweep_bucket

# By ctid, the row's place: if the row has moved or gone, the condition fails and nothing is deleted. Without
# synchronous_commit it is a tenth faster, but the next save of a request then waits until the batch is on the disk.
_POSTGRESQL = """DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE sweep_bucket BETWEEN :first_bucket AND :last_bucket AND expires_at <= :before
    ORDER BY sweep_bucket LIMIT :limit FOR UPDATE SKIP LOCKED
)) AND expires_at <= :before"""
_ASKING = "WITH deleted AS ({delete} RETURNING sweep_bucket) SELECT count(*), max(sweep_bucket) FROM deleted"
_POSTGRESQL_ASKING = _ASKING.replace("{delete}", _POSTGRESQL)
_SQLITE = """DELETE FROM {table} WHERE rowid IN (
    SELECT rowid FROM {table} WHERE sweep_bucket <= :last_bucket AND expires_at <= :before
    ORDER BY sweep_bucket LIMIT :limit
) AND expires_at <= :before"""
# IN (subquery) takes seventy times as long here and blocks every request. ORDER BY is total, since a LIMIT without
# one is unsafe to replicate.
_MYSQL = """DELETE FROM {table} WHERE sweep_bucket = :first_bucket AND expires_at <= :before
ORDER BY sweep_bucket, id LIMIT :limit"""
_MYSQL_UNLOCKED = """SELECT id FROM {table} WHERE sweep_bucket = :first_bucket AND expires_at <= :before
ORDER BY sweep_bucket, id LIMIT :limit FOR UPDATE SKIP LOCKED"""
# FORCE INDEX: on a small table the planner would read every row, and wait for the locked ones.
_MYSQL_BY_ID = """DELETE expired FROM {table} AS expired FORCE INDEX (PRIMARY)
WHERE expired.id IN :ids AND expired.expires_at <= :before"""
_LOCK_WAIT_TIMEOUT = 1205
# The lock wait is 1 second. Sweeps that meet wait for each other, which is faster than skipping each other's rows. A
# transaction that holds a lock for longer is no sweep.
_MARIADB_SOON = f"SET STATEMENT innodb_lock_wait_timeout=1 FOR {_MYSQL}"


# A save that meets a batch waits until the batch is on the disk.
_PACES = {
    # With 1 ms, commits take half of the time.
    "postgresql": SweepPace(target_ms=2, rest=0),
    # A waiting writer polls, and needs some time to find the database free.
    "sqlite": SweepPace(target_ms=12, rest=0.2),
    # Ten times as fast as the usual loop of DELETE ... IN (SELECT ... LIMIT 1000). Without rests a sweep is ten times
    # faster still, but requests take three times as long.
    "mysql": SweepPace(target_ms=1, rest=5),
    "mariadb": SweepPace(target_ms=1, rest=5),
}

_BATCHES_UNASKED = 8


class BatchDeletion:
    """The deletion of expired rows from one table, in the order of their buckets; `before` is Unix ms.

    Each batch begins at the bucket where the batch before ended. PostgreSQL and MariaDB keep deleted entries in the
    index until vacuum or purge, which wait for the oldest transaction. If every batch began at the lowest bucket, it
    would pass over all entries that were deleted before (PostgreSQL with a backup running: 630 rows/s instead of
    92,000).

    Rows that another transaction has locked are skipped. On MariaDB that takes half as long again, so it is done only
    after a batch without it has failed; the store repeats the batch. Asking PostgreSQL where a batch ended takes a
    sixth longer, and is done for one batch in _BATCHES_UNASKED.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._first_bucket = 0
        self._batches = 0
        self._looks_for_locks = False
        batches: dict[str, Callable[[Connection, int, int], int]] = {
            "postgresql": self._by_place,
            "sqlite": self._by_rowid,
            "mysql": self._by_bucket,
            "mariadb": self._by_bucket,
        }
        self._prepared = cache(lambda statement: text(statement.format(table=table.fullname)))
        self._delete_batch = batches.get(dialect, self._by_subquery)
        self.pace = _PACES.get(dialect, SweepPace())

    def delete_batch(self, connection: Connection, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before`; 0 only when there are none."""
        try:
            deleted = self._delete_batch(connection, before, limit)
            if not deleted and self._first_bucket:
                # From the lowest bucket: another sweeper may have rolled back a batch.
                self._first_bucket = 0
                deleted = self._delete_batch(connection, before, limit)
        except DBAPIError:
            self._looks_for_locks = True
            raise
        if not deleted:
            self._looks_for_locks = False
        return deleted

    def is_due(self, before: int) -> ColumnElement[bool]:
        """Return the condition on a row that it expired at or before `before`."""
        columns = self._table.c
        return and_(columns.sweep_bucket <= sweep_bucket(before), columns.expires_at <= before)

    def _by_place(self, connection: Connection, before: int, limit: int) -> int:
        self._batches += 1
        if self._batches % _BATCHES_UNASKED:
            deleted = int(self._run(connection, _POSTGRESQL, before, limit).rowcount)
            if deleted:
                return deleted
        row: Any = self._run(connection, _POSTGRESQL_ASKING, before, limit).one()
        deleted, reached = row
        self._first_bucket = reached or self._first_bucket
        return int(deleted)

    def _by_rowid(self, connection: Connection, before: int, limit: int) -> int:
        return int(self._run(connection, _SQLITE, before, limit).rowcount)

    def _by_bucket(self, connection: Connection, before: int, limit: int) -> int:
        bucket = self._table.c.sweep_bucket
        deleted = 0
        while True:
            try:
                deleted += self._in_bucket(connection, before, limit - deleted)
            except DBAPIError as error:
                if deleted and error.orig is not None and error.orig.args[0] == _LOCK_WAIT_TIMEOUT:
                    return deleted  # only that statement was rolled back; the next batch meets the lock again
                raise
            if deleted == limit:
                return deleted
            following = select(func.min(bucket)).where(bucket > self._first_bucket, bucket <= sweep_bucket(before))
            first_bucket = connection.execute(following).scalar_one()
            if first_bucket is None:
                return deleted
            self._first_bucket = first_bucket

    def _in_bucket(self, connection: Connection, before: int, limit: int) -> int:
        dialect: Any = connection.dialect
        if dialect.server_version_info < ((10, 6) if dialect.is_mariadb else (8, 0, 1)):
            return int(self._run(connection, _MYSQL, before, limit).rowcount)  # it has no SKIP LOCKED
        if dialect.is_mariadb and not self._looks_for_locks:
            return int(self._run(connection, _MARIADB_SOON, before, limit).rowcount)
        with _transaction(connection):
            ids = self._run(connection, _MYSQL_UNLOCKED, before, limit).scalars().all()
            if not ids:
                return 0
            statement = self._prepared(_MYSQL_BY_ID).bindparams(bindparam("ids", expanding=True))
            return int(connection.execute(statement, {"ids": ids, "before": before}).rowcount)

    def _run(self, connection: Connection, statement: str, before: int, limit: int) -> CursorResult[Any]:
        buckets = {"first_bucket": self._first_bucket, "last_bucket": sweep_bucket(before)}
        return connection.execute(self._prepared(statement), buckets | {"before": before, "limit": limit})

    def _by_subquery(self, connection: Connection, before: int, limit: int) -> int:
        columns = self._table.c
        oldest = select(columns.id).where(self.is_due(before)).order_by(columns.sweep_bucket).limit(limit)
        statement = delete(self._table).where(columns.id.in_(oldest), columns.expires_at <= before)
        return int(connection.execute(statement).rowcount)


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Hold locks across statements, on a connection that otherwise commits each of them."""
    connection.execute(text("START TRANSACTION"))
    try:
        yield
        connection.execute(text("COMMIT"))
    except BaseException:
        with suppress(SQLAlchemyError):  # after a lost connection it is no error of the driver
            connection.execute(text("ROLLBACK"))
        raise
