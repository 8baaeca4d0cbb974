"""Kept connections: a bounded number of them, each used by one thread at a time, for any store with a server.

An exception may come from outside between any two instructions: from a signal handler, a timeout library, a greenlet.
Therefore a permit is an object, the lease. Wherever it gets lost, its weak reference tells, and another takes its
place; the connection that it had is closed, because nobody knows in what state it is.
"""

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

from prism_wsgi.errors import StoreError

ConnectionT = TypeVar("ConnectionT")

REFUSED_SECONDS = 1.0
"""How long a store whose server refused a connection goes without asking for one more."""

_LOOK_SECONDS = 0.1

# Connections inherited across a fork. Collecting one would close, in the child, what the parent still uses.
_abandoned: list[object] = []


class ConnectionLease(Protocol[ConnectionT]):
    """The permission to use a connection until the end of a `with` block; `Lease` is the one of kept connections."""

    connection: ConnectionT
    is_broken: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Connections(Protocol[ConnectionT]):
    """Where a store's connections come from, kept or pooled. Each is used by one thread at a time."""

    def acquire(self) -> ConnectionLease[ConnectionT]:
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


class Lease(Generic[ConnectionT]):
    """The permission to use one connection, and the connection; a context manager.

    At the end of the block the connection goes back to the others, or is closed: if `is_broken` was set, or if an
    exception left the block that is no StoreError, since it may have come in the middle of an answer.
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
        pool = self._pool() if vars(self) else None  # it may be lost before it is made
        if pool is not None:
            pool.part_with(self.connection)


class _Pool(Generic[ConnectionT]):
    """The connections of one process. It has no lock, since each step is one operation that cannot be divided."""

    def __init__(self, terminate: Callable[[ConnectionT], object], size: int, max_idle: float) -> None:
        self.process = os.getpid()
        self.open: weakref.WeakSet[ConnectionT] = weakref.WeakSet()
        self.idle: deque[tuple[ConnectionT, float]] = deque()
        self.refused: deque[tuple[Lease[ConnectionT], float]] = deque()
        # Through the module, so that it is gevent's queue after a monkey patch. A reference in it is that to a lost
        # lease, whose place another has to take.
        self.free: queue.SimpleQueue[Lease[ConnectionT] | weakref.ref[Lease[ConnectionT]]] = queue.SimpleQueue()
        self._leases: dict[int, weakref.ref[Lease[ConnectionT]]] = {}
        self._terminate = terminate
        self._size = size
        self._max_idle = max_idle
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
                lease = self.free.get(True, seconds)
            if isinstance(lease, Lease):
                return lease
            self._replace_lost()

    def _replace_lost(self) -> None:
        """Make a lease in the place of each that is lost, one only however many threads see it."""
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
        """Give the lease the connection that has idled shortest; False if there is none that can be trusted."""
        lease.since = time.monotonic()
        try:
            # Last in, first out: what a burst of requests opened is not kept busy for no reason.
            connection, since = self.idle.pop()
        except IndexError:
            return False
        if lease.since - since > self._max_idle:
            self.part_with(connection)
            self.drop_idle()  # the others have idled for longer
            return False
        lease.connection = connection
        return True

    def take_back(self, lease: Lease[ConnectionT], is_broken: bool) -> None:
        # In this order a connection is never in two places: a lease that is lost closes what it still has.
        connection, since = lease.connection, lease.since
        lease.connection = cast(Any, None)
        if is_broken:
            lease.is_broken = False
            self.part_with(connection)
        else:
            self.idle.append((connection, since))
        self.free.put(lease)
        try:
            if since - self.idle[0][1] > self._max_idle:
                self.part_with(self.idle.popleft()[0])
        except IndexError:
            pass
        if self.refused:
            self.ask_again(refused_before=since - REFUSED_SECONDS)

    def ask_again(self, refused_before: float) -> None:
        """Let the server be asked again for connections that it refused before that moment."""
        with suppress(IndexError):
            while self.refused[0][1] < refused_before:
                self.free.put(self.refused.popleft()[0])

    def drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self.part_with(self.idle.pop()[0])

    def part_with(self, connection: ConnectionT | None) -> None:
        if connection is None:
            return
        self.open.discard(connection)
        if self.process != os.getpid():
            _abandoned.append(connection)
            return
        with suppress(Exception):  # whatever is wrong with it, it is on its way out
            self._terminate(connection)

    def close(self) -> None:
        self._max_idle = -1.0  # of the leases that come back later, nothing is kept
        self.drop_idle()


class KeptConnections(Generic[ConnectionT]):
    """Keeps at most `max_connections` connections open between their uses.

    `connect` opens one, and `terminate` closes one without asking the server. A connection can be referred to weakly,
    is hashable by its identity, and closes itself when nothing refers to it any more. `max_idle` (seconds): one that
    has idled for longer is closed and not used, since a firewall may have forgotten it. `timeout` (seconds) bounds
    the wait for one to come free. `is_refusal` tells whether an error of `connect` says that the server gives no more
    connections: the caller then waits for one of these, if any is open.

    Nothing is made before the first use, no queue either: gevent may patch late. In the child of a fork everything
    begins anew, and the parent's connections are neither used nor closed.
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

        Raises TimeoutError when none comes free, and what `connect` raises.
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
        """How many connections are in use."""
        pool = self._pools.get(os.getpid())
        return 0 if pool is None else pool.in_use

    def drop_idle(self) -> None:
        """Close the connections that idle: they lead to a server that is gone."""
        if (pool := self._pools.get(os.getpid())) is not None:
            pool.drop_idle()

    def close(self) -> None:
        """Close the connections that idle, and those in use as they come back. A later use opens others."""
        if (pool := self._pools.pop(os.getpid(), None)) is not None:
            pool.close()

    def abandon(self) -> None:
        """Leave every connection to the process that this one was forked from."""
        _abandoned.append(self._pools)
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
                    clear_frames(error.__traceback__)  # SQLAlchemy's make a cycle, which would hold the lease
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
        """Return the next lease that comes free; None where no connection is open or being opened, or too late."""
        while (pool.open or pool.in_use) and time.monotonic() < deadline:
            with suppress(queue.Empty):
                return pool.take(_LOOK_SECONDS)
        return None
