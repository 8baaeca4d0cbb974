"""Sweeper: what it deletes, when it ends, and what it does about failures."""

import threading
from collections.abc import Callable

import pytest

from prism_wsgi import ConfigError, MemoryStore, SchemaMissing, SQLAlchemyStore, StoredSession, StoreUnavailable
from prism_wsgi.sweeper import RETRY_DELAYS, SweepEnd, Sweeper, SweepResult

NOW = 1_800_000_000.0


def clock() -> float:
    return NOW


def keep(store: MemoryStore | SQLAlchemyStore, count: int, *, expires_in: float) -> None:
    """Store sessions that expire that many seconds from now."""
    expires_at = int((NOW + expires_in) * 1000)
    for number in range(count):
        store.save(StoredSession(f"{expires_at:024x}{number:040x}", b"data", 0, expires_at - 1, expires_at))


def expired_store(count: int) -> MemoryStore:
    store = MemoryStore(clock=clock)
    keep(store, count, expires_in=-60)
    return store


class RecordedStop(threading.Event):
    """Waits no time, and remembers what it was to wait; set after the given number of waits."""

    def __init__(self, after: int = 100) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._after = after

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        if len(self.waits) >= self._after:
            self.set()
        return self.is_set()


class FailingStore(MemoryStore):
    """A store whose first sweeps fail."""

    def __init__(self, failures: int, error: type[Exception] = StoreUnavailable) -> None:
        super().__init__(clock=clock)
        keep(self, 5, expires_in=-60)
        self.failures = failures
        self.error = error

    def sweep(self, before: int, limit: int) -> int:
        if self.failures:
            self.failures -= 1
            raise self.error("not now")
        return super().sweep(before, limit)


def test_sweep_deletes_what_has_expired_and_nothing_else(migrated_url: str) -> None:
    store = SQLAlchemyStore(migrated_url, clock=clock)
    keep(store, 7, expires_in=-1)
    keep(store, 1, expires_in=0)
    keep(store, 3, expires_in=1)
    result = Sweeper(store, batch_size=3, clock=clock).sweep()
    stats = store.stats()
    store.close()
    assert (result.deleted, result.batches, result.end) == (8, 3, SweepEnd.COMPLETE)
    assert (stats.live, stats.expired) == (3, 0)


def test_sweeps_at_once_delete_each_session_once(migrated_url: str) -> None:
    filling = SQLAlchemyStore(migrated_url, clock=clock)
    keep(filling, 120, expires_in=-60)
    keep(filling, 5, expires_in=60)
    results: list[SweepResult] = []
    together = threading.Barrier(4)

    def sweep() -> None:
        store = SQLAlchemyStore(migrated_url, clock=clock, timeout=30)
        together.wait()
        results.append(Sweeper(store, batch_size=10, clock=clock).sweep())
        store.close()

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.error for result in results] == [None] * 4
    assert sum(result.deleted for result in results) == 120
    assert (filling.stats().live, filling.stats().expired) == (5, 0)
    filling.close()


def test_older_than_spares_what_expired_lately() -> None:
    store = expired_store(2)
    keep(store, 3, expires_in=-3600)
    assert Sweeper(store, older_than=600, clock=clock).sweep().deleted == 3
    assert len(store) == 2


def test_batches_are_counted_as_they_are_done() -> None:
    progress: list[tuple[int, int]] = []
    Sweeper(expired_store(5), batch_size=2, clock=clock).sweep(lambda *counts: progress.append(counts))
    assert progress == [(2, 1), (4, 2), (5, 3)]


def test_rows_per_second_counts_the_time_of_the_sweep() -> None:
    times = iter([10.0, 12.0])
    result = Sweeper(expired_store(5), clock=clock, timer=lambda: next(times)).sweep()
    assert (result.seconds, result.rows_per_second) == (2.0, 2.5)


def test_sweep_ends_when_its_time_is_up() -> None:
    times = iter(range(100))
    store = expired_store(50)
    result = Sweeper(store, batch_size=2, max_seconds=3, clock=clock, timer=lambda: next(times)).sweep()
    assert (result.end, result.deleted, len(store)) == (SweepEnd.TIME_UP, 6, 44)


def test_sweep_does_not_begin_a_pause_that_would_outlast_its_time() -> None:
    stop = RecordedStop()
    sweeper = Sweeper(
        expired_store(5), batch_size=1, pause=10, max_seconds=9, stop=stop, clock=clock, timer=lambda: 0.0
    )
    assert sweeper.sweep().end is SweepEnd.TIME_UP
    assert stop.waits == []


def test_stop_lets_the_batch_under_way_finish() -> None:
    stop = threading.Event()
    sweeper = Sweeper(expired_store(5), batch_size=2, stop=stop, clock=clock)
    result = sweeper.sweep(lambda *_: stop.set())
    assert (result.end, result.deleted, result.batches) == (SweepEnd.STOPPED, 2, 1)


def test_sweep_pauses_between_batches() -> None:
    stop = RecordedStop()
    Sweeper(expired_store(5), batch_size=2, pause=0.5, stop=stop, clock=clock).sweep()
    assert stop.waits == [0.5, 0.5]


def test_stop_ends_a_pause() -> None:
    sweeper = Sweeper(expired_store(5), batch_size=2, pause=3600, stop=RecordedStop(after=1), clock=clock)
    assert sweeper.sweep().end is SweepEnd.STOPPED


def test_failed_batch_is_repeated() -> None:
    stop = RecordedStop()
    result = Sweeper(FailingStore(2), stop=stop, clock=clock).sweep()
    assert (result.end, result.deleted, result.error) == (SweepEnd.COMPLETE, 5, None)
    assert stop.waits == list(RETRY_DELAYS[:2])


def test_batch_that_fails_every_time_ends_the_sweep_with_its_error() -> None:
    store = FailingStore(1000)
    result = Sweeper(store, stop=RecordedStop(), clock=clock).sweep()
    assert (result.end, result.deleted, str(result.error)) == (SweepEnd.FAILED, 0, "not now")
    assert store.failures == 1000 - len(RETRY_DELAYS) - 1


def test_stop_ends_the_wait_for_another_attempt() -> None:
    stop = RecordedStop(after=1)
    assert Sweeper(FailingStore(1000), stop=stop, clock=clock).sweep().end is SweepEnd.FAILED
    assert len(stop.waits) == 1


def test_missing_table_is_not_tried_again() -> None:
    stop = RecordedStop()
    assert Sweeper(FailingStore(1000, SchemaMissing), stop=stop, clock=clock).sweep().end is SweepEnd.FAILED
    assert stop.waits == []


def test_sweep_every_goes_on_after_a_failure() -> None:
    results: list[SweepResult] = []
    Sweeper(FailingStore(1, SchemaMissing), stop=RecordedStop(after=3), clock=clock).sweep_every(60, results.append)
    assert [result.end for result in results] == [SweepEnd.FAILED, SweepEnd.COMPLETE, SweepEnd.COMPLETE]


def test_sweep_every_waits_its_interval_and_some_of_the_jitter() -> None:
    stop = RecordedStop(after=50)
    Sweeper(MemoryStore(), stop=stop, clock=clock).sweep_every(60, lambda _: None, jitter=10)
    assert all(60 <= wait <= 70 for wait in stop.waits)
    assert len(set(stop.waits)) > 1


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: Sweeper(MemoryStore(), batch_size=0), "batch_size"),
        (lambda: Sweeper(MemoryStore(), pause=-1), "pause"),
        (lambda: Sweeper(MemoryStore(), older_than=float("inf")), "older_than"),
        (lambda: Sweeper(MemoryStore(), max_seconds=True), "max_seconds"),
        (lambda: Sweeper(MemoryStore()).sweep_every(-1, lambda _: None), "seconds"),
        (lambda: Sweeper(MemoryStore()).sweep_every(1, lambda _: None, jitter=-1), "jitter"),
    ],
)
def test_number_out_of_range_is_refused_by_name(make: Callable[[], object], setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        make()
