"""MemoryStore beyond the contract: what it evicts, how long it keeps, and that it survives threads and forks."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prism_wsgi import ConfigError, MemoryStore, SessionGone, StoredSession
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
    ids = {session.id for session in store.find_all(limit=1000)}
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
        lambda store, session: store.touch(replace(session, version=1)),
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


def fill_with(store: MemoryStore, *sessions: StoredSession) -> list[StoredSession]:
    for session in sessions:
        store.save(session)
    return list(sessions)


def test_full_store_evicts_visitors_before_users() -> None:
    store = MemoryStore(max_sessions=4)
    users = fill_with(store, new_session(user="alice"), new_session(user="bob"))
    visitors = fill(store, 100)
    assert kept(store, users) == [True, True]
    assert kept(store, visitors) == [False] * 98 + [True] * 2


def test_store_full_of_users_evicts_the_least_recently_used_of_them() -> None:
    store = MemoryStore(max_sessions=3)
    users = fill_with(store, *(new_session(user="alice") for _ in range(4)))
    assert kept(store, users) == [False, True, True, True]
    assert store.count(user="alice") == len(store.find(user="alice")) == 3


def test_visitor_who_logs_in_or_out_is_evicted_as_what_they_are_now() -> None:
    store = MemoryStore(max_sessions=3)
    came, went = fill_with(store, new_session(), new_session(user="alice"))
    store.save(replace(came, version=1, user="bob"))
    store.save(replace(went, version=1, user=None))
    fill(store, 20)
    assert kept(store, [came, went]) == [True, False]


def test_expired_session_of_a_user_goes_before_a_visitor_when_room_is_needed(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=2, clock=clock)
    expired, visitor = fill_with(store, new_session(user="alice", expires_at=moment(clock) - 1), new_session())
    fill(store, 1)
    assert kept(store, [visitor]) == [True]
    with pytest.raises(SessionGone):
        store.save(replace(expired, version=1))


def test_what_is_known_of_sessions_goes_with_them(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=10, clock=clock)
    for number in range(200):
        session = new_session(user=f"user {number}", actor="administrator" if number % 2 else None)
        store.save(session)
        if number % 3 == 0:
            store.save(replace(session, version=1, user=None))
        if number % 4 == 0:
            store.destroy(session.id)
    listed = {session_id for ids in store._by_user.values() for session_id in ids}
    assert listed <= set(store._sessions)
    assert len(store._by_user) <= 11
    assert store._order[False].keys() | store._order[True].keys() == store._sessions.keys()
    assert not store._order[False].keys() & store._order[True].keys()


def test_looking_for_a_users_sessions_reads_no_others() -> None:
    store = MemoryStore()
    fill(store, 100)
    session = fill_with(store, new_session(user="alice"))[0]
    for other in store._sessions.values():
        if other.id != session.id:
            other.expires_at = None  # type: ignore[assignment]  # reading it would be an error
    assert [one.id for one in store.find(user="alice")] == [session.id]
    assert store.count(user="alice") == store.destroy_all("alice") == 1


def test_session_that_was_prolonged_is_not_taken_for_expired(clock: ManualClock) -> None:
    store = MemoryStore(max_sessions=2, clock=clock)
    session = new_session(expires_at=moment(clock) + 1000)
    store.save(session)
    store.touch(replace(session, version=1, expires_at=moment(clock) + 60_000))
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


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
def test_ttl_caps_how_long_a_session_is_kept(ttl: float | timedelta, clock: ManualClock) -> None:
    store, session = MemoryStore(ttl=ttl, clock=clock), new_session()  # type: ignore[arg-type]
    store.save(session)
    assert loaded(store, session).expires_at == moment(clock) + 60_000
    clock.advance(30)
    assert store.touch(replace(session, version=1))
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
        used = replace(session, version=number + 1, expires_at=session.expires_at + number)
        assert store.touch(used)
        store.save(used)
    assert len(store) == 10
    assert len(store._expiries) < 200


def test_what_expired_first_goes_first_however_often_others_were_touched(clock: ManualClock) -> None:
    store, now = MemoryStore(max_sessions=3, clock=clock), moment(clock)
    last, middle, first = (new_session(expires_at=now + seconds * 1000) for seconds in (30, 20, 10))
    for session in (last, middle, first):
        store.save(session)
    for _ in range(100):
        assert store.touch(replace(last, version=1))
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
            store.touch(replace(session, version=1))
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


@pytest.mark.whole
def test_where_processes_cannot_be_forked_the_store_works_all_the_same() -> None:
    program = """
import os
del os.fork, os.register_at_fork  # as on Windows
from prism_wsgi import MemoryStore
from prism_wsgi.testing import new_session
store, session = MemoryStore(), new_session()
store.save(session)
print(store.load(session.id).version)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
