"""The lock of the migrations, on each database: one run changes the schema at a time."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from prism_wsgi.errors import StoreUnavailable

LOCK_SECONDS = 60


@contextmanager
def one_at_a_time(connection: Connection, name: str) -> Iterator[None]:
    """Let one run change the schema while the others wait; without the lock, 5 of 8 upgrades at once failed.

    Alembic keeps to a transaction that is open already: on SQLite and PostgreSQL a run is all or nothing.
    """
    locks = {
        "sqlite": _sqlite_lock,
        "postgresql": _postgresql_lock,
        "mysql": _mysql_lock,
        "mariadb": _mysql_lock,
    }
    lock = locks.get(connection.dialect.name, lambda *_: nullcontext())
    transaction = nullcontext() if connection.in_transaction() else connection.begin()
    with transaction, lock(connection, name):
        yield


@contextmanager
def _sqlite_lock(connection: Connection, _: str) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # the caller's transaction
        yield
        return
    _use_wal(connection)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if driver.in_transaction:
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _use_wal(connection: Connection) -> None:
    """Switch to WAL, so that readers and the writer do not wait for each other; SQLite keeps this in the file."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError:
            # SQLite ignores its busy timeout when it goes from a read lock to the exclusive one.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _postgresql_lock(connection: Connection, name: str) -> Iterator[None]:
    # The transaction holds the lock, since a pooler such as PgBouncer shares database sessions.
    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{LOCK_SECONDS}s"})
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    yield


@contextmanager
def _mysql_lock(connection: Connection, name: str) -> Iterator[None]:
    # All databases of a server share these locks, whose names have at most 64 characters. In a Galera cluster each
    # node has its locks: upgrade through one node only.
    database = connection.scalar(text("SELECT DATABASE()"))
    digest = hashlib.sha256(f"{database}.{name}".encode()).hexdigest()[:32]
    lock = {"name": f"prism_wsgi.{digest}", "wait": LOCK_SECONDS}
    if connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), lock) != 1:
        raise StoreUnavailable(f"another migration has held the lock {name} for {LOCK_SECONDS} s; try again")
    try:
        yield
        # Each DDL statement commits too. This one is for the next run, which must see the version.
        connection.exec_driver_sql("COMMIT")
    finally:
        with suppress(DBAPIError):  # a lost connection holds no lock
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)
