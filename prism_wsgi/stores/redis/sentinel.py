"""The connections to a master that sentinels watch, and replace by one of its replicas when it fails."""

import math
import time
from contextlib import suppress
from typing import Any

import redis

from prism_wsgi.stores.kept import ConnectionLease, KeptConnections
from prism_wsgi.stores.redis.addresses import Address, Target, ask
from prism_wsgi.stores.redis.connections import keep_connections

LOOK_SECONDS = 5.0
"""The time for which a store trusts the master without asking a sentinel.

An old master that is cut off from the sentinels may answer for ever.
"""

_QUICK_SECONDS = 1.0
"""The time for which the store waits for a sentinel before it asks another."""


class MasterConnections:
    """Kept connections to the present master; those to an earlier master are closed and not used.

    Before it opens a connection, the store asks a sentinel for the master; then it asks the server whether it is one.
    Afterwards, one request in LOOK_SECONDS asks a sentinel again.
    """

    def __init__(self, target: Target, *, max_connections: int, max_idle: float, timeout: float) -> None:
        assert target.sentinel_dial is not None
        self._dial, self._sentinel_dial = target.dial, target.sentinel_dial
        self._sentinels, self._service = list(target.addresses), target.service
        self._timeout = timeout
        self._master: Address | None = None
        self._looked_at = -math.inf
        self._kept: KeptConnections[Any] = keep_connections(
            self._connect, max_connections=max_connections, max_idle=max_idle, timeout=timeout
        )

    @property
    def in_use(self) -> int:
        """The number of connections in use."""
        return self._kept.in_use

    def acquire(self) -> ConnectionLease[Any]:
        if self._master is not None and time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._look()
        while True:
            lease = self._kept.acquire()
            if (lease.connection.host, lease.connection.port) == self._master:
                return lease
            with lease:
                lease.is_broken = True

    def drop_idle(self) -> None:
        self._kept.drop_idle()

    def abandon(self) -> None:
        self._kept.abandon()

    def close(self) -> None:
        self._kept.close()

    def _connect(self) -> Any:
        address = self._find()
        try:
            connection = self._dial.connect(address)
            role = ask(connection, "ROLE")[0]
            if role != b"master":
                raise redis.ConnectionError(
                    f"{_text(address)} is a {role.decode()}, not the master of {self._service}"
                )
        except (redis.RedisError, OSError):
            self._ask_another_first(self._sentinels[0])  # this one may be cut off from the others
            raise
        self._master, self._looked_at = address, time.monotonic()
        return connection

    def _find(self) -> Address:
        """Return the master's address from the first sentinel that answers."""
        deadline = time.monotonic() + self._timeout
        failure: Exception | None = None
        for sentinel in list(self._sentinels):
            if time.monotonic() > deadline:
                break
            try:
                connection = self._sentinel_dial.connect(sentinel, min(_QUICK_SECONDS, self._timeout))
                found = ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                connection.disconnect()
                if found is not None:
                    return found[0].decode(), int(found[1])
            except (redis.RedisError, OSError) as error:
                failure = error
            self._ask_another_first(sentinel)
        why = f"{type(failure).__name__}: {failure}" if failure else "they know no master of this name"
        raise redis.ConnectionError(f"no sentinel names the master of {self._service}: {why}") from failure

    def _ask_another_first(self, sentinel: Address) -> None:
        # One assignment, so that threads which do this at once leave a whole list.
        self._sentinels = [*(one for one in self._sentinels if one != sentinel), sentinel]

    def _look(self) -> None:
        """Close the idle connections if the sentinels name another master, and that server says that it is one."""
        self._looked_at = time.monotonic()  # first, so that one request asks and the others go on
        # As long as the master answers, sentinels that do not are no reason to fail.
        with suppress(redis.RedisError, OSError):
            if self._find() != self._master:
                self._connect().disconnect()
                self._kept.drop_idle()


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
