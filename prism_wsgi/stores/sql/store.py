"""SQLAlchemyStore: sessions in SQLite, PostgreSQL, MariaDB or MySQL.

The five hot verbs are single statements, compiled once and run on a driver's cursor that is kept open: about
the cost of the raw driver, where SQLAlchemy Core's own execute costs 2.2 (PostgreSQL) to 5 (SQLite) times that.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy import Connection as SQLAlchemyConnection
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine.interfaces import DBAPICursor

from prism_wsgi.clock import Clock, pause, system_clock
from prism_wsgi.errors import (
    ConfigError,
    SchemaMissing,
    SessionConflict,
    SessionExists,
    SessionGone,
    StoreError,
    StoreUnavailable,
)
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.stores.base import SessionSummary, StoredSession, StoreStats, checked_user
from prism_wsgi.stores.sql.connections import Connection, Connections, KeptConnections, PooledConnections
from prism_wsgi.stores.sql.database import place
from prism_wsgi.stores.sql.engine import Failure, classify, create_store_engine
from prism_wsgi.stores.sql.maintenance import Upkeep
from prism_wsgi.stores.sql.rows import key_of, stored_session
from prism_wsgi.stores.sql.schema import DEFAULT_TABLE_NAME, sessions_table, sweep_bucket
from prism_wsgi.stores.sql.statements import Statements
from prism_wsgi.stores.urls import takes_settings_in_url
from prism_wsgi.tokens import ID_LENGTH

MAX_ATTEMPTS = 10
MAX_CONNECTIONS = 15

_ResultT = TypeVar("_ResultT")


class SQLAlchemyStore:
    """Keeps sessions in a table of a SQL database, made by `alembic upgrade head` or `prism-wsgi db upgrade`.

    `url_or_engine` is a database URL, or an Engine of yours; with a URL the store makes an engine of its own,
    tuned for one short statement at a time, and closes it in `close()`. Either way it works in short
    transactions of its own, never in yours.

    `timeout` (seconds) bounds connecting (two seconds at least to PostgreSQL), waiting for a connection or a lock,
    and waiting for an answer; a call meets each of them at most twice. An engine of yours keeps its own bounds.
    `sqlite_synchronous` is "NORMAL", which survives a killed process and may lose the last moments in a power
    cut, or "FULL", which does not and makes each write wait for the disk.

    Nothing is connected before the first use. Raises ConfigError for a URL, driver or setting that cannot work.
    """

    @takes_settings_in_url
    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        *,
        table_name: str = DEFAULT_TABLE_NAME,
        timeout: float = 5.0,
        sqlite_synchronous: str = "NORMAL",
        clock: Clock = system_clock,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
            raise ConfigError(f"timeout must be a positive number of seconds, not {timeout!r}")
        if sqlite_synchronous not in ("NORMAL", "FULL"):
            raise ConfigError(f'sqlite_synchronous must be "NORMAL" or "FULL", not {sqlite_synchronous!r}')
        if not isinstance(table_name, str) or not table_name.isidentifier():
            raise ConfigError(f"table_name must be a plain name such as prism_sessions, not {table_name!r}")
        if isinstance(url_or_engine, Engine) and sqlite_synchronous != "NORMAL":
            raise ConfigError(
                "sqlite_synchronous goes with a URL; on an engine of yours, set PRAGMA synchronous=FULL at connect"
            )
        self._owns_engine = not isinstance(url_or_engine, Engine)
        self.engine = (
            url_or_engine
            if isinstance(url_or_engine, Engine)
            else create_store_engine(url_or_engine, timeout=timeout, sqlite_synchronous=sqlite_synchronous)
        )
        self.table = sessions_table(table_name)
        self._timeout = timeout
        self._clock = clock
        self._begin = "BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "BEGIN"
        self._statements = Statements(self.table, self.engine)
        self._upkeep = Upkeep(self.table, self.engine.dialect.name)
        self.sweep_pace = self._upkeep.sweep_pace
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._connections: Connections = (
            KeptConnections(self.engine, limit=MAX_CONNECTIONS, timeout=timeout)
            if self._owns_engine
            else PooledConnections(self.engine)
        )
        self._process = os.getpid()
        self._abandoning = threading.Lock()
        notify_after_fork(self)

    def __repr__(self) -> str:
        return f"<SQLAlchemyStore {self._url}>"

    def close(self) -> None:
        """Close the connections of the store's own engine; an engine of yours stays as it is."""
        self._connections.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._connections.abandon()
        self._process = os.getpid()

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session, or None when it is unknown or expired."""
        key = key_of(session_id)
        if key is None:
            return None
        session = self._run(self._select, session_id, key)
        return None if session is None or session.is_expired(self._now()) else session

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        self._run(self._save, session, is_done=self._is_saved)

    def destroy(self, session_id: str) -> None:
        """Delete the session if it is there, or where it has moved."""
        key = key_of(session_id)
        left = None if key is None else self._run(self._end, session_id, key)
        if left is None:
            return
        if left.moved_to is not None:
            self.destroy(left.moved_to)
        # The marker last: as long as it stands, a failure above can be made good.
        self._run(self._statements.delete.run, {"p_id": key})

    def touch(self, session_id: str, expires_at: int) -> bool:
        """Move the expiry to `expires_at`, never back; False when the session is gone."""
        key = key_of(session_id)
        return key is not None and bool(self._run(self._touch, session_id, key, expires_at))

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither, in one transaction."""
        self._run(self._save_both, old, new, in_transaction=True, is_done=self._are_saved)

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before` (Unix ms); return how many."""
        return self._execute(lambda connection: self._upkeep.sweep(connection, before, limit))

    def oldest_expired(self, before: int) -> int | None:
        """Return the earliest expiry (Unix ms) at or before `before`, None when there is none; cheap."""
        return self._execute(lambda connection: self._upkeep.oldest_expired(connection, before))

    def count_expired(self, before: int) -> int:
        """Return how many sessions expired at or before `before` (Unix ms)."""
        return self._execute(lambda connection: self._upkeep.count_expired(connection, before))

    def find(self, *, user: str | None = None, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return live sessions in the order of their ids; see `IndexedStore.find`."""
        return self._execute(lambda connection: self._upkeep.find(connection, self._now(), user, limit, after))

    def summaries(
        self,
        *,
        user: str | None = None,
        created_before: int | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[SessionSummary]:
        """Return what `find` does, without the data; `created_before` (Unix ms) leaves out younger sessions."""
        return self._execute(
            lambda connection: self._upkeep.summaries(
                connection, self._now(), user=user, created_before=created_before, limit=limit, after=after
            )
        )

    def destroy_many(self, ids: Sequence[str]) -> int:
        """Delete the sessions of these ids, or where they have moved; return how many there were."""
        return self._execute(lambda connection: self._upkeep.destroy_many(connection, ids))

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user but `except_id`; return how many."""
        checked_user(user)
        # PostgreSQL's DELETE waits for a session that is moving, finds it retired, and does not see where it has
        # gone; from a snapshot it fails instead (40001), and the next attempt finds it.
        level = "REPEATABLE READ" if self.engine.dialect.name == "postgresql" else None
        return self._execute(lambda connection: self._upkeep.destroy_all(connection, user, except_id), level)

    def stats(self) -> StoreStats:
        """Count what is stored now; reads the whole table."""
        return self._execute(lambda connection: self._upkeep.stats(connection, self._now()))

    def unused_indexes(self) -> list[tuple[str, str]]:
        """Return what the database would do without its index, by EXPLAIN: pairs of a verb and an index."""
        return self._execute(self._upkeep.unused_indexes)

    # The statements of the hot verbs, on the driver's cursor

    def _select(self, cursor: DBAPICursor, session_id: str, key: bytes) -> StoredSession | None:
        self._statements.select.run(cursor, {"p_id": key})
        rows = cursor.fetchall()  # to the end: SQLite keeps its snapshot open until then
        return stored_session(session_id, rows[0]) if rows else None

    def _save(self, cursor: DBAPICursor, session: StoredSession) -> None:
        key = key_of(session.id)
        if key is None:
            raise ValueError(f"A session's id is {ID_LENGTH} lower-case hex digits")
        values: dict[str, object] = {
            "p_id": key,
            "p_data": session.data,
            "p_user": session.user,
            "p_expires": session.expires_at,
            "p_bucket": sweep_bucket(session.expires_at),
            "p_superseded": session.superseded,
        }
        if session.version == 0:
            values["p_created"] = session.created_at
            self._statements.insert.run(cursor, values)
            return
        values["p_version"] = session.version
        values["p_now"] = self._now()
        lean, full = self._statements.lean_update, self._statements.update
        if lean is not None and not session.superseded and lean.run(cursor, values) == 1:
            return
        if full.run(cursor, values) == 1:
            return
        stored = self._select(cursor, session.id, key)
        if stored is None or stored.is_expired(self._now()):
            raise SessionGone(f"Session {session.id} is not stored")
        raise SessionConflict(f"Session {session.id} has been saved by another request")

    def _touch(self, cursor: DBAPICursor, session_id: str, key: bytes, expires_at: int) -> bool:
        bucket = sweep_bucket(expires_at)
        values = {"p_id": key, "p_expires": expires_at, "p_bucket": bucket, "p_now": self._now()}
        lean, full = self._statements.lean_touch, self._statements.touch
        if lean is not None and lean.run(cursor, values) == 1:
            return True
        if full.run(cursor, values) == 1:
            return True
        # Nothing moved: either the session is gone, or it already lives longer.
        stored = self._select(cursor, session_id, key)
        return stored is not None and not stored.superseded and not stored.is_expired(self._now())

    def _save_both(self, cursor: DBAPICursor, old: StoredSession, new: StoredSession) -> None:
        self._save(cursor, old)
        self._save(cursor, new)

    def _are_saved(self, _: StoredSession, new: StoredSession) -> bool:
        return self._is_saved(new)  # or neither

    def _end(self, cursor: DBAPICursor, session_id: str, key: bytes) -> StoredSession | None:
        """Delete the session unless a marker stands in its place; return what is left."""
        # Where a DELETE of whatever stands there has met a marker, nobody knows any more where the session went.
        if self._statements.end.run(cursor, {"p_id": key}) == 1:
            return None
        return self._select(cursor, session_id, key)

    def _is_saved(self, session: StoredSession) -> bool:
        """Tell whether a save whose answer was lost took effect."""
        stored = self.load(session.id)
        return stored is not None and (stored.version, stored.data) == (session.version + 1, session.data)

    # Running them

    def _run(
        self,
        work: Callable[..., _ResultT],
        *arguments: Any,
        in_transaction: bool = False,
        is_done: Callable[..., bool] | None = None,
    ) -> _ResultT | None:
        """Do `work` on a cursor with these arguments, again after failures that allow it.

        `is_done` tells, after the connection broke, whether the work took effect all the same; without it the
        work can be repeated without harm.
        """
        deadline = time.monotonic() + self._timeout
        for attempt in range(MAX_ATTEMPTS):
            connection = self._connect()
            try:
                if connection.is_autocommit and not in_transaction:
                    return work(connection.cursor, *arguments)
                return self._in_transaction(connection, work, *arguments)
            except self._driver_error as error:
                failure = classify(self.engine.dialect, error, connection.pooled.dbapi_connection)
                if failure in (Failure.LOST, Failure.READ_ONLY):
                    connection.is_broken = True
                    self._connections.drop_idle()
                elif failure is not Failure.BUSY:
                    connection.is_broken = failure is Failure.OTHER  # who knows in what state it is
                    self._give_up(failure, error)
                last_error = error
            except StoreError:
                raise
            except BaseException:
                connection.is_broken = True  # a worker's timeout came in the middle of an answer
                raise
            finally:
                self._connections.release(connection)
            if failure is Failure.LOST and is_done is not None and is_done(*arguments):
                return None
            if time.monotonic() > deadline:
                break
            pause(attempt)
        raise self._unavailable(last_error) from last_error

    def _connect(self) -> Connection:
        self._notice_fork()
        try:
            return self._connections.acquire()
        except (sa_exc.SQLAlchemyError, self._driver_error, TimeoutError) as error:
            raise self._unavailable(getattr(error, "orig", None) or error) from error

    def _notice_fork(self) -> None:
        """Part from the parent where nobody told us of the fork: uWSGI tells Python with py-call-osafterfork only."""
        if os.getpid() != self._process:
            with self._abandoning:
                if os.getpid() != self._process:
                    self.after_fork()

    def _in_transaction(self, connection: Connection, work: Callable[..., _ResultT], *arguments: Any) -> _ResultT:
        try:
            if connection.is_autocommit:
                connection.cursor.execute(self._begin)
            result = work(connection.cursor, *arguments)
            connection.pooled.commit()
        except BaseException:
            try:
                connection.pooled.rollback()
            except self._driver_error:
                connection.is_broken = True  # Galera without quorum refuses even this
            raise
        return result

    def _execute(
        self, work: Callable[[SQLAlchemyConnection], _ResultT], isolation_level: str | None = None
    ) -> _ResultT:
        """Do work that is not on the path of a request, and may be repeated, through SQLAlchemy Core."""
        self._notice_fork()
        options = {} if isolation_level is None else {"isolation_level": isolation_level}
        deadline = time.monotonic() + self._timeout
        for attempt in range(MAX_ATTEMPTS):
            try:
                with self.engine.execution_options(**options).begin() as connection:
                    return work(connection)
            except sa_exc.DBAPIError as error:
                assert isinstance(error.orig, Exception)
                # SQLAlchemy has emptied the pool of a lost connection, but does not take "read-only" for one.
                failure = (
                    Failure.LOST if error.connection_invalidated else classify(self.engine.dialect, error.orig, None)
                )
                if failure is Failure.READ_ONLY:
                    self.engine.dispose()
                elif failure not in (Failure.BUSY, Failure.LOST):
                    self._give_up(failure, error.orig)
                last_error = error.orig
            except sa_exc.SQLAlchemyError as error:
                raise self._unavailable(error) from error
            if time.monotonic() > deadline:
                break
            pause(attempt)
        raise self._unavailable(last_error) from last_error

    def _give_up(self, failure: Failure, error: Exception) -> NoReturn:
        if failure is Failure.DUPLICATE:
            raise SessionExists("A session of that id is already stored") from error
        if failure is Failure.NO_TABLE:
            raise SchemaMissing(
                f"The table {self.table.name} does not exist in {self._url}. Create it with "
                f"`prism-wsgi db upgrade --url {self._url}`, or with `alembic upgrade head`"
            ) from error
        raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> StoreUnavailable:
        # The first line only: what follows in a driver's message may show the row (DETAIL).
        message = str(error).partition("\n")[0]
        return StoreUnavailable(f"{self._url} failed: {type(error).__name__}: {message}")

    @property
    def _url(self) -> str:
        return place(self.engine.url)

    def _now(self) -> int:
        return int(self._clock() * 1000)
