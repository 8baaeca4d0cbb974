"""The contract of session stores, as a class of tests."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import pytest

from prism_wsgi.errors import SessionConflict, SessionExists, SessionGone, StoreError
from prism_wsgi.stores.base import SessionStore, StoredSession

THREADS = 16
ROUNDS = 5
MINUTE = 60_000  # ms


class ManualClock:
    """A clock that stands still until it is moved: call it for Unix seconds, as `time.time`."""

    def __init__(self) -> None:
        # From the real time, because a server of its own may compare with that.
        self.seconds = float(int(time.time()))

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move the clock by this many seconds."""
        self.seconds += seconds


class StoreContract:
    """What every session store does; see `SessionStore` and the protocols beside it.

    Override the fixture `store` with one that returns an empty store. Where the store takes a clock, override
    `clock` too, with a ManualClock that the store was given; without it, sessions are only ever tested as
    expired that were so when they were saved. Verbs that the store lacks are skipped.
    """

    @pytest.fixture
    def store(self) -> SessionStore:
        """Return the store to be tested, empty."""
        raise NotImplementedError("Override the fixture `store` with one that returns an empty store of yours")

    @pytest.fixture
    def clock(self) -> ManualClock | None:
        """Return the clock that the store was made with, None when it takes none."""
        return None

    # load and save

    def test_unknown_id_loads_as_none(self, store: SessionStore) -> None:
        assert store.load(new_session().id) is None

    def test_saved_session_loads_as_it_was_saved(self, store: SessionStore) -> None:
        session = new_session(data=b"data", user="alice")
        store.save(session)
        assert store.load(session.id) == replace(session, version=1)

    def test_marker_loads_as_a_marker(self, store: SessionStore) -> None:
        session = new_session(user="alice")
        store.save(session)
        marker = replace(session, data=b"", version=1, user=None, superseded=True)
        store.save(marker)
        assert store.load(session.id) == replace(marker, version=2)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\0", id="a zero byte"),
            pytest.param(bytes(range(256)), id="every byte"),
            pytest.param(b"\xff\xfe\0'\"\\%s:x?$1", id="what SQL and text codecs stumble over"),
            pytest.param(b"  trailing space and newline \r\n", id="white space at the ends"),
            pytest.param(bytes(range(256)) * 256, id="64 KiB"),
            pytest.param(bytes(range(256)) * 1024 + b"\0", id="256 KiB and a byte"),
        ],
    )
    def test_data_comes_back_byte_for_byte(self, store: SessionStore, data: bytes) -> None:
        session = new_session(data=data)
        store.save(session)
        assert loaded(store, session).data == data
        store.save(replace(session, version=1, data=data[::-1]))
        assert loaded(store, session).data == data[::-1]

    @pytest.mark.parametrize("user", ["a", "Ünïcödé \U0001f600", 'it\'s "quoted" \\ %s', "x" * 255, "trailing "])
    def test_user_comes_back_as_given(self, store: SessionStore, user: str) -> None:
        session = new_session(user=user)
        store.save(session)
        assert loaded(store, session).user == user

    def test_each_save_raises_the_version_by_one(self, store: SessionStore) -> None:
        session = new_session()
        for version in range(5):
            store.save(replace(session, version=version, data=b"%d" % version))
            assert loaded(store, session).version == version + 1

    def test_save_changes_user_and_expiry(self, store: SessionStore) -> None:
        session = new_session(user="alice")
        store.save(session)
        changed = replace(session, version=1, user=None, expires_at=session.expires_at + MINUTE)
        store.save(changed)
        assert store.load(session.id) == replace(changed, version=2)

    def test_save_leaves_its_argument_alone(self, store: SessionStore) -> None:
        session = new_session()
        before = replace(session)
        store.save(session)
        assert session == before

    def test_sessions_of_similar_ids_are_different_sessions(self, store: SessionStore) -> None:
        start = secrets.token_hex(31)
        sessions = [replace(new_session(data=end.encode()), id=start + end) for end in ("00", "01", "10", "20", "0a")]
        for session in sessions:
            store.save(session)
        assert [loaded(store, session).data for session in sessions] == [one.data for one in sessions]

    def test_what_is_stored_does_not_change_with_the_object_that_was_saved(self, store: SessionStore) -> None:
        session = new_session(data=b"saved")
        store.save(session)
        session.data, session.version, session.user = b"changed", 9, "mallory"
        kept = loaded(store, session)
        assert (kept.data, kept.version, kept.user) == (b"saved", 1, None)

    def test_what_is_stored_does_not_change_with_the_object_that_was_loaded(self, store: SessionStore) -> None:
        session = new_session(data=b"saved")
        store.save(session)
        first = loaded(store, session)
        first.data, first.version, first.user, first.expires_at = b"changed", 9, "mallory", 0
        assert store.load(session.id) == replace(session, version=1)

    # Compare-and-swap

    @pytest.mark.parametrize("version", [1, 3, 99], ids=["older", "newer", "far off"])
    def test_save_over_another_version_conflicts_and_changes_nothing(self, store: SessionStore, version: int) -> None:
        session = new_session()
        store.save(session)
        store.save(replace(session, version=1, data=b"stored"))
        with pytest.raises(SessionConflict):
            store.save(replace(session, version=version, data=b"late", user="mallory"))
        assert store.load(session.id) == replace(session, version=2, data=b"stored")

    def test_insert_of_a_taken_id_is_refused(self, store: SessionStore) -> None:
        session = new_session(data=b"first")
        store.save(session)
        with pytest.raises(SessionExists):
            store.save(replace(session, data=b"second"))
        assert store.load(session.id) == replace(session, version=1)

    def test_save_of_a_session_that_never_was_does_not_make_it(self, store: SessionStore) -> None:
        session = new_session(version=1)
        with pytest.raises(SessionGone):
            store.save(session)
        assert store.load(session.id) is None

    def test_save_of_a_destroyed_session_does_not_bring_it_back(self, store: SessionStore) -> None:
        session = new_session()
        store.save(session)
        store.destroy(session.id)
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1))
        assert store.load(session.id) is None

    def test_of_many_inserts_of_one_id_one_wins(self, store: SessionStore) -> None:
        for _ in range(ROUNDS):
            session = new_session()
            rivals = [replace(session, data=b"%d" % number) for number in range(THREADS)]
            outcomes = race([partial(store.save, one) for one in rivals])
            winners = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
            assert len(winners) == 1, outcomes
            assert {type(outcome) for outcome in outcomes if outcome is not None} == {SessionExists}
            assert store.load(session.id) == replace(winners[0], version=1)

    def test_of_many_saves_of_one_version_one_wins(self, store: SessionStore) -> None:
        for _ in range(ROUNDS):
            session = new_session()
            store.save(session)
            rivals = [replace(session, version=1, data=b"%d" % number) for number in range(THREADS)]
            outcomes = race([partial(store.save, one) for one in rivals])
            winners = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
            assert len(winners) == 1, outcomes
            assert {type(outcome) for outcome in outcomes if outcome is not None} == {SessionConflict}
            assert store.load(session.id) == replace(winners[0], version=2)

    def test_no_save_is_lost_when_everyone_retries(self, store: SessionStore) -> None:
        session = new_session(data=b"0")
        store.save(session)

        def count() -> None:
            for _ in range(ROUNDS):
                increment(store, session.id)

        assert set(race([count] * THREADS)) == {None}
        kept = loaded(store, session)
        assert (kept.data, kept.version) == (b"%d" % (THREADS * ROUNDS), THREADS * ROUNDS + 1)

    def test_loads_never_take_a_save_back(self, store: SessionStore) -> None:
        session = new_session(data=b"0")
        store.save(session)

        def count() -> None:
            for _ in range(ROUNDS):
                increment(store, session.id)

        def read() -> None:
            for _ in range(ROUNDS * 4):
                loaded(store, session)

        assert set(race([*[count] * 4, *[read] * 8])) == {None}
        kept = loaded(store, session)
        assert (kept.data, kept.version) == (b"%d" % (4 * ROUNDS), 4 * ROUNDS + 1)

    # destroy

    def test_destroyed_session_is_gone_and_others_stay(self, store: SessionStore) -> None:
        session, other = new_session(), new_session()
        store.save(session)
        store.save(other)
        store.destroy(session.id)
        assert store.load(session.id) is None
        assert store.load(other.id) is not None

    def test_destroying_what_is_gone_is_not_an_error(self, store: SessionStore) -> None:
        session = new_session()
        store.destroy(session.id)
        store.save(session)
        store.destroy(session.id)
        store.destroy(session.id)
        assert store.load(session.id) is None

    def test_destroy_wins_over_saves_under_way(self, store: SessionStore) -> None:
        for _ in range(ROUNDS):
            session = new_session()
            store.save(session)
            save, destroy = partial(store.save, replace(session, version=1)), partial(store.destroy, session.id)
            race([destroy, *[save] * (THREADS // 2)])
            assert store.load(session.id) is None

    # Expiry

    def test_expired_session_loads_as_none(self, store: SessionStore, clock: ManualClock | None) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        assert store.load(session.id) is None

    def test_save_of_an_expired_session_does_not_bring_it_back(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))
        assert store.load(session.id) is None

    def test_session_expires_at_its_very_millisecond(self, store: SessionStore, clock: ManualClock | None) -> None:
        if clock is None:
            pytest.skip("needs the fixture `clock`")
        session = new_session(expires_at=moment(clock) + 2000)
        store.save(session)
        clock.advance(1)
        assert store.load(session.id) is not None
        clock.advance(1)
        assert store.load(session.id) is None
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))

    # touch

    def test_touch_moves_the_expiry_and_nothing_else(self, store: SessionStore) -> None:
        session = new_session(data=b"data", user="alice")
        store.save(session)
        later = session.expires_at + MINUTE
        assert having(store, "touch").touch(session.id, later) is True
        assert store.load(session.id) == replace(session, version=1, expires_at=later)

    def test_touch_never_moves_the_expiry_back(self, store: SessionStore) -> None:
        session = new_session()
        store.save(session)
        for expires_at in (session.expires_at - 1, session.expires_at, 1):
            assert having(store, "touch").touch(session.id, expires_at) is True
            assert loaded(store, session).expires_at == session.expires_at

    def test_of_many_touches_the_furthest_stands(self, store: SessionStore) -> None:
        touching, session = having(store, "touch"), new_session()
        store.save(session)
        moments = [session.expires_at + number * 1000 for number in range(THREADS)]
        assert set(race([partial(touching.touch, session.id, at) for at in moments])) == {True}
        assert store.load(session.id) == replace(session, version=1, expires_at=max(moments))

    def test_touch_does_not_get_in_the_way_of_a_save(self, store: SessionStore) -> None:
        session = new_session()
        store.save(session)
        having(store, "touch").touch(session.id, session.expires_at + MINUTE)
        store.save(replace(session, version=1, data=b"saved"))
        assert loaded(store, session).data == b"saved"

    def test_touch_of_an_absent_session_is_false_and_makes_nothing(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        touching, later = having(store, "touch"), moment(clock) + MINUTE
        unknown, destroyed, expired = new_session(), new_session(), new_session(expires_at=moment(clock) - 1)
        store.save(destroyed)
        store.destroy(destroyed.id)
        store.save(expired)
        for session in (unknown, destroyed, expired):
            assert touching.touch(session.id, later) is False
            assert store.load(session.id) is None

    def test_touch_does_not_prolong_a_marker(self, store: SessionStore) -> None:
        marker = new_session(superseded=True)
        store.save(marker)
        assert having(store, "touch").touch(marker.id, marker.expires_at + MINUTE) is False
        assert loaded(store, marker).expires_at == marker.expires_at

    # replace

    def test_replace_saves_both(self, store: SessionStore) -> None:
        session = new_session(user="alice")
        store.save(session)
        marker, new = marker_of(session), new_session(data=b"new", user="alice")
        having(store, "replace").replace(marker, new)
        assert store.load(session.id) == replace(marker, version=2)
        assert store.load(new.id) == replace(new, version=1)

    def test_replace_may_insert_both(self, store: SessionStore) -> None:
        marker, new = replace(marker_of(new_session()), version=0), new_session()
        having(store, "replace").replace(marker, new)
        assert store.load(marker.id) == replace(marker, version=1)
        assert store.load(new.id) == replace(new, version=1)

    def test_replace_of_another_version_saves_neither(self, store: SessionStore) -> None:
        session, new = new_session(), new_session()
        store.save(session)
        store.save(replace(session, version=1))
        with pytest.raises(SessionConflict):
            having(store, "replace").replace(marker_of(session), new)
        assert store.load(session.id) == replace(session, version=2)
        assert store.load(new.id) is None

    def test_replace_of_a_gone_session_saves_neither(self, store: SessionStore) -> None:
        session, new = new_session(), new_session()
        with pytest.raises(SessionGone):
            having(store, "replace").replace(marker_of(session), new)
        assert store.load(session.id) is None
        assert store.load(new.id) is None

    def test_replace_by_a_taken_id_saves_neither(self, store: SessionStore) -> None:
        session, taken = new_session(), new_session(data=b"another's")
        store.save(session)
        store.save(taken)
        with pytest.raises(SessionExists):
            having(store, "replace").replace(marker_of(session), replace(taken, data=b"mine"))
        assert store.load(session.id) == replace(session, version=1)
        assert store.load(taken.id) == replace(taken, version=1)

    def test_of_many_replacements_one_wins(self, store: SessionStore) -> None:
        replacing = having(store, "replace")
        for _ in range(ROUNDS):
            session = new_session()
            store.save(session)
            rivals = [new_session() for _ in range(THREADS)]
            outcomes = race([partial(replacing.replace, marker_of(session), new) for new in rivals])
            assert sum(outcome is None for outcome in outcomes) == 1, outcomes
            stored = [store.load(new.id) is not None for new in rivals]
            assert stored == [outcome is None for outcome in outcomes]

    def test_destroy_ends_a_session_where_it_has_moved(self, store: SessionStore) -> None:
        replacing, session = having(store, "replace"), new_session(user="alice")
        moves = [session, new_session(user="alice"), new_session(user="alice")]
        store.save(session)
        for old, new in pairwise(moves):
            replacing.replace(marker_of(old, new), new)
        store.destroy(session.id)
        assert [store.load(one.id) for one in moves] == [None, None, None]

    def test_destroy_of_a_marker_that_names_no_other_session_ends_none(self, store: SessionStore) -> None:
        session, new = new_session(), new_session()
        store.save(session)
        having(store, "replace").replace(marker_of(session), new)
        store.destroy(session.id)
        assert store.load(session.id) is None
        assert store.load(new.id) == replace(new, version=1)

    def test_destroy_wins_over_a_replacement_under_way(self, store: SessionStore) -> None:
        replacing = having(store, "replace")
        for _ in range(ROUNDS):
            session, new = new_session(user="alice"), new_session(user="alice")
            store.save(session)
            race([partial(store.destroy, session.id), partial(replacing.replace, marker_of(session, new), new)])
            assert [store.load(session.id), store.load(new.id)] == [None, None]

    # sweep

    def test_sweep_deletes_what_expired_until_then_and_nothing_else(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        sweeping, now = having(store, "sweep"), moment(clock)
        live, later = new_session(), new_session(expires_at=now - 1)
        for session in (live, later, *(new_session(expires_at=now - 10) for _ in range(3))):
            store.save(session)
        assert sweeping.sweep(now - 5, 100) == 3
        assert sweeping.sweep(now - 5, 100) == 0
        assert store.load(live.id) is not None
        assert sweeping.sweep(now, 100) == 1

    def test_sweep_stops_at_its_limit(self, store: SessionStore, clock: ManualClock | None) -> None:
        sweeping, now = having(store, "sweep"), moment(clock)
        for _ in range(7):
            store.save(new_session(expires_at=now - 10))
        assert [sweeping.sweep(now, 3) for _ in range(4)] == [3, 3, 1, 0]

    def test_many_sweepers_delete_each_session_once(self, store: SessionStore, clock: ManualClock | None) -> None:
        sweeping, now = having(store, "sweep"), moment(clock)
        for _ in range(60):
            store.save(new_session(expires_at=now - 10))
        live = new_session()
        store.save(live)

        def sweep_all() -> int:
            deleted = 0
            while batch := sweeping.sweep(now, 7):
                deleted += batch
            return deleted

        # A sweeper may leave to the others what they are deleting, so the last one looks again.
        assert sum(race([sweep_all] * 4)) + sweep_all() == 60
        assert store.load(live.id) is not None

    def test_sweep_spares_a_session_that_is_extended_meanwhile(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        sweeping, touching, now = having(store, "sweep"), having(store, "touch"), moment(clock)
        sessions = [new_session(expires_at=now + MINUTE + number) for number in range(60)]
        before = now + 2 * MINUTE  # a sweeper whose clock is ahead, so that it meets sessions that still live
        for session in sessions:
            store.save(session)

        def extend_all() -> list[bool]:
            return [touching.touch(session.id, before + MINUTE) for session in sessions]

        def sweep_all() -> list[bool]:
            while sweeping.sweep(before, 5):
                pass
            return []

        extended, *_ = race([extend_all, sweep_all, sweep_all])
        assert [store.load(session.id) is not None for session in sessions] == extended

    # find, destroy_all, stats

    def test_find_lists_live_sessions_by_id(self, store: SessionStore, clock: ManualClock | None) -> None:
        indexed = having(store, "find")
        live = [new_session(user=user, data=b"data") for user in ("alice", "bob", None)]
        for session in (*live, new_session(superseded=True), new_session(expires_at=moment(clock) - 1)):
            store.save(session)
        expected = [replace(session, version=1) for session in sorted(live, key=lambda one: one.id)]
        assert list(indexed.find()) == expected

    def test_find_narrows_to_one_user_exactly(self, store: SessionStore) -> None:
        indexed = having(store, "find")
        by_user = {user: new_session(user=user) for user in ("alice", "Alice", "álice", "alice ", "alic", "alice%")}
        for session in by_user.values():
            store.save(session)
        for user, session in by_user.items():
            assert [found.id for found in indexed.find(user=user)] == [session.id]
        assert list(indexed.find(user="nobody")) == []

    def test_find_continues_behind_the_page_before(self, store: SessionStore) -> None:
        indexed, sessions = having(store, "find"), [new_session(user="alice") for _ in range(7)]
        for session in sessions:
            store.save(session)
        pages: list[list[str]] = []
        after = None
        while page := [session.id for session in indexed.find(user="alice", limit=3, after=after)]:
            pages.append(page)
            after = page[-1]
        assert [len(page) for page in pages] == [3, 3, 1]
        assert list(chain(*pages)) == sorted(session.id for session in sessions)

    def test_destroy_all_ends_one_users_sessions(self, store: SessionStore) -> None:
        indexed = having(store, "destroy_all")
        mine = [new_session(user="alice") for _ in range(3)]
        others = [new_session(user=user) for user in ("Alice", "alice ", None)]
        for session in (*mine, *others):
            store.save(session)
        assert indexed.destroy_all("alice") == 3
        assert indexed.destroy_all("alice") == 0
        assert [store.load(session.id) for session in mine] == [None, None, None]
        assert all(store.load(session.id) for session in others)

    def test_destroy_all_of_nobody_is_refused(self, store: SessionStore) -> None:
        """`destroy_all(session.user)` of a visitor who is not logged in must not end the visits of all such."""
        indexed, anonymous = having(store, "destroy_all"), new_session(user=None)
        store.save(anonymous)
        with pytest.raises(TypeError):
            indexed.destroy_all(None)
        assert store.load(anonymous.id)

    def test_destroy_all_spares_the_session_that_asks(self, store: SessionStore) -> None:
        indexed, mine = having(store, "destroy_all"), [new_session(user="alice") for _ in range(3)]
        for session in mine:
            store.save(session)
        assert indexed.destroy_all("alice", except_id=mine[1].id) == 2
        assert [store.load(session.id) is not None for session in mine] == [False, True, False]

    def test_stats_count_what_is_stored(self, store: SessionStore, clock: ManualClock | None) -> None:
        counting, now = having(store, "stats"), moment(clock)
        empty = counting.stats()
        assert (empty.live, empty.expired, empty.superseded, empty.logged_in, empty.data_bytes) == (0, 0, 0, 0, 0)
        assert empty.oldest_expired is None
        for session in (
            new_session(data=b"123"),
            new_session(data=b"4567", user="alice"),
            new_session(data=b"", superseded=True),
            new_session(data=b"89", expires_at=now - 20, user="bob"),
            new_session(data=b"0", expires_at=now - 10),
        ):
            store.save(session)
        stats = counting.stats()
        assert (stats.live, stats.expired, stats.superseded, stats.logged_in) == (2, 2, 1, 1)
        assert (stats.data_bytes, stats.oldest_expired) == (10, now - 20)


def new_session(
    *,
    data: bytes = b"data",
    version: int = 0,
    expires_at: int | None = None,
    user: str | None = None,
    superseded: bool = False,
) -> StoredSession:
    """Return a session under an id of its own; it lives for ten more minutes unless `expires_at` is given."""
    now = int(time.time() * 1000)
    expires_at = now + 10 * MINUTE if expires_at is None else expires_at
    return StoredSession(secrets.token_hex(32), data, version, now, expires_at, user, superseded)


def marker_of(session: StoredSession, new: StoredSession | None = None) -> StoredSession:
    """Return what `regenerate()` puts in the place of a session that was saved once, naming the `new` one."""
    moved_to = b"" if new is None else bytes.fromhex(new.id)
    return replace(session, data=moved_to, version=1, user=None, superseded=True)


def loaded(store: SessionStore, session: StoredSession) -> StoredSession:
    """Return what is stored under the id of `session`, which must be something."""
    stored = store.load(session.id)
    assert stored is not None, f"session {session.id} is not stored"
    return stored


def having(store: SessionStore, *verbs: str) -> Any:
    """Return the store when it has these optional verbs; skip the test when it lacks one."""
    lacking = [verb for verb in verbs if not callable(getattr(store, verb, None))]
    if lacking:
        pytest.skip(f"{type(store).__name__} has no {', '.join(lacking)}")
    return store


def moment(clock: ManualClock | None) -> int:
    """Return the store's present in Unix ms."""
    return int((time.time() if clock is None else clock()) * 1000)


def increment(store: SessionStore, session_id: str) -> None:
    """Add one to the decimal number that a session holds, trying until no other save comes in between."""
    while True:
        stored = store.load(session_id)
        assert stored is not None
        try:
            store.save(replace(stored, data=b"%d" % (int(stored.data) + 1)))
        except SessionConflict:
            continue
        return


def race(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make each call in a thread of its own, all at the same moment.

    Returns what each returned, or the StoreError it raised; any other exception is raised on.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        try:
            return call()
        except StoreError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
