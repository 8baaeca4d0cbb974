"""The sweeper, which deletes expired sessions from a store in small batches: once, at intervals, or in a thread."""

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
"""The size of the first batch too. A smaller batch saves little time, because the commit takes most of it."""

MAX_SKEW = 60.0
"""The largest difference between this host's clock and the database's, in seconds. Beyond it, a sweep could delete
live sessions."""

RETRY_DELAYS = (0.1, 0.4, 1.6, 6.4)
"""Seconds before each further attempt at a failed batch: a deadlock is over at once, a failover in seconds."""


class SweepEnd(StrEnum):
    """The reason why a sweep ended."""

    COMPLETE = "complete"
    """Every session that had expired when the sweep began is deleted, or another sweep is deleting it."""
    TIME_UP = "time_up"
    """`max_seconds` had passed."""
    STOPPED = "stopped"
    """`stop()` was called."""
    FAILED = "failed"
    """A batch failed, and so did its retries."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The result of one sweep; `error` is the last batch's when `end` is FAILED.

    `oldest_remaining` is the expiry (Unix ms) of the oldest expired session that is still stored; None if there is
    none, or if the store cannot tell.
    """

    deleted: int
    batches: int
    seconds: float
    end: SweepEnd
    error: StoreError | None = None
    oldest_remaining: int | None = None

    @property
    def rows_per_second(self) -> float:
        """The sessions deleted per second, pauses included."""
        return self.deleted / self.seconds if self.seconds else 0.0


class Sweeper:
    """A deleter of expired sessions; any number of them may work on one database at once.

    Each call of `store.sweep` is a short transaction. Its size follows the time of the calls before, so that one
    takes about `target_ms` milliseconds; it is never more than `batch_size` sessions. The sweeper waits `pause`
    seconds between batches, so that requests can work. Unless given, both come from the store's `sweep_pace`.
    `older_than` (seconds) spares sessions that expired more recently; `max_seconds` limits one sweep. `clock` returns
    Unix seconds and decides which sessions have expired; `timer` counts seconds. Both are for tests. `stopping` is
    the event that `stop()` sets.

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
        """Delete the sessions that have expired by now, and return the result.

        `on_batch` is called after each batch with the sessions deleted and the batches done so far. A failed batch is
        retried. If it still fails, the sweep ends, and the error is in the result, not raised. If this host's clock
        and the database's differ by more than MAX_SKEW, nothing is deleted, and the error is ClocksDiffer.
        """
        began = milliseconds(self._clock)
        before = milliseconds(self._clock, ago=self._older_than)
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
        """Sweep, wait, and sweep again until stopped, also after a sweep that failed.

        The wait is `seconds`, and a random time of up to `jitter` seconds more, so that sweepers started together do
        not stay together. `on_sweep` is called with each result.
        """
        _number("seconds", "seconds", seconds)
        _number("jitter", "seconds", jitter)
        while not self._stopping.is_set():
            on_sweep(self.sweep(on_batch))
            self._stopping.wait(seconds + SystemRandom().uniform(0, jitter))

    def start(self, every: float = 300.0, *, jitter: float = 30.0) -> None:
        """Sweep in a daemon thread of this process, at once and then once in `every` seconds, until `stop()`.

        Use it where the site is one process; with many, schedule `prism-wsgi sweep` instead. A sweep that fails is
        logged as `store_failed`, and the next one tries again. A process forked later does not sweep: the
        thread stays with the process that started it. A second call starts no second thread.
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
        """End a sweep after its current batch, and any wait at once; then wait for the thread of `start()`.

        `timeout` (seconds) limits the wait for the thread. You may call it from any thread, and twice.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def is_running(self) -> bool:
        """Whether the thread of `start()` runs in this process."""
        return self._thread is not None and self._thread.is_alive()

    def after_fork(self) -> None:
        """Forget the thread, which stays with the parent."""
        self._thread = None
        self._stopping = threading.Event()  # the parent's thread may have held its lock at the fork

    def _compare_clocks(self) -> None:
        theirs = self._store.server_time() if isinstance(self._store, ClockedStore) else None
        if theirs is None:
            return
        skew = theirs - system_clock()
        if abs(skew) > MAX_SKEW:
            raise ClocksDiffer(
                f"The database's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's, and "
                "a sweep by a wrong clock would delete live sessions, so nothing was deleted. Synchronise both: "
                "`timedatectl set-ntp true`"
            )

    def _sweep_batch(self, before: int) -> int:
        for delay in RETRY_DELAYS:
            try:
                return self._timed_batch(before)
            except SchemaMissing:
                raise  # a retry creates no table
            except StoreError:
                self._next_size = max(1, self._next_size // 2)  # the batch may have been too large for the timeout
                if self._stopping.wait(delay):
                    raise
        return self._timed_batch(before)

    def _timed_batch(self, before: int) -> int:
        size = self._next_size
        started = self._timer()
        gone = self._store.sweep(before, size)
        took = self._took = self._timer() - started
        # At most twice or half the size: one slow commit says little, and a batch that was not full says less.
        wanted = min(2 * size, max(size // 2, int(size * self._target / took))) if took else 2 * size
        if gone == size or wanted < size:
            self._next_size = min(self._batch_size, max(SMALLEST_BATCH_SIZE, wanted))
        return gone

    def _record(self, began: int, deleted: int, end: SweepEnd) -> None:
        """Record the sweep if the store can; the database role may lack the right to do so."""
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
