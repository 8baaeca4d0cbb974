"""MemoryStore beyond the contract: what it evicts, how long it keeps, and that it survives threads and forks."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prism_wsgi import ConfigError, MemoryStore, SessionExists, SessionGone, StoredSession
from prism_wsgi.testing import ManualClock, increment, loaded, marker_of, moment, new_session, race


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def threads_that_interrupt_each_other() -> Iterator[None]:
    """Let Python switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def kept(store: MemoryStore, sessions: list[StoredSession]) -> list[bool]:
    # stats and find do not count as use, load would
    ids = {session.id for session in store.find(limit=1000)}
    return [session.id in ids for session in sessions]


def fill(store: MemoryStore, count: int) -> list[StoredSession]:
    sessions = [new_session() for _ in range(count)]
    for session in sessions:
        store.save(session)
    return sessions


@pytest.mark.parametrize("limit", [0, -1, 1.5, "10", True, None])
def test_max_sessions_must_be_a_positive_number(limit: Any) -> None:
    with pytest.raises(ConfigError, match="max_sessions"):
        MemoryStore(max_sessions=limit)


@pytest.mark.parametrize("ttl", [0, -1, "3600", True, None, timedelta(0), float("nan"), float("inf")])
def test_ttl_must_be_a_positive_time(ttl: Any) -> None:
    with pytest.raises(ConfigError, match="ttl"):
        MemoryStore(ttl=ttl)


def test_full_store_evicts_the_least_recently_used() -> None:
    store = MemoryStore(max_sessions=3)
    sessions = fill(store, 3)
    sessions += fill(store, 1)
    assert kept(store, sessions) == [False, True, True, True]


@pytest.mark.parametrize(
    "use",
    [
        lambda store, session: store.load(session.id),
        lambda store, session: store.save(replace(session, version=1)),
        lambda store, session: store.touch(session.id, session.expires_at + 1),
    ],
    ids=["load", "save", "touch"],
)
def test_use_keeps_a_session_from_being_evicted(use: Callable[[MemoryStore, StoredSession], object]) -> None:
    store = MemoryStore(max_sessions=3)
    sessions = fill(store, 3)
    use(store, sessions[0])
    sessions += fill(store, 1)
    assert kept(store, sessions) == [True, False, True, True]


def test_expired_sessions_are_evicted_first(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=3, clock=clock)
    sessions = fill(store, 2)
    store.save(new_session(expires_at=moment(clock) + 1000))
    clock.advance(1)
    sessions += fill(store, 1)
    assert kept(store, sessions) == [True, True, True]
    assert len(store) == 3


def test_session_that_was_prolonged_is_not_taken_for_expired(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=2, clock=clock)
    session = new_session(expires_at=moment(clock) + 1000)
    store.save(session)
    store.touch(session.id, moment(clock) + 60_000)
    oldest = fill(store, 1)[0]
    store.load(session.id)
    clock.advance(2)
    fill(store, 1)
    assert store.load(session.id) is not None
    assert store.load(oldest.id) is None


def test_evicted_session_is_gone_and_not_brought_back_by_a_late_save() -> None:
    store = MemoryStore(max_sessions=1)
    session = fill(store, 1)[0]
    fill(store, 1)
    with pytest.raises(SessionGone):
        store.save(replace(session, version=1))
    assert store.load(session.id) is None


def test_id_of_an_expired_session_stays_taken(clock: ManualClock) -> None:
    store, session = MemoryStore(clock=clock), new_session(expires_at=moment(clock) - 1)
    store.save(session)
    with pytest.raises(SessionExists):
        store.save(replace(session, expires_at=moment(clock) + 1000))


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
def test_ttl_caps_how_long_a_session_is_kept(ttl: float | timedelta, clock: ManualClock) -> None:
    store, session = MemoryStore(ttl=ttl, clock=clock), new_session()  # type: ignore[arg-type]
    store.save(session)
    assert loaded(store, session).expires_at == moment(clock) + 60_000
    clock.advance(30)
    assert store.touch(session.id, session.expires_at)
    clock.advance(59)
    assert store.load(session.id) is not None
    clock.advance(1)
    assert store.load(session.id) is None


@pytest.mark.parametrize("ttl", [1, 0.5, timedelta(milliseconds=1)])
def test_ttl_may_be_short(ttl: float | timedelta, clock: ManualClock) -> None:
    store, session = MemoryStore(ttl=ttl, clock=clock), new_session()  # type: ignore[arg-type]
    store.save(session)
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    assert loaded(store, session).expires_at == moment(clock) + seconds * 1000


def test_without_limits_it_keeps_ten_thousand_sessions_for_an_hour(clock: ManualClock) -> None:
    store, session = MemoryStore(clock=clock), new_session(expires_at=moment(clock) + 7200_000)
    store.save(session)
    assert loaded(store, session).expires_at == moment(clock) + 3600_000
    fill(store, 10_000)
    assert len(store) == 10_000
    assert store.load(session.id) is None


def test_without_a_limit_find_lists_a_hundred_sessions() -> None:
    store = MemoryStore()
    fill(store, 101)
    assert len(store.find()) == 100


def test_replacement_in_the_smallest_store_keeps_the_new_session() -> None:
    store = MemoryStore(max_sessions=1)
    session, new = fill(store, 1)[0], new_session()
    store.replace(marker_of(session), new)
    assert store.load(new.id) is not None
    assert len(store) == 1


def test_many_saves_and_touches_take_no_more_room(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=10, clock=clock)
    session = fill(store, 10)[-1]
    for number in range(2000):
        store.touch(session.id, session.expires_at + number)
        store.save(replace(session, version=number + 1, expires_at=session.expires_at + number))
    assert len(store) == 10
    assert len(store._expiries) < 200


def test_what_expired_first_goes_first_however_often_others_were_touched(clock: ManualClock) -> None:
    store, now = MemoryStore(max_sessions=3, clock=clock), moment(clock)
    last, middle, first = (new_session(expires_at=now + seconds * 1000) for seconds in (30, 20, 10))
    for session in (last, middle, first):
        store.save(session)
    for _ in range(100):
        assert store.touch(last.id, last.expires_at)
    clock.advance(25)
    fill(store, 1)
    assert store.oldest_expired(moment(clock)) == middle.expires_at
    assert store.sweep(moment(clock), 10) == 1
    assert store.load(last.id) is not None


def test_destroyed_session_is_not_swept(clock: ManualClock) -> None:
    store, now = MemoryStore(clock=clock), moment(clock)
    first, second = new_session(expires_at=now + 1000), new_session(expires_at=now + 2000)
    store.save(first)
    store.save(second)
    store.destroy(first.id)
    assert store.sweep(now + 3000, 10) == 1


def test_flood_of_new_sessions_stays_within_the_bound() -> None:
    store = MemoryStore(max_sessions=100)
    fill(store, 5000)
    assert len(store) == 100
    assert len(store._expiries) < 500


@pytest.mark.usefixtures("threads_that_interrupt_each_other")
def test_threads_doing_everything_at_once_break_nothing() -> None:
    store = MemoryStore(max_sessions=50)
    counter = new_session(data=b"0")
    store.save(counter)

    def use() -> None:
        for number in range(100):
            session = new_session(user="alice" if number % 2 else None)
            store.save(session)
            store.touch(session.id, session.expires_at + number)
            store.load(session.id)
            increment(store, counter.id)
            if number % 10 == 0:
                store.find(user="alice")
                store.stats()
                store.sweep(session.created_at, 10)
                store.destroy_all("alice", except_id=session.id)
            store.destroy(session.id)

    assert race([use] * 8) == [None] * 8
    assert loaded(store, counter).data == b"800"
    assert len(store) <= 50


def test_fork_while_another_thread_holds_the_lock_leaves_the_child_able_to_work() -> None:
    store, session = MemoryStore(), new_session()
    store.save(session)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if not store._lock.locked() and loaded(store, session).data == session.data else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    holder.join()
    assert loaded(store, session).data == session.data


def test_empty_store_has_no_largest_session() -> None:
    assert MemoryStore().stats().largest == 0
