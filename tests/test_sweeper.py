"""Sweeper: what it deletes, when it ends, and what it does about failures."""

import os
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, event

from prism_wsgi import (
    ConfigError,
    MemoryStore,
    SchemaMissing,
    SQLAlchemyStore,
    StoredSession,
    StoreUnavailable,
    migrate,
)
from prism_wsgi.errors import ClocksDiffer
from prism_wsgi.stores.base import SweepPace
from prism_wsgi.stores.sql.schema import sweep_bucket
from prism_wsgi.sweeper import (
    RETRY_DELAYS,
    SMALLEST_BATCH_SIZE,
    SweepEnd,
    Sweeper,
    SweepResult,
)
from tests.support.waiting import PATIENCE, eventually

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


def test_sweep_deletes_what_has_expired_and_nothing_else(empty_url: str) -> None:
    store = SQLAlchemyStore(empty_url, clock=clock)
    keep(store, 7, expires_in=-1)
    keep(store, 1, expires_in=0)
    keep(store, 3, expires_in=1)
    result = Sweeper(store, batch_size=3, clock=clock).sweep()
    stats = store.stats()
    store.close()
    assert (result.deleted, result.batches, result.end) == (8, 3, SweepEnd.COMPLETE)
    assert (stats.live, stats.expired) == (3, 0)


def test_sweep_says_what_remains(empty_url: str) -> None:
    store = SQLAlchemyStore(empty_url, clock=clock)
    keep(store, 3, expires_in=-1)
    keep(store, 2, expires_in=-7200)
    keep(store, 1, expires_in=60)
    sweeper = Sweeper(store, batch_size=2, max_seconds=0, clock=clock)
    remaining = [sweeper.sweep().oldest_remaining for _ in range(3)]
    store.close()
    assert remaining == [int(NOW * 1000) - 1000, int(NOW * 1000) - 1000, None]


def test_backlog_is_what_expired_until_then(empty_url: str) -> None:
    sql_store, memory_store = SQLAlchemyStore(empty_url, clock=clock), MemoryStore(clock=clock)
    now = int(NOW * 1000)
    for store in (sql_store, memory_store):
        assert (store.oldest_expired(now), store.count_expired(now)) == (None, 0)
        keep(store, 2, expires_in=-7200)
        keep(store, 3, expires_in=0)
        keep(store, 1, expires_in=1)
        assert (store.oldest_expired(now), store.count_expired(now)) == (now - 7_200_000, 5)
        assert (store.oldest_expired(now - 1), store.count_expired(now - 1)) == (now - 7_200_000, 2)
        assert (store.oldest_expired(now - 7_200_001), store.count_expired(now - 7_200_001)) == (None, 0)
    sql_store.close()


def test_sweeps_at_once_delete_each_session_once(empty_url: str) -> None:
    filling = SQLAlchemyStore(empty_url, clock=clock)
    keep(filling, 120, expires_in=-60)
    keep(filling, 5, expires_in=60)
    results: list[SweepResult] = []
    together = threading.Barrier(4)

    def sweep() -> None:
        store = SQLAlchemyStore(empty_url, clock=clock, timeout=30)
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


def test_sweep_of_a_database_that_is_being_written_to_waits_as_long_as_the_store_does(empty_sqlite_url: str) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, clock=clock, timeout=0.2)
    keep(store, 5, expires_in=-60)
    other = create_engine(empty_sqlite_url, isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="database is locked"):
            store.sweep(int(NOW * 1000), 10)
        connection.exec_driver_sql("COMMIT")
    other.dispose()
    assert store.sweep(int(NOW * 1000), 10) == 5
    store.close()


def test_batch_begins_where_those_before_ended(postgresql_url: str) -> None:
    """What is deleted stays in the index until a vacuum; each batch would pass over it again."""
    migrate.upgrade(postgresql_url)
    store = SQLAlchemyStore(postgresql_url, clock=clock)
    for hour in range(1, 9):
        keep(store, 3, expires_in=-3600 * hour)
    begun: list[int] = []

    @event.listens_for(store.engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, values: dict[str, int], *_: object) -> None:
        if "first_bucket" in values:
            begun.append(values["first_bucket"])

    result = Sweeper(store, batch_size=1, clock=clock).sweep()
    store.close()
    # Three sessions of each hour, the oldest first.
    buckets = [sweep_bucket(int(NOW - 3600 * hour) * 1000) for hour in range(8, 0, -1) for _ in range(3)]
    assert result.deleted == 24
    # The 8th, 16th and 24th batch ask where they end, and so does the one that finds nothing more. At the end once
    # more from the beginning, in case another sweeper gave something back
    asked = [buckets[7]] * 8 + [buckets[15]] * 8 + [buckets[23]] * 2
    assert begun == [0] * 8 + asked + [0, 0]


def test_older_than_spares_what_expired_lately() -> None:
    store = expired_store(2)
    keep(store, 3, expires_in=-3600)
    assert Sweeper(store, older_than=600, clock=clock).sweep().deleted == 3
    assert len(store) == 2


def test_batches_are_counted_as_they_are_done() -> None:
    progress: list[tuple[int, int]] = []
    Sweeper(expired_store(5), batch_size=2, clock=clock).sweep(lambda *counts: progress.append(counts))
    assert progress == [(2, 1), (4, 2), (5, 3)]


class Timer:
    """Counts up by so many seconds each time it is read."""

    def __init__(self, step: float) -> None:
        self.seconds = 0.0
        self._step = step

    def __call__(self) -> float:
        self.seconds += self._step
        return self.seconds


def test_rows_per_second_counts_the_time_of_the_sweep() -> None:
    result = Sweeper(expired_store(5), clock=clock, timer=Timer(0.5)).sweep()
    assert result.rows_per_second == 5 / result.seconds
    assert result.seconds >= 2.0


def test_sweep_ends_when_its_time_is_up() -> None:
    store = expired_store(50)
    result = Sweeper(store, batch_size=2, pause=0, max_seconds=8, clock=clock, timer=Timer(1)).sweep()
    assert (result.end, result.deleted, len(store)) == (SweepEnd.TIME_UP, 6, 44)


class SlowStore(MemoryStore):
    """A store whose batches take so many milliseconds a session; it remembers how large they were."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__(max_sessions=100_000, clock=clock)
        self.milliseconds = milliseconds
        self.limits: list[int] = []
        self.seconds = 0.0

    def sweep(self, before: int, limit: int) -> int:
        self.limits.append(limit)
        self.seconds += limit * self.milliseconds / 1000
        return limit


@pytest.mark.parametrize(("milliseconds", "size"), [(0.02, 500), (0.1, 100), (0.25, SMALLEST_BATCH_SIZE)])
def test_batches_take_the_time_they_should(milliseconds: float, size: int) -> None:
    store = SlowStore(milliseconds)
    Sweeper(store, target_ms=10, stopping=RecordedStop(), clock=clock, timer=lambda: store.seconds).sweep()
    assert store.limits[0] == SMALLEST_BATCH_SIZE
    assert all(abs(limit - size) <= 1 for limit in store.limits[10:])


class PacedStore(SlowStore):
    """A store that names its pace."""

    sweep_pace = SweepPace(target_ms=40, rest=2.0)


def test_store_names_the_pace_that_suits_it() -> None:
    store, stop = PacedStore(0.1), RecordedStop()
    Sweeper(store, stopping=stop, clock=clock, timer=lambda: store.seconds).sweep()
    assert store.limits[-1] == pytest.approx(400, abs=1)
    assert stop.waits[-1] == pytest.approx(2 * 0.040, abs=0.001)


def test_each_engine_has_a_pace_of_its_own(empty_url: str) -> None:
    store, stop = SQLAlchemyStore(empty_url, clock=clock), RecordedStop(1)
    keep(store, 1, expires_in=-60)
    Sweeper(store, stopping=stop, clock=clock).sweep()
    assert (stop.waits == [0.0]) == empty_url.startswith("postgresql"), "elsewhere it rests after a batch"
    store.close()


def test_pace_that_is_asked_for_comes_before_that_of_the_store() -> None:
    store, stop = PacedStore(0.1), RecordedStop()
    Sweeper(store, target_ms=20, pause=0.5, stopping=stop, clock=clock, timer=lambda: store.seconds).sweep()
    assert store.limits[-1] == pytest.approx(200, abs=1)
    assert set(stop.waits) == {0.5}


def test_rest_would_not_outlast_the_time_of_the_sweep() -> None:
    store = PacedStore(0.1)
    sweeper = Sweeper(store, max_seconds=0.0151, stopping=RecordedStop(), clock=clock, timer=lambda: store.seconds)
    result = sweeper.sweep()
    # 50 sessions in 5 ms and a rest of 10; then 100 in 10, and a rest of 20 would be too long
    assert (result.end, result.batches) == (SweepEnd.TIME_UP, 2)


def test_batches_shrink_at_once_when_the_database_is_busy() -> None:
    store, stop = SlowStore(0.02), RecordedStop(20)
    sweeper = Sweeper(store, target_ms=10, stopping=stop, clock=clock, timer=lambda: store.seconds)
    sweeper.sweep()
    store.milliseconds, store.limits, stop.waits = 2.0, [], []
    stop.clear()
    sweeper.sweep()
    assert store.limits[:4] == [499, 249, 124, 62]
    assert min(store.limits) == SMALLEST_BATCH_SIZE


def test_batches_are_never_larger_than_they_may_be() -> None:
    store = SlowStore(0.001)
    Sweeper(store, batch_size=70, stopping=RecordedStop(), clock=clock, timer=lambda: store.seconds).sweep()
    assert set(store.limits) == {50, 70}


def test_sweep_does_not_begin_a_pause_that_would_outlast_its_time() -> None:
    stop = RecordedStop()
    sweeper = Sweeper(
        expired_store(5), batch_size=1, pause=10, max_seconds=9, stopping=stop, clock=clock, timer=lambda: 0.0
    )
    assert sweeper.sweep().end is SweepEnd.TIME_UP
    assert stop.waits == []


def test_stop_lets_the_batch_under_way_finish() -> None:
    stop = threading.Event()
    sweeper = Sweeper(expired_store(5), batch_size=2, stopping=stop, clock=clock)
    result = sweeper.sweep(lambda *_: stop.set())
    assert (result.end, result.deleted, result.batches) == (SweepEnd.STOPPED, 2, 1)


def test_sweep_pauses_between_batches() -> None:
    stop = RecordedStop()
    Sweeper(expired_store(5), batch_size=2, pause=0.5, stopping=stop, clock=clock).sweep()
    assert stop.waits == [0.5, 0.5, 0.5]


def test_stop_ends_a_pause() -> None:
    sweeper = Sweeper(expired_store(5), batch_size=2, pause=3600, stopping=RecordedStop(after=1), clock=clock)
    assert sweeper.sweep().end is SweepEnd.STOPPED


def test_failed_batch_is_repeated() -> None:
    stop = RecordedStop()
    result = Sweeper(FailingStore(2), stopping=stop, clock=clock).sweep()
    assert (result.end, result.deleted, result.error) == (SweepEnd.COMPLETE, 5, None)
    assert stop.waits[:2] == list(RETRY_DELAYS[:2])


def test_batch_that_fails_every_time_ends_the_sweep_with_its_error() -> None:
    store = FailingStore(1000)
    result = Sweeper(store, stopping=RecordedStop(), clock=clock).sweep()
    assert (result.end, result.deleted, str(result.error)) == (SweepEnd.FAILED, 0, "not now")
    assert store.failures == 1000 - len(RETRY_DELAYS) - 1


def test_stop_ends_the_wait_for_another_attempt() -> None:
    stop = RecordedStop(after=1)
    assert Sweeper(FailingStore(1000), stopping=stop, clock=clock).sweep().end is SweepEnd.FAILED
    assert len(stop.waits) == 1


def test_batch_is_smaller_after_a_failure() -> None:
    store, limits = FailingStore(2), []

    def sweep(before: int, limit: int) -> int:
        limits.append(limit)
        return FailingStore.sweep(store, before, limit)

    store.sweep = sweep  # type: ignore[method-assign]
    Sweeper(store, stopping=RecordedStop(), clock=clock).sweep()
    assert limits[:3] == [50, 25, 12]


def test_missing_table_is_not_tried_again() -> None:
    stop = RecordedStop()
    assert Sweeper(FailingStore(1000, SchemaMissing), stopping=stop, clock=clock).sweep().end is SweepEnd.FAILED
    assert stop.waits == []


def test_sweep_every_goes_on_after_a_failure() -> None:
    results: list[SweepResult] = []
    Sweeper(FailingStore(1, SchemaMissing), stopping=RecordedStop(after=4), clock=clock).sweep_every(
        60, results.append
    )
    assert [result.end for result in results] == [SweepEnd.FAILED, SweepEnd.COMPLETE, SweepEnd.COMPLETE]


def test_sweep_every_waits_its_interval_and_some_of_the_jitter() -> None:
    stop = RecordedStop(after=50)
    Sweeper(MemoryStore(), stopping=stop, clock=clock).sweep_every(60, lambda _: None, jitter=10)
    assert all(60 <= wait <= 70 for wait in stop.waits)
    assert len(set(stop.waits)) > 1


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: Sweeper(MemoryStore(), batch_size=0), "batch_size"),
        (lambda: Sweeper(MemoryStore(), target_ms=0), "target_ms"),
        (lambda: Sweeper(MemoryStore()).start(-1), "every"),
        (lambda: Sweeper(MemoryStore()).start(jitter=-1), "jitter"),
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


def wait_until_empty(store: MemoryStore) -> None:
    eventually(lambda: len(store) == 0, "the thread does not sweep", pause=0.001)


def test_thread_sweeps_at_once_and_ends_when_told() -> None:
    store = expired_store(120)
    sweeper = Sweeper(store, clock=clock)
    sweeper.start(every=3600)
    wait_until_empty(store)
    assert sweeper.is_running
    sweeper.stop(PATIENCE)
    assert not sweeper.is_running


def test_thread_does_not_keep_the_process_alive_and_is_one_however_often_started() -> None:
    sweeper = Sweeper(MemoryStore(), clock=clock)
    assert not sweeper.is_running
    others = threading.enumerate()
    for _ in range(3):
        sweeper.start()
    (thread,) = (one for one in threading.enumerate() if one.name == "prism-wsgi-sweeper" and one not in others)
    assert thread.daemon
    sweeper.stop(PATIENCE)


def test_thread_can_be_started_again() -> None:
    store = expired_store(3)
    sweeper = Sweeper(store, clock=clock)
    sweeper.stop()
    sweeper.start(every=3600)
    wait_until_empty(store)
    sweeper.stop(PATIENCE)


def test_thread_logs_a_failure_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore(1, SchemaMissing)
    sweeper = Sweeper(store, clock=clock)
    sweeper.start(every=0.001, jitter=0)
    wait_until_empty(store)
    sweeper.stop(PATIENCE)
    assert "store_failed: the session store failed: not now" in caplog.text


def test_forked_child_does_not_sweep_and_may_start_to() -> None:
    store = MemoryStore(clock=clock)
    sweeper = Sweeper(store, clock=clock)
    sweeper.start(every=3600)
    child = os.fork()
    if child == 0:
        try:
            assert not sweeper.is_running
            keep(store, 3, expires_in=-60)
            sweeper.start(every=3600)
            wait_until_empty(store)
            sweeper.stop(PATIENCE)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sweeper.is_running
    sweeper.stop(PATIENCE)


def test_session_extended_while_the_sweep_runs_survives(empty_url: str) -> None:
    """The sweepers' clock is ahead, so that they meet sessions that still live and are being extended."""
    keeping = SQLAlchemyStore(empty_url, clock=clock, timeout=30)
    keep(keeping, 400, expires_in=60)
    ids = [session.id for session in keeping.find_all(limit=1000)]
    together = threading.Barrier(4)
    extended: list[str] = []

    def extend(part: list[str]) -> None:
        together.wait()
        for session_id in part:
            if keeping.touch(StoredSession(session_id, b"", 1, 0, int((NOW + 7200) * 1000))):
                extended.append(session_id)

    def sweep() -> None:
        store = SQLAlchemyStore(empty_url, clock=clock, timeout=30)
        together.wait()
        assert Sweeper(store, batch_size=5, pause=0, clock=lambda: NOW + 120).sweep().error is None
        store.close()

    jobs = [(extend, ids[::-2]), (extend, ids[::2])]
    threads = [threading.Thread(target=work, args=(part,)) for work, part in jobs]
    threads += [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    remaining = [session.id for session in keeping.find_all(limit=1000)]
    keeping.close()
    assert remaining == sorted(extended)


class ClockedBacklog(MemoryStore):
    """A store whose server's clock is ahead of this host's by so many seconds."""

    ahead = 0.0

    def server_time(self) -> float:
        return time.time() + self.ahead


@pytest.mark.parametrize(("ahead", "end"), [(0, "complete"), (59, "complete"), (61, "failed"), (-3600, "failed")])
def test_a_sweep_by_a_clock_a_minute_from_the_databases_deletes_nothing(ahead: float, end: str) -> None:
    store = ClockedBacklog()
    store.ahead = ahead
    swept: list[int] = []
    store.sweep = lambda before, limit: swept.append(before) or 0  # type: ignore[method-assign,func-returns-value]
    result = Sweeper(store).sweep()
    assert result.end == end
    assert bool(swept) is (end == "complete")
    if end == "failed":
        assert isinstance(result.error, ClocksDiffer)
        assert "ahead of" in str(result.error) if ahead > 0 else "behind" in str(result.error)


def test_the_thread_goes_on_when_the_clocks_agree_again() -> None:
    store = ClockedBacklog()
    store.ahead = 120
    ends: list[str] = []
    sweeper = Sweeper(store)

    def report(result: SweepResult) -> None:
        ends.append(result.end)
        store.ahead = 0
        if len(ends) == 2:
            sweeper.stop()

    sweeper.sweep_every(0, report)
    assert ends == ["failed", "complete"]
