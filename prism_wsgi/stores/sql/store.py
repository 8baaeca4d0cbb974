"""The store in SQLite, PostgreSQL, MariaDB or MySQL.

The five hot verbs are single statements, compiled once and run on a driver's cursor that is kept open. They take
about as long as with the raw driver; SQLAlchemy Core's execute takes 2.2 (PostgreSQL) to 5 (SQLite) times as long.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from sqlalchemy import URL, Engine, MetaData
from sqlalchemy import Connection as SQLAlchemyConnection
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine.interfaces import DBAPICursor

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import (
    ConfigError,
    PrismError,
    SchemaMissing,
    SessionConflict,
    SessionExists,
    SessionGone,
    StoreError,
    StoreUnavailable,
)
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.retry import attempts
from prism_wsgi.stores.base import (
    SessionSummary,
    StoredEvent,
    StoredSession,
    StoreStats,
    SweepRun,
    checked_owner,
    was_saved,
)
from prism_wsgi.stores.kept import MAX_CONNECTIONS, MAX_IDLE, ConnectionLease, Connections, check_limits
from prism_wsgi.stores.sql.connections import Connection, PooledConnections, keep_connections
from prism_wsgi.stores.sql.database import CredentialProvider, place
from prism_wsgi.stores.sql.engine import create_store_engine
from prism_wsgi.stores.sql.failures import BREAKING, BREAKING_ALL, Failure, WrongAnswerError, advice, classify
from prism_wsgi.stores.sql.maintenance import Maintenance
from prism_wsgi.stores.sql.pooling import Pooling
from prism_wsgi.stores.sql.rows import key_of, stored_session
from prism_wsgi.stores.sql.schema import DEFAULT_TABLE_NAME, checked_schema, sessions_table
from prism_wsgi.stores.sql.statements import Statements, used_values
from prism_wsgi.stores.sql.trail import Trail
from prism_wsgi.stores.url_settings import takes_settings_in_url
from prism_wsgi.tokens import ID_LENGTH

MAX_ATTEMPTS = 10
SWEEPS_KEPT_MS = 90 * 24 * 3_600_000
"""The time in ms for which the record of a sweep is kept."""

_Lease = ConnectionLease[Connection]
_ResultT = TypeVar("_ResultT")


class SQLAlchemyStore:
    """A store in a table of a SQL database, made by `alembic upgrade head` or `prism-wsgi db upgrade`.

    `url_or_engine` is a database URL, or your Engine. With a URL the store makes an engine that is tuned for one
    short statement at a time, and closes its connections in `close()`. Either way the store works in short
    transactions of its own, never in those of the application.

    `timeout` (seconds) limits connecting (to at least two seconds for PostgreSQL), waiting for a connection or a
    lock, and waiting for an answer; a call can wait for each of them twice. A process opens at most `max_connections`
    connections; if the server allows fewer, requests wait for one of these. A connection that was idle for more than
    `max_idle` seconds is closed and not used again. Your engine keeps its limits. `schema` is the table's schema in a
    PostgreSQL database, if the search path does not lead there. `credential_provider` is called for each connection
    and returns (user, password); a listener to SQLAlchemy's event `do_connect` of `engine` may do the same.
    `transaction_pooling=True` is for a pooler that gives each transaction another connection of the server
    (PgBouncer, PgCat, RDS Proxy): the store then uses no start-up options and prepares no statements, and the client
    limits every wait. `sqlite_synchronous` is "NORMAL", which survives a killed process but may lose the last writes
    in a power cut, or "FULL", which loses nothing but makes each write wait for the disk.

    Nothing is connected before the first use. Raises ConfigError for a URL, driver or setting that cannot work.
    """

    @takes_settings_in_url
    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        *,
        table_name: str = DEFAULT_TABLE_NAME,
        timeout: float = 5.0,
        max_connections: int = MAX_CONNECTIONS,
        max_idle: float = MAX_IDLE,
        schema: str | None = None,
        credential_provider: CredentialProvider | None = None,
        transaction_pooling: bool = False,
        sqlite_synchronous: str = "NORMAL",
        clock: Clock = system_clock,
    ) -> None:
        check_limits(timeout=timeout, max_idle=max_idle, max_connections=max_connections)
        if sqlite_synchronous not in ("NORMAL", "FULL"):
            raise ConfigError(f'sqlite_synchronous must be "NORMAL" or "FULL", not {sqlite_synchronous!r}')
        if not isinstance(table_name, str) or not table_name.isidentifier():
            raise ConfigError(f"table_name must be a plain name such as prism_sessions, not {table_name!r}")
        if isinstance(url_or_engine, Engine) and sqlite_synchronous != "NORMAL":
            raise ConfigError(
                "sqlite_synchronous goes with a URL; on your own engine, set PRAGMA synchronous=FULL at connect"
            )
        if isinstance(url_or_engine, Engine) and (max_connections, max_idle) != (MAX_CONNECTIONS, MAX_IDLE):
            raise ConfigError(
                "max_connections and max_idle go with a URL; on your own engine, set pool_size and pool_recycle"
            )
        if type(transaction_pooling) is not bool:
            raise ConfigError(f"transaction_pooling must be True or False, not {transaction_pooling!r}")
        if credential_provider is not None and not callable(credential_provider):
            raise ConfigError("credential_provider must be a function that returns (user, password)")
        if credential_provider is not None and isinstance(url_or_engine, Engine):
            raise ConfigError(
                "credential_provider goes with a URL; on your own engine, listen to SQLAlchemy's event do_connect"
            )
        self._pooling = Pooling(transaction_pooling)
        self.engine = (
            url_or_engine
            if isinstance(url_or_engine, Engine)
            else create_store_engine(
                url_or_engine,
                timeout=timeout,
                sqlite_synchronous=sqlite_synchronous,
                pooling=self._pooling,
                credential_provider=credential_provider,
            )
        )
        if schema is not None and self.engine.dialect.name != "postgresql":
            raise ConfigError("schema is for PostgreSQL; elsewhere the URL names the database of the table")
        self.table = sessions_table(table_name, MetaData(schema=checked_schema(schema)))
        self._timeout = timeout
        self._clock = clock
        self._begin = "BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "BEGIN"
        self._statements = Statements(self.table, self.engine)
        self._maintenance = Maintenance(self.table, self.engine.dialect.name)
        self._trail = Trail(self.table)
        self.sweep_pace = self._maintenance.sweep_pace
        self._errors: tuple[type[Exception], ...] = (
            self.engine.dialect.loaded_dbapi.Error,
            sa_exc.DBAPIError,
            WrongAnswerError,
        )
        self._errors_to_roll_back = (*self._errors, StoreError)
        self._connections: Connections[Connection] = (
            PooledConnections(self.engine, self._pooling)
            if isinstance(url_or_engine, Engine)
            else keep_connections(self.engine, max_connections=max_connections, max_idle=max_idle, timeout=timeout)
        )
        notify_after_fork(self)

    def __repr__(self) -> str:
        return f"<SQLAlchemyStore {self._url}>"

    def close(self) -> None:
        """Close the connections of the store; an engine of the application stays as it is."""
        self._connections.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._connections.abandon()

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session, or None when it is unknown or expired."""
        key = key_of(session_id)
        if key is None:
            return None
        session = self._run(self._on_cursor, self._select, session_id, key)
        return None if session is None or session.is_expired(milliseconds(self._clock)) else session

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        self._run(self._on_cursor, self._save, _checked(session), is_done=self._is_saved)

    def destroy(self, session_id: str) -> None:
        """Delete the session, also if it has moved, as long as the same user is logged in there."""
        markers: dict[str, StoredSession] = {}
        left = self._end(session_id)
        while left is not None and left.id not in markers:
            markers[left.id] = left
            moved = None if left.moved_to is None else self._stored(left.moved_to)
            if moved is None or moved.user != left.user:
                break
            left = self._end(moved.id)
        self._delete(markers)

    def revoke(self, session_id: str, *, user: str) -> bool:
        """Delete the session if it is this user's, or if this user is its actor; see `RevokingStore.revoke`."""
        checked_owner(user)
        markers: dict[str, StoredSession] = {}
        stored = self._stored(session_id)
        while stored is not None and stored.superseded:
            if stored.user != user or stored.moved_to is None or stored.id in markers:
                return False
            markers[stored.id] = stored
            stored = self._stored(stored.moved_to)
        if stored is None or not stored.concerns(user):
            return False
        left = self._end(stored.id)
        self._delete(markers)
        # If it has moved at this very moment, the marker that is stored now leads to it.
        return left is None or self.revoke(left.id, user=user)

    def touch(self, session: StoredSession) -> bool:
        """Record the use of the session if the loaded version is stored; see `TouchingStore.touch`."""
        key = key_of(session.id)
        return key is not None and bool(self._run(self._on_cursor, self._touch, session, key))

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither, in one transaction."""
        self._run(self._in_transaction, self._save_both, _checked(old), _checked(new), is_done=self._are_saved)

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before` (Unix ms); return how many."""
        return self._execute(lambda connection: self._maintenance.sweep(connection, before, limit))

    def server_time(self) -> float | None:
        """Return the database server's time in Unix seconds, None for SQLite, which uses this host's clock."""
        return self._execute(self._maintenance.server_time)

    def oldest_expired(self, before: int) -> int | None:
        """Return the earliest expiry (Unix ms) at or before `before`, None when there is none; cheap."""
        return self._execute(lambda connection: self._maintenance.oldest_expired(connection, before))

    def count_expired(self, before: int) -> int:
        """Return how many sessions expired at or before `before` (Unix ms)."""
        return self._execute(lambda connection: self._maintenance.count_expired(connection, before))

    def find(self, *, user: str, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of a user in the order of their ids; see `IndexedStore.find`."""
        checked_owner(user)
        return self._execute(
            lambda connection: self._maintenance.find(connection, milliseconds(self._clock), user, limit, after)
        )

    def find_all(self, *, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of everybody in the order of their ids."""
        return self._execute(
            lambda connection: self._maintenance.find(connection, milliseconds(self._clock), None, limit, after)
        )

    def count(self, *, user: str | None = None) -> int:
        """Return how many live sessions there are, in all (which reads the whole table) or of one user."""
        return self._execute(lambda connection: self._maintenance.count(connection, milliseconds(self._clock), user))

    def estimate(self) -> int | None:
        """Return about how many sessions are stored, from the statistics of the database's planner."""
        return self._execute(self._maintenance.estimate)

    def ping(self) -> None:
        """Prove that the table can be read and written to; nothing in it changes. Raises StoreUnavailable."""
        self._run(self._on_cursor, self._ping)

    def summaries(
        self,
        *,
        user: str | None = None,
        created_before: int | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[SessionSummary]:
        """Return live sessions without their data, in the order of their ids: of one user, or of everybody.

        `created_before` (Unix ms) leaves out younger sessions.
        """
        return self._execute(
            lambda connection: self._maintenance.summaries(
                connection,
                milliseconds(self._clock),
                user=user,
                created_before=created_before,
                limit=limit,
                after=after,
            )
        )

    def destroy_many(self, ids: Sequence[str]) -> int:
        """Delete the sessions of these ids, also if they have moved; return how many there were."""
        return self._execute(lambda connection: self._maintenance.destroy_many(connection, ids))

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user, or in which the user is the actor, but `except_id`; return how many."""
        checked_owner(user)
        ended = self._run(
            self._in_snapshot, lambda connection: self._maintenance.destroy_all(connection, user, except_id)
        )
        return cast(int, ended)

    def stats(self) -> StoreStats:
        """Measure the sessions that are stored now; reads the whole table."""
        return self._execute(lambda connection: self._maintenance.stats(connection, milliseconds(self._clock)))

    # The trail of events, and the record of sweeps

    def add_event(self, event: StoredEvent) -> None:
        """Add an event to the trail."""
        self._execute(lambda connection: self._trail.add(connection, event))

    def find_events(self, *, user: str, limit: int = 100, before: int | None = None) -> list[StoredEvent]:
        """Return the events that concern a user, the newest first; see `TrailStore.find_events`."""
        checked_owner(user)
        return self._execute(lambda connection: self._trail.find(connection, user, limit, before))

    def events_an_hour(self, since: int, limit: int) -> list[tuple[int, str, str | None, int]]:
        """Count the newest events by the hour, kind and reason; see `CountingTrailStore`."""
        return self._execute(lambda connection: self._trail.count_by_hour(connection, since, limit))

    def sweep_events(self, before: int, limit: int) -> int:
        """Delete at most `limit` events of `before` (Unix ms) and earlier; return how many."""
        return self._execute(lambda connection: self._trail.sweep(connection, before, limit))

    def erase_events(self, user: str, alias: str | None = None) -> int:
        """Erase a user from the trail in batches; see `TrailStore.erase_events`."""
        checked_owner(user)
        erased = 0
        while batch := self._execute(lambda connection: self._trail.erase(connection, user, alias)):
            erased += batch
        return erased

    def add_sweep(self, run: SweepRun) -> None:
        """Add the record of a sweep, and forget those older than 90 days."""
        self._execute(lambda connection: self._trail.add_sweep(connection, run))
        self._execute(lambda connection: self._trail.forget_sweeps(connection, run.started_at - SWEEPS_KEPT_MS))

    def last_sweeps(self, limit: int = 1) -> list[SweepRun]:
        """Return the latest sweeps, the newest first."""
        return self._execute(lambda connection: self._trail.last_sweeps(connection, limit))

    # The statements of the hot verbs, on the driver's cursor

    def _select(self, cursor: DBAPICursor, session_id: str, key: bytes) -> StoredSession | None:
        self._statements.select.run(cursor, {"p_id": key})
        rows = cursor.fetchall()  # to the end, because SQLite keeps its snapshot open until then
        if not rows:
            return None
        found, *columns = rows[0]
        if found != key:
            raise WrongAnswerError("the answer is the row of another session")
        return stored_session(session_id, columns)

    def _save(self, cursor: DBAPICursor, session: StoredSession) -> None:
        key = bytes.fromhex(session.id)
        values = used_values(session, key)
        values |= {
            "p_data": session.data,
            "p_user_id": session.user,
            "p_superseded": session.superseded,
            "p_authenticated_at": session.authenticated_at,
            "p_auth_method": session.auth_method,
            "p_actor_id": session.actor,
            "p_device_key": session.device_key,
        }
        if session.version == 0:
            values["p_created"] = session.created_at
            self._statements.insert.run(cursor, values)
            return
        lean, full = self._statements.lean_update, self._statements.update
        if lean is not None and not session.superseded and lean.run(cursor, values) == 1:
            return
        if full.run(cursor, values) == 1:
            return
        if self._select(cursor, session.id, key) is None:
            raise SessionGone(f"Session {session.id} is not stored")
        raise SessionConflict(f"Session {session.id} has been saved by another request")

    def _touch(self, cursor: DBAPICursor, session: StoredSession, key: bytes) -> bool:
        values = used_values(session, key)
        lean, full = self._statements.lean_touch, self._statements.touch
        return (lean is not None and lean.run(cursor, values) == 1) or full.run(cursor, values) == 1

    def _save_both(self, cursor: DBAPICursor, old: StoredSession, new: StoredSession) -> None:
        self._save(cursor, old)
        self._save(cursor, new)

    def _are_saved(self, _: StoredSession, new: StoredSession) -> bool:
        return self._is_saved(new)  # both are saved or neither is

    def _is_saved(self, session: StoredSession) -> bool:
        return was_saved(session, self._stored(session.id))

    def _stored(self, session_id: str) -> StoredSession | None:
        """Return what is stored under the id, expired or not."""
        key = key_of(session_id)
        return None if key is None else self._run(self._on_cursor, self._select, session_id, key)

    def _end(self, session_id: str) -> StoredSession | None:
        """Delete the session; return the marker if one is stored instead, else None."""
        key = key_of(session_id)
        return None if key is None else self._run(self._on_cursor, self._end_session, session_id, key)

    def _end_session(self, cursor: DBAPICursor, session_id: str, key: bytes) -> StoredSession | None:
        # Not a DELETE of any row: if it deleted a marker, nobody would know where the session went.
        if self._statements.end.run(cursor, {"p_id": key}) == 1:
            return None
        return self._select(cursor, session_id, key)

    def _delete(self, markers: Iterable[str]) -> None:
        # The first one last: as long as it is stored, a failed call can be repeated.
        for marker in reversed(list(markers)):
            self._run(self._on_cursor, self._statements.delete.run, {"p_id": bytes.fromhex(marker)})

    def _ping(self, cursor: DBAPICursor) -> None:
        self._statements.ping.run(cursor, {"p_id": bytes(32)})

    # Running the statements

    def _run(
        self, use: Callable[..., _ResultT], work: Any, *arguments: Any, is_done: Callable[..., bool] | None = None
    ) -> _ResultT | None:
        """Do `work` with these arguments by `use` of a connection, and repeat it after failures that allow it.

        After a broken connection, `is_done` tells whether the work took effect; the result is then None. Without
        `is_done`, repeating the work must be harmless.
        """
        last_error: Exception = TimeoutError()
        for _ in attempts(MAX_ATTEMPTS, seconds=self._timeout):
            try:
                lease = self._connections.acquire()
            except PrismError:
                raise
            except Exception as error:
                # PyMySQL can raise a RuntimeError, and a credential provider any exception.
                raise self._unavailable(getattr(error, "orig", None) or error) from error
            with lease:
                try:
                    return use(lease, work, *arguments)
                except self._errors as error:
                    failure = classify(self.engine.dialect, error, lease.connection.pooled.dbapi_connection)
                    lease.is_broken = failure in BREAKING
                    last_error = getattr(error, "orig", None) or error
            if failure is Failure.UNPREPARED:
                self._pooling.find_out("The server does not know a statement that this process prepared")
            if failure in BREAKING_ALL:
                self._connections.drop_idle()
            elif failure is not Failure.BUSY:
                self._give_up(failure, last_error)
            if failure is Failure.LOST and is_done is not None and is_done(*arguments):
                return None
        raise self._unavailable(last_error) from last_error

    def _execute(self, work: Callable[[SQLAlchemyConnection], _ResultT]) -> _ResultT:
        """Do maintenance work, which may be repeated, through SQLAlchemy Core."""
        return cast(_ResultT, self._run(self._in_core, work))  # without `is_done` there is always a result

    def _on_cursor(self, lease: _Lease, work: Callable[..., _ResultT], *arguments: Any) -> _ResultT:
        connection = lease.connection
        if connection.is_autocommit:
            return work(connection.cursor, *arguments)
        return self._in_transaction(lease, work, *arguments)

    def _in_transaction(self, lease: _Lease, work: Callable[..., _ResultT], *arguments: Any) -> _ResultT:
        connection = lease.connection
        try:
            if connection.is_autocommit:
                connection.cursor.execute(self._begin)
            result = work(connection.cursor, *arguments)
            connection.pooled.commit()
        except self._errors_to_roll_back:
            try:
                connection.pooled.rollback()
            except self._errors:
                lease.is_broken = True  # Galera without quorum refuses even this
            raise
        return result

    def _in_core(self, lease: _Lease, work: Callable[[SQLAlchemyConnection], _ResultT]) -> _ResultT:
        # Not closed: the connection goes back with the lease.
        connection = SQLAlchemyConnection(self.engine, connection=lease.connection.pooled)
        with connection.begin():
            return work(connection)

    def _in_snapshot(self, lease: _Lease, work: Callable[[SQLAlchemyConnection], _ResultT]) -> _ResultT:
        """Do `work` so that it fails, and is repeated, if the rows that it deletes change meanwhile."""
        if self.engine.dialect.name != "postgresql":
            return self._in_core(lease, work)

        def delete(cursor: DBAPICursor) -> _ResultT:
            # A DELETE that waits for a moving session finds its marker, and does not see the session's new row. From
            # a snapshot it fails instead (40001), and the next attempt finds the session.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return self._in_core(lease, work)

        return self._in_transaction(lease, delete)

    def _give_up(self, failure: Failure, error: Exception) -> NoReturn:
        if failure is Failure.DUPLICATE:
            raise SessionExists("A session of that id is already stored") from error
        if failure is Failure.NO_TABLE:
            raise SchemaMissing(
                f"The table {self.table.name} does not exist in {self._url}. Create it with "
                f"`prism-wsgi db upgrade --url {self._url}`, or with `alembic upgrade head`"
            ) from error
        if failure is Failure.NO_COLUMN:
            raise SchemaMissing(
                f"The table {self.table.name} in {self._url} is from an earlier version of prism_wsgi. Run "
                f"`prism-wsgi db upgrade --url {self._url}`, or `alembic upgrade head`; sessions stay"
            ) from error
        raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> StoreUnavailable:
        # The first line only: further lines of a driver's message may show the row (DETAIL).
        message = str(error).partition("\n")[0]
        return StoreUnavailable(f"{self._url} failed: {type(error).__name__}: {message}{advice(error)}")

    @property
    def _url(self) -> str:
        return place(self.engine.url)


def _checked(session: StoredSession) -> StoredSession:
    if key_of(session.id) is None:
        raise ValueError(f"A session's id is {ID_LENGTH} lower-case hex digits")
    return session
