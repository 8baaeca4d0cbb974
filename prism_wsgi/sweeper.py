"""Sweeper: deletes expired sessions from a store in small batches: once, at intervals, or in a thread."""

import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from secrets import SystemRandom

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import ClocksDiffer, ConfigError, SchemaMissing, StoreError
from prism_wsgi.events import EventLog, Reason
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.stores.base import BacklogStore, ClockedStore, SweepingStore, SweepPace, SweepRecordingStore, SweepRun

DEFAULT_BATCH_SIZE = 5000
SMALLEST_BATCH_SIZE = 50
"""The first batch is of that size too. Fewer rows save no time that counts beside that of the commit."""

MAX_SKEW = 60.0
"""Seconds. A sweep by a clock that is further from the database's would end sessions that are alive."""

RETRY_DELAYS = (0.1, 0.4, 1.6, 6.4)
"""Seconds before each further attempt at a failed batch: a deadlock is over at once, a failover in seconds."""


class SweepEnd(StrEnum):
    """Why a sweep ended."""

    COMPLETE = "complete"
    """What had expired when it began is gone, or in the hands of another sweeper."""
    TIME_UP = "time_up"
    """`max_seconds` were over first."""
    STOPPED = "stopped"
    """It was told to stop."""
    FAILED = "failed"
    """A batch failed, and so did its repetitions."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep did; `error` is the last batch's when `end` is FAILED.

    `oldest_remaining` (Unix ms) expired and is still there; None: nothing, or the store cannot tell.
    """

    deleted: int
    batches: int
    seconds: float
    end: SweepEnd
    error: StoreError | None = None
    oldest_remaining: int | None = None

    @property
    def rows_per_second(self) -> float:
        """How fast it deleted, pauses included."""
        return self.deleted / self.seconds if self.seconds else 0.0


class Sweeper:
    """Deletes what has expired from a store; any number of them may work on one database at once.

    Each call of `store.sweep` is a short transaction: its size follows the time the ones before took, so that one
    takes about `target_ms` milliseconds, and is never more than `batch_size` sessions. `pause` (seconds) between
    batches lets others in. None for either is what suits the store: its `sweep_pace`.
    `older_than` (seconds) spares sessions that expired more recently; `max_seconds` bounds one sweep.
    `clock` returns Unix seconds and decides what has expired; `timer` counts seconds. Both are for tests.
    `stopping` is what `stop()` sets.

    Raises ConfigError for a number out of range.
    """

    def __init__(
        self,
        store: SweepingStore,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        target_ms: float | None = None,
        pause: float | None = None,
        older_than: float = 0.0,
        max_seconds: float | None = None,
        stopping: threading.Event | None = None,
        clock: Clock = system_clock,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size must be a positive whole number of sessions, not {batch_size!r}")
        self._store = store
        pace = getattr(store, "sweep_pace", SweepPace())
        self._target = _number("target_ms", "milliseconds", pace.target_ms if target_ms is None else target_ms) / 1000
        if not self._target:
            raise ConfigError("target_ms must be more than 0 milliseconds")
        self._pause, self._rest = (0.0, pace.rest) if pause is None else (_number("pause", "seconds", pause), 0.0)
        self._older_than = _number("older_than", "seconds", older_than)
        self._max_seconds = math.inf if max_seconds is None else _number("max_seconds", "seconds", max_seconds)
        self._batch_size = batch_size
        self._next_size = min(batch_size, SMALLEST_BATCH_SIZE)
        self._took = 0.0
        self._stopping = threading.Event() if stopping is None else stopping
        self._clock = clock
        self._timer = timer
        self._thread: threading.Thread | None = None
        notify_after_fork(self)

    def sweep(self, on_batch: Callable[[int, int], None] | None = None) -> SweepResult:
        """Delete what has expired by now, and return what was done.

        `on_batch` is called after each batch with the sessions deleted and the batches done so far. A batch
        that fails is repeated; failing still, it ends the sweep, and its error is in the result, not raised.
        Where this host's clock and the database's differ by more than MAX_SKEW, nothing is deleted: the error is
        ClocksDiffer.
        """
        began = milliseconds(self._clock)
        before = int((self._clock() - self._older_than) * 1000)
        started = self._timer()
        deleted = batches = 0

        def ended(end: SweepEnd, error: StoreError | None = None) -> SweepResult:
            oldest = None if error else self._oldest(before)
            self._record(began, deleted, end)
            return SweepResult(deleted, batches, self._timer() - started, end, error, oldest)

        if not self._stopping.is_set():
            try:
                self._compare_clocks()
            except StoreError as error:
                return ended(SweepEnd.FAILED, error)
        while not self._stopping.is_set():
            try:
                gone = self._sweep_batch(before)
            except StoreError as error:
                return ended(SweepEnd.FAILED, error)
            if not gone:
                return ended(SweepEnd.COMPLETE)
            deleted += gone
            batches += 1
            if on_batch is not None:
                on_batch(deleted, batches)
            pause = self._pause + self._rest * self._took
            if self._timer() - started + pause >= self._max_seconds:
                return ended(SweepEnd.TIME_UP)
            self._stopping.wait(pause)
        return ended(SweepEnd.STOPPED)

    def sweep_every(
        self,
        seconds: float,
        on_sweep: Callable[[SweepResult], object],
        *,
        jitter: float = 0.0,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        """Sweep, wait, and sweep again until stopped; a sweep that fails does not end this.

        The wait is `seconds`, and up to `jitter` seconds more, at random, so that many sweepers started
        together part. `on_sweep` is called with each result.
        """
        _number("seconds", "seconds", seconds)
        _number("jitter", "seconds", jitter)
        while not self._stopping.is_set():
            on_sweep(self.sweep(on_batch))
            self._stopping.wait(seconds + SystemRandom().uniform(0, jitter))

    def start(self, every: float = 300.0, *, jitter: float = 30.0) -> None:
        """Sweep in a daemon thread of this process, at once and then `every` so many seconds, until `stop()`.

        For deployments of one process; with many, schedule `prism-wsgi sweep` instead. A sweep that fails is
        logged as `store_failed`, and the next one tries again. A process forked later does not sweep: the
        thread stays with the process that started it. Starting twice is one thread.
        """
        _number("every", "seconds", every)
        _number("jitter", "seconds", jitter)
        if self.is_running:
            return
        self._stopping.clear()
        events = EventLog()

        def report(result: SweepResult) -> None:
            if result.error is not None:
                events.emit(Reason.STORE_FAILED, detail=str(result.error))

        self._thread = threading.Thread(
            target=lambda: self.sweep_every(every, report, jitter=jitter), name="prism-wsgi-sweeper", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """End a sweep after the batch under way, and any wait at once; then wait for the thread of `start()`.

        `timeout` (seconds) bounds the wait for the thread. May be called from any thread, and twice.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def is_running(self) -> bool:
        """Whether the thread of `start()` is at work in this process."""
        return self._thread is not None and self._thread.is_alive()

    def after_fork(self) -> None:
        """Forget the thread, which stays with the parent."""
        self._thread = None
        self._stopping = threading.Event()  # the parent's thread may have held the old one's lock

    def _compare_clocks(self) -> None:
        theirs = self._store.server_time() if isinstance(self._store, ClockedStore) else None
        if theirs is None:
            return
        skew = theirs - system_clock()
        if abs(skew) > MAX_SKEW:
            raise ClocksDiffer(
                f"The database's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's, and "
                "a wrong clock would end sessions that are alive, so nothing was deleted. Synchronise both: "
                "`timedatectl set-ntp true`"
            )

    def _sweep_batch(self, before: int) -> int:
        for delay in RETRY_DELAYS:
            try:
                return self._timed_batch(before)
            except SchemaMissing:
                raise  # it will not appear by itself
            except StoreError:
                self._next_size = max(1, self._next_size // 2)  # it may have been too much to do in time
                if self._stopping.wait(delay):
                    raise
        return self._timed_batch(before)

    def _timed_batch(self, before: int) -> int:
        size = self._next_size
        started = self._timer()
        gone = self._store.sweep(before, size)
        took = self._took = self._timer() - started
        # At most twice or half as many at once: one slow commit says little. A batch that was not full says less.
        wanted = min(2 * size, max(size // 2, int(size * self._target / took))) if took else 2 * size
        if gone == size or wanted < size:
            self._next_size = min(self._batch_size, max(SMALLEST_BATCH_SIZE, wanted))
        return gone

    def _record(self, began: int, deleted: int, end: SweepEnd) -> None:
        """Keep a record of the sweep where the store has one; a role that may only sweep may lack the right to."""
        if isinstance(self._store, SweepRecordingStore):
            run = SweepRun(began, milliseconds(self._clock), deleted, end, socket.gethostname())
            with suppress(StoreError):
                self._store.add_sweep(run)

    def _oldest(self, before: int) -> int | None:
        if isinstance(self._store, BacklogStore):
            with suppress(StoreError):
                return self._store.oldest_expired(before)
        return None


def _number(name: str, unit: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be {unit}, 0 or more, not {value!r}")
    return value
