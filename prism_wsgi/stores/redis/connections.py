"""How RedisStore comes by a connection of redis-py for the moment it needs one."""

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
    """Return connections of the store's own, each opened by `connect`."""
    return KeptConnections(
        connect,
        lambda connection: connection.disconnect(),
        max_connections=max_connections,
        max_idle=max_idle,
        timeout=timeout,
        is_refusal=is_refusal,
    )


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server says that it has as many clients as it may have."""
    return isinstance(error, redis.RedisError) and _CLIENT_LIMIT in str(error)


class PooledConnections:
    """Takes connections from the pool of a client that belongs to the application, and returns each at once."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool

    def acquire(self) -> ConnectionLease[Any]:
        return _PooledLease(self._pool)

    def drop_idle(self) -> None:
        self._pool.disconnect(inuse_connections=False)

    def abandon(self) -> None:
        """Leave it to redis-py, whose pools look for forks themselves."""

    def close(self) -> None:
        """Leave the client to the application."""


class _PooledLease:
    """A connection of the application's pool. One that is lost in the middle of an answer is disconnected first."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool
        self.is_broken = True  # until an exchange is over, or where it is interrupted
        try:
            self.connection: Any = pool.get_connection()
        except Exception:
            raise
        except BaseException:
            # redis-py takes back what was interrupted before it had logged in or chosen its database.
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
            with suppress(Exception):  # whatever is wrong with it, it is on its way out
                self.connection.disconnect()
        # At once, since what is interrupted in between is lost to the pool.
        self._pool.release(vars(self).pop("connection"))
