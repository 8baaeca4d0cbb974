"""How the SQL store comes by a driver's connection and cursor for the moment it needs them."""

import os
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, SingletonThreadPool, StaticPool

from prism_wsgi.errors import ConfigError, StoreError
from prism_wsgi.stores.kept import KeptConnections
from prism_wsgi.stores.sql.failures import is_refusal

# Applications' pools, inherited across a fork. Collecting one would close, in the child, what the parent still uses.
_abandoned: list[object] = []


@dataclass(slots=True, eq=False, weakref_slot=True)
class Connection:
    """A driver's connection with a cursor on it. Without `is_autocommit`, each use of it has to be committed."""

    pooled: PoolProxiedConnection
    cursor: DBAPICursor
    is_autocommit: bool


class ConnectionLease(Protocol):
    """The permission to use a connection until the end of a `with` block; see `prism_wsgi.stores.kept.Lease`."""

    connection: Connection
    is_broken: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Connections(Protocol):
    """Where connections come from. Each is used by one thread at a time."""

    def acquire(self) -> ConnectionLease:
        """Return a lease. Raises TimeoutError when no connection comes free, and what the driver raises."""
        ...

    def drop_idle(self) -> None:
        """Part with the connections that idle: they lead to a server that is gone."""
        ...

    def abandon(self) -> None:
        """Leave every connection to the process that this one was forked from."""
        ...

    def close(self) -> None:
        """Close the connections that idle."""
        ...


def keep_connections(
    engine: Engine, *, max_connections: int, max_idle: float, timeout: float
) -> KeptConnections[Connection]:
    """Return connections of the store's own engine that are kept open together with their cursors.

    Going through an engine's pool for each statement costs as much as the statement: on SQLite a load took
    14 µs that way and 6.8 µs this way, on PostgreSQL 85 and 51.
    """
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        raise ConfigError(
            "A SQLite database in memory belongs to one connection, and the store has several; "
            "use MemoryStore, or a SQLite file: sqlite:///sessions.db"
        )

    def connect() -> Connection:
        pooled = engine.raw_connection()
        pooled.detach()  # the engine neither counts it nor takes it back
        return Connection(pooled, _cursor(engine, pooled), is_autocommit=True)

    def terminate(connection: Connection) -> None:
        if (driver := connection.pooled.dbapi_connection) is not None:
            engine.dialect.do_terminate(driver)

    return KeptConnections(
        connect,
        terminate,
        max_connections=max_connections,
        max_idle=max_idle,
        timeout=timeout,
        is_refusal=lambda error: is_refusal(engine.dialect, error),
    )


class PooledConnections:
    """Takes connections from the pool of an engine that belongs to the application, and returns each at once."""

    def __init__(self, engine: Engine) -> None:
        if isinstance(engine.pool, SingletonThreadPool | StaticPool):
            raise ConfigError(
                f"The engine for {engine.url.render_as_string()} shares one connection between the application and "
                "the store, whose commits would be those of your transactions; use MemoryStore, or a SQLite file"
            )
        self._engine = engine
        self._process = os.getpid()

    def acquire(self) -> ConnectionLease:
        if self._process != os.getpid():
            self.abandon()  # nobody told us of the fork: uWSGI tells Python with py-call-osafterfork only
        try:
            pooled = self._engine.raw_connection()
        except PoolTimeout as error:
            raise TimeoutError(
                "every connection of the application's engine was in use; raise its pool_size or max_overflow"
            ) from error
        return _PooledLease(self._engine, pooled)

    def drop_idle(self) -> None:
        self._engine.dispose()

    def abandon(self) -> None:
        self._process = os.getpid()
        _abandoned.append(self._engine.pool)
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Leave the engine to the application."""


class _PooledLease:
    """A connection of the application's pool. One that is lost in the middle of an answer does not go back."""

    def __init__(self, engine: Engine, pooled: PoolProxiedConnection) -> None:
        self._pooled: PoolProxiedConnection | None = pooled
        self.connection = Connection(pooled, _cursor(engine, pooled), _is_autocommit(engine, pooled))
        self.is_broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_broken and (kind is None or issubclass(kind, StoreError)):
            self.connection.cursor.close()
            pooled, self._pooled = self._pooled, None
            if pooled is not None:
                pooled.close()
        self._discard()

    def __del__(self) -> None:
        self._discard()

    def _discard(self) -> None:
        pooled = vars(self).pop("_pooled", None)
        if pooled is not None:
            with suppress(Exception):  # whatever is wrong with it, it is on its way out
                pooled.invalidate()


def _is_autocommit(engine: Engine, pooled: PoolProxiedConnection) -> bool:
    assert pooled.dbapi_connection is not None
    try:
        return engine.dialect.detect_autocommit_setting(pooled.dbapi_connection)
    except NotImplementedError:
        return False  # then commits are made, needed or not


def _cursor(engine: Engine, pooled: PoolProxiedConnection) -> DBAPICursor:
    if engine.dialect.driver == "psycopg":
        # A session's data then comes as it is, not in hex digits to be decoded.
        driver: Any = pooled.dbapi_connection
        cursor: DBAPICursor = driver.cursor(binary=True)
        return cursor
    return pooled.cursor()
