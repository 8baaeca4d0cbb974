"""The connections of RedisStore: kept ones, or those of an application's client."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import redis

from prism_wsgi.errors import StoreError
from prism_wsgi.stores.kept import ConnectionLease, KeptConnections

_CLIENT_LIMIT = "max number of clients"


def keep_connections(
    connect: Callable[[], Any], *, max_connections: int, max_idle: float, timeout: float
) -> KeptConnections[Any]:
    """Return connections that the store keeps, each opened by `connect`."""
    return KeptConnections(
        connect,
        lambda connection: connection.disconnect(),
        max_connections=max_connections,
        max_idle=max_idle,
        timeout=timeout,
        is_refusal=is_refusal,
    )


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server refuses a connection because it has its maximum of clients."""
    return isinstance(error, redis.RedisError) and _CLIENT_LIMIT in str(error)


class PooledConnections:
    """The connections of a client that belongs to the application; each goes back to its pool after use."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool

    def acquire(self) -> ConnectionLease[Any]:
        return _PooledLease(self._pool)

    def drop_idle(self) -> None:
        self._pool.disconnect(inuse_connections=False)

    def abandon(self) -> None:
        """Do nothing, since redis-py's pools detect forks themselves."""

    def close(self) -> None:
        """Do nothing, since the client belongs to the application."""


class _PooledLease:
    """A connection of the application's pool. If it is lost in the middle of an answer, it is disconnected first."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool
        self.is_broken = True  # until the `with` block begins
        try:
            self.connection: Any = pool.get_connection()
        except Exception:
            raise
        except BaseException:
            # redis-py takes back a connection that was interrupted before it had logged in or chosen its database.
            pool.disconnect(inuse_connections=False)
            raise

    def __enter__(self) -> Self:
        self.is_broken = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back(self.is_broken or not (kind is None or issubclass(kind, StoreError)))

    def __del__(self) -> None:
        self._give_back(is_broken=True)

    def _give_back(self, is_broken: bool) -> None:
        if "connection" not in vars(self):
            return
        if is_broken:
            with suppress(Exception):  # the connection may be broken in any way
                self.connection.disconnect()
        # In one line: an interrupt between two would lose the connection to the pool.
        self._pool.release(vars(self).pop("connection"))
