"""Sweeper: deletes expired sessions from a store in small batches, once or at intervals."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from secrets import SystemRandom

from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.errors import ConfigError, SchemaMissing, StoreError
from prism_wsgi.stores.base import SweepingStore

DEFAULT_BATCH_SIZE = 1000
SQLITE_BATCH_SIZE = 100
"""SQLite has one writer at a time: everybody else's writes wait for the whole batch."""

RETRY_DELAYS = (0.1, 0.4, 1.6, 6.4)
"""Seconds before each further attempt at a failed batch: a deadlock is over at once, a failover in seconds."""


class SweepEnd(StrEnum):
    """Why a sweep ended."""

    COMPLETE = "complete"
    """What had expired when it began is gone."""
    TIME_UP = "time_up"
    """`max_seconds` were over first."""
    STOPPED = "stopped"
    """It was told to stop."""
    FAILED = "failed"
    """A batch failed, and so did its repetitions."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep did; `error` is the last batch's when `end` is FAILED."""

    deleted: int
    batches: int
    seconds: float
    end: SweepEnd
    error: StoreError | None = None

    @property
    def rows_per_second(self) -> float:
        """How fast it deleted, pauses included."""
        return self.deleted / self.seconds if self.seconds else 0.0


class Sweeper:
    """Deletes what has expired from a store; any number of them may work on one database at once.

    `batch_size` sessions at most go in one call of `store.sweep`, a short transaction of its own; with SQLite
    use SQLITE_BATCH_SIZE. `pause` (seconds) between batches leaves the database to others.
    `older_than` (seconds) spares sessions that expired more recently; `max_seconds` bounds one sweep.
    `stop` ends a sweep after the batch under way, and any wait at once; set it from another thread.
    `clock` returns Unix seconds and decides what has expired; `timer` counts seconds. Both are for tests.

    Raises ConfigError for a number out of range.
    """

    def __init__(
        self,
        store: SweepingStore,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        pause: float = 0.0,
        older_than: float = 0.0,
        max_seconds: float | None = None,
        stop: threading.Event | None = None,
        clock: Clock = system_clock,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size must be a positive whole number of sessions, not {batch_size!r}")
        self._store = store
        self._batch_size = batch_size
        self._pause = _seconds("pause", pause)
        self._older_than = _seconds("older_than", older_than)
        self._max_seconds = math.inf if max_seconds is None else _seconds("max_seconds", max_seconds)
        self._stop = threading.Event() if stop is None else stop
        self._clock = clock
        self._timer = timer

    def sweep(self, on_batch: Callable[[int, int], None] | None = None) -> SweepResult:
        """Delete what has expired by now, and return what was done.

        `on_batch` is called after each batch with the sessions deleted and the batches done so far. A batch
        that fails is repeated; failing still, it ends the sweep, and its error is in the result, not raised.
        """
        before = int((self._clock() - self._older_than) * 1000)
        started = self._timer()
        deleted = batches = 0

        def ended(end: SweepEnd, error: StoreError | None = None) -> SweepResult:
            return SweepResult(deleted, batches, self._timer() - started, end, error)

        while not self._stop.is_set():
            try:
                gone = self._sweep_batch(before)
            except StoreError as error:
                return ended(SweepEnd.FAILED, error)
            deleted += gone
            batches += 1
            if on_batch is not None:
                on_batch(deleted, batches)
            if gone < self._batch_size:
                return ended(SweepEnd.COMPLETE)
            if self._timer() - started + self._pause >= self._max_seconds:
                return ended(SweepEnd.TIME_UP)
            self._stop.wait(self._pause)
        return ended(SweepEnd.STOPPED)

    def sweep_every(
        self,
        seconds: float,
        on_sweep: Callable[[SweepResult], None],
        *,
        jitter: float = 0.0,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        """Sweep, wait, and sweep again until stopped; a sweep that fails does not end this.

        The wait is `seconds`, and up to `jitter` seconds more, at random, so that many sweepers started
        together part. `on_sweep` is called with each result.
        """
        _seconds("seconds", seconds)
        _seconds("jitter", jitter)
        while not self._stop.is_set():
            on_sweep(self.sweep(on_batch))
            self._stop.wait(seconds + SystemRandom().uniform(0, jitter))

    def _sweep_batch(self, before: int) -> int:
        for delay in RETRY_DELAYS:
            try:
                return self._store.sweep(before, self._batch_size)
            except SchemaMissing:
                raise  # it will not appear by itself
            except StoreError:
                if self._stop.wait(delay):
                    raise
        return self._store.sweep(before, self._batch_size)


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be seconds, 0 or more, not {value!r}")
    return value
