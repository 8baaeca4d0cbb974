"""Kept connections: a bounded number, each used by one thread at a time, for any store with a server.

A signal handler, a timeout library or a greenlet may raise an exception between any two instructions. Therefore a
permit is an object, the lease. If a lease gets lost, its weak reference tells so, and a new lease replaces it. The
lost lease's connection is closed, because its state is unknown.
A lease may hang in a cycle of garbage, together with the traceback of the exception. Callers who wait for a
connection for long collect the garbage.
"""

import gc
import math
import os
import queue
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from traceback import clear_frames
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from prism_wsgi.errors import ConfigError, StoreError

ConnectionT = TypeVar("ConnectionT")

MAX_CONNECTIONS = 15
MAX_IDLE = 60.0  # seconds

REFUSED_SECONDS = 1.0
"""How long a store does not ask for a further connection after its server refused one."""

_LOOK_SECONDS = 0.1

COLLECT_AFTER_SECONDS = 0.5
"""How long a request waits for a connection before it collects garbage, which may hold a lost connection."""
_COLLECT_INTERVAL_SECONDS = 10.0

_abandoned: list[object] = []


def leave_to_parent(inherited: object) -> None:
    """Keep connections inherited across a fork for ever: collecting one would close a connection of the parent."""
    _abandoned.append(inherited)


def check_limits(*, timeout: float, max_idle: float, max_connections: int) -> None:
    """Check the settings that every store with kept connections has. Raises ConfigError."""
    for name, seconds in (("timeout", timeout), ("max_idle", max_idle)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigError(f"{name} must be a positive number of seconds, not {seconds!r}")
    if type(max_connections) is not int or max_connections < 1:
        raise ConfigError(f"max_connections must be a positive whole number, not {max_connections!r}")


class ConnectionLease(Protocol[ConnectionT]):
    """The permission to use a connection until the end of a `with` block."""

    connection: ConnectionT
    is_broken: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Connections(Protocol[ConnectionT]):
    """The source of a store's connections, kept or pooled. Each is used by one thread at a time."""

    def acquire(self) -> ConnectionLease[ConnectionT]:
        """Return a lease. Raises TimeoutError when no connection becomes free, and the errors of the driver."""
        ...

    def drop_idle(self) -> None:
        """Close the idle connections, because they lead to a server that is gone."""
        ...

    def abandon(self) -> None:
        """Leave every connection to the process that this one was forked from."""
        ...

    def close(self) -> None:
        """Close the idle connections."""
        ...


class Lease(Generic[ConnectionT]):
    """The permission to use one kept connection, and the connection; a context manager.

    At the end of the block the connection goes back to the others. It is closed instead if `is_broken` was set, or if
    an exception that is no StoreError left the block, since it may have come in the middle of an answer.
    """

    is_broken = False
    since = 0.0
    connection: ConnectionT = cast(Any, None)

    def __init__(self, pool: "Callable[[], _Pool[ConnectionT] | None]") -> None:
        self._pool = pool

    def __enter__(self) -> "Lease[ConnectionT]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool = self._pool()
        if pool is not None:
            pool.take_back(self, self.is_broken or not (kind is None or issubclass(kind, StoreError)))

    def __del__(self) -> None:
        pool = self._pool() if vars(self) else None  # empty if the lease is lost before __init__ ends
        if pool is not None:
            pool.discard(self.connection)


class _Pool(Generic[ConnectionT]):
    """The connections of one process. It has no lock, since each step is one atomic operation."""

    def __init__(self, terminate: Callable[[ConnectionT], object], size: int, max_idle: float) -> None:
        self.process = os.getpid()
        self.open: weakref.WeakSet[ConnectionT] = weakref.WeakSet()
        self.idle: deque[tuple[ConnectionT, float]] = deque()
        self.refused: deque[tuple[Lease[ConnectionT], float]] = deque()
        # Through the module, so that it is gevent's queue after a monkey patch. A weak reference in it belonged to a
        # lost lease, which a new one has to replace.
        self.free: queue.SimpleQueue[Lease[ConnectionT] | weakref.ref[Lease[ConnectionT]]] = queue.SimpleQueue()
        self._leases: dict[int, weakref.ref[Lease[ConnectionT]]] = {}
        self._terminate = terminate
        self._size = size
        self._max_idle = max_idle
        self._collects_again = 0.0
        for number in range(size):
            self._make_lease(number)

    @property
    def in_use(self) -> int:
        return max(0, self._size - self.free.qsize() - len(self.refused))  # a lost lease may count twice for a moment

    def take(self, seconds: float) -> Lease[ConnectionT]:
        """Return a lease as soon as one is free. Raises `queue.Empty` when the time is over."""
        while True:
            try:
                lease = self.free.get(False)
            except queue.Empty:
                self._replace_lost()
                lease = self._wait(seconds)
            if isinstance(lease, Lease):
                return lease
            self._replace_lost()

    def _wait(self, seconds: float) -> Lease[ConnectionT] | weakref.ref[Lease[ConnectionT]]:
        """Return the next free lease. Raises `queue.Empty` when the time is over."""
        patience = min(seconds / 2, COLLECT_AFTER_SECONDS)
        with suppress(queue.Empty):
            return self.free.get(True, patience)
        now = time.monotonic()
        if now >= self._collects_again:  # rarely: under load all leases may be in use, and a collection takes time
            self._collects_again = now + _COLLECT_INTERVAL_SECONDS
            gc.collect()
        return self.free.get(True, seconds - patience)

    def _replace_lost(self) -> None:
        """Make one new lease for each lost one, also if several threads see the loss."""
        for number, lease in list(self._leases.items()):
            if lease() is None:
                self._make_lease(number + self._size)
                self._leases.pop(number, None)

    def _make_lease(self, number: int) -> None:
        if number in self._leases:
            return
        lease = Lease(weakref.ref(self))
        # The callback is not written in Python: an interrupt cannot come into the middle of it.
        reference = weakref.ref(lease, self.free.put)
        if self._leases.setdefault(number, reference) is reference:
            self.free.put(lease)

    def give_idle(self, lease: Lease[ConnectionT]) -> bool:
        """Give the lease the connection that was used last; return False if none can be trusted."""
        lease.since = time.monotonic()
        try:
            # Last in, first out, so that connections opened by a burst of requests become idle and are closed.
            connection, since = self.idle.pop()
        except IndexError:
            return False
        if lease.since - since > self._max_idle:
            self.discard(connection)
            self.drop_idle()  # the others were idle for longer
            return False
        lease.connection = connection
        return True

    def take_back(self, lease: Lease[ConnectionT], is_broken: bool) -> None:
        # In this order a connection is never in two places: a lost lease closes the connection that it still has.
        connection, since = lease.connection, lease.since
        lease.connection = cast(Any, None)
        if is_broken:
            lease.is_broken = False
            self.discard(connection)
        else:
            self.idle.append((connection, since))
        self.free.put(lease)
        try:
            if since - self.idle[0][1] > self._max_idle:
                self.discard(self.idle.popleft()[0])
        except IndexError:
            pass
        if self.refused:
            self.ask_again(refused_before=since - REFUSED_SECONDS)

    def ask_again(self, refused_before: float) -> None:
        """Allow the store to ask again for connections that the server refused before that moment."""
        with suppress(IndexError):
            while self.refused[0][1] < refused_before:
                self.free.put(self.refused.popleft()[0])

    def drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self.discard(self.idle.pop()[0])

    def discard(self, connection: ConnectionT | None) -> None:
        if connection is None:
            return
        self.open.discard(connection)
        if self.process != os.getpid():
            leave_to_parent(connection)
            return
        with suppress(Exception):  # the connection may be broken in any way
            self._terminate(connection)

    def close(self) -> None:
        self._max_idle = -1.0  # so that connections which come back later are closed
        self.drop_idle()


class KeptConnections(Generic[ConnectionT]):
    """At most `max_connections` connections, which stay open between their uses.

    `connect` opens one, and `terminate` closes one without asking the server. A connection can be referred to weakly,
    is hashable by its identity, and closes itself when nothing refers to it any more. `max_idle` (seconds): a
    connection that was idle for longer is closed and not used, since a firewall may have forgotten it. `timeout`
    (seconds) limits the wait for a free connection. `is_refusal` tells whether an error of `connect` says that the
    server gives no more connections; the caller then waits for one of these, if any is open.

    Nothing is made before the first use, not even a queue, because gevent may patch late. A forked child begins with
    no connections, and neither uses nor closes the parent's.
    """

    def __init__(
        self,
        connect: Callable[[], ConnectionT],
        terminate: Callable[[ConnectionT], object],
        *,
        max_connections: int,
        max_idle: float,
        timeout: float,
        is_refusal: Callable[[Exception], bool],
    ) -> None:
        self._connect = connect
        self._terminate = terminate
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._timeout = timeout
        self._is_refusal = is_refusal
        self._pools: dict[int, _Pool[ConnectionT]] = {}  # by process: a fork's child has another

    def acquire(self) -> Lease[ConnectionT]:
        """Return a lease with a connection, for a `with` statement.

        Raises TimeoutError when none becomes free, and the errors of `connect`.
        """
        pool = self._pools.get(os.getpid()) or self._begin()
        try:
            lease = pool.take(self._timeout)
        except queue.Empty:
            pool.ask_again(refused_before=math.inf)
            raise TimeoutError(
                f"{self._max_connections} connections (max_connections) were in use for {self._timeout} seconds"
            ) from None
        return lease if pool.give_idle(lease) else self._open(pool, lease)

    @property
    def in_use(self) -> int:
        """The number of connections in use."""
        pool = self._pools.get(os.getpid())
        return 0 if pool is None else pool.in_use

    def drop_idle(self) -> None:
        """Close the idle connections, because they lead to a server that is gone."""
        if (pool := self._pools.get(os.getpid())) is not None:
            pool.drop_idle()

    def close(self) -> None:
        """Close the idle connections, and those in use when they come back. A later use opens new ones."""
        if (pool := self._pools.pop(os.getpid(), None)) is not None:
            pool.close()

    def abandon(self) -> None:
        """Leave every connection to the process that this one was forked from."""
        leave_to_parent(self._pools)
        self._pools = {}

    def _begin(self) -> _Pool[ConnectionT]:
        pool = _Pool(self._terminate, self._max_connections, self._max_idle)
        if (first := self._pools.setdefault(os.getpid(), pool)) is pool:
            weakref.finalize(self, pool.close)
        return first

    def _open(self, pool: _Pool[ConnectionT], lease: Lease[ConnectionT]) -> Lease[ConnectionT]:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection = lease.connection = self._connect()
                pool.open.add(connection)
                return lease
            except BaseException as error:
                if not isinstance(error, Exception) or not self._is_refusal(error):
                    clear_frames(error.__traceback__)  # SQLAlchemy's frames are a cycle that would hold the lease
                    pool.take_back(lease, True)
                    raise
                pool.refused.append((lease, time.monotonic()))
                next_lease = self._wait_for_another(pool, deadline)
                if next_lease is None:
                    pool.ask_again(refused_before=math.inf)
                    raise
                lease = next_lease
            if pool.give_idle(lease):
                return lease

    def _wait_for_another(self, pool: _Pool[ConnectionT], deadline: float) -> Lease[ConnectionT] | None:
        """Return the next free lease, None at the deadline or if no connection is open or being opened."""
        while (pool.open or pool.in_use) and time.monotonic() < deadline:
            with suppress(queue.Empty):
                return pool.take(_LOOK_SECONDS)
        return None
