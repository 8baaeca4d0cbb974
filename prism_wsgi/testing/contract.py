"""The contract of session stores, as a class of tests."""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import pytest

from prism_wsgi.errors import SessionConflict, SessionExists, SessionGone
from prism_wsgi.stores.base import KEPT_EXPIRED_MS, SessionStore, StoredSession
from prism_wsgi.testing.clock import ManualClock
from prism_wsgi.testing.sessions import MINUTE, increment, loaded, marker_of, moment, new_session, race

THREADS = 16
ROUNDS = 5

FACTS: dict[str, Any] = {
    "last_seen_at": 1_800_000_000_123,
    "authenticated_at": 1_800_000_000_122,
    "auth_method": "pwd otp " + "x" * 56,
    "actor": "Ünïcödé \U0001f600 " + "x" * 245,
    "client_address": "2001:db8::ff00:42:8329%eth0.with-a-name-of-the-longest-there-is",
    "user_agent": "Mozilla/5.0 (X11; Ünïcödé) " + "x" * 229,
    "device_key": bytes(range(256))[-72:],
}
"""Every field that is None by default, with the longest value that it may have."""


class StoreContract:
    """The tests of the rules that a session store keeps; see `SessionStore` and the optional protocols.

    Override the fixture `store` with one that returns an empty store. If the store takes a clock, override `clock`
    too, with the ManualClock that the store was given; without it, the tests cannot let a session expire after it was
    saved. Tests of verbs that the store lacks are skipped.
    """

    @pytest.fixture
    def store(self) -> SessionStore:
        """Return the store to be tested, empty."""
        raise NotImplementedError("Override the fixture `store` with one that returns an empty store")

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
        marker = marker_of(session, new_session())
        store.save(marker)
        assert store.load(session.id) == replace(marker, version=2)

    @pytest.mark.parametrize("name", FACTS)
    def test_every_field_comes_back_as_given_and_can_be_changed(self, store: SessionStore, name: str) -> None:
        session, fact = new_session(user="alice"), FACTS[name]
        for version, value in enumerate((None, fact, fact[:-1] if isinstance(fact, str | bytes) else 1, None)):
            saved = replace(session, version=version, **{name: value})
            store.save(saved)
            assert store.load(session.id) == replace(saved, version=version + 1)

    def test_a_new_session_is_saved_with_every_field(self, store: SessionStore) -> None:
        session = replace(new_session(user="alice"), **FACTS)
        store.save(session)
        assert store.load(session.id) == replace(session, version=1)

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

    def test_session_expires_at_its_very_millisecond(self, store: SessionStore, clock: ManualClock | None) -> None:
        clock = standing(clock)
        session = new_session(expires_at=moment(clock) + 2000)
        store.save(session)
        clock.advance(1)
        assert store.load(session.id) is not None
        clock.advance(1)
        assert store.load(session.id) is None

    def test_session_that_has_expired_since_it_was_loaded_is_saved(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        late = replace(session, version=1, data=b"late", expires_at=moment(clock) + MINUTE)
        store.save(late)
        assert store.load(session.id) == replace(late, version=2)

    def test_expired_session_is_kept_ten_minutes_for_a_request_under_way(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        clock = standing(clock)
        session = new_session(expires_at=moment(clock) + MINUTE)
        store.save(session)
        clock.advance((MINUTE + KEPT_EXPIRED_MS - 1000) / 1000)
        assert store.load(session.id) is None
        store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))
        assert loaded(store, session).version == 2

    def test_save_over_another_version_of_an_expired_session_conflicts(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        store.save(replace(session, version=1))
        with pytest.raises(SessionConflict):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))
        assert store.load(session.id) is None

    def test_id_of_an_expired_session_stays_taken(self, store: SessionStore, clock: ManualClock | None) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        with pytest.raises(SessionExists):
            store.save(replace(session, expires_at=moment(clock) + MINUTE))
        assert store.load(session.id) is None

    def test_destroy_ends_an_expired_session_for_good(self, store: SessionStore, clock: ManualClock | None) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        store.destroy(session.id)
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))

    # touch

    def test_touch_records_a_use_and_changes_nothing_else(self, store: SessionStore) -> None:
        touching, session = having(store, "touch"), replace(new_session(data=b"data", user="alice"), **FACTS)
        store.save(session)
        use: dict[str, Any] = {
            "last_seen_at": session.created_at + 5,
            "client_address": "192.0.2.7",
            "user_agent": None,
        }
        touched = replace(session, version=1, expires_at=session.expires_at + MINUTE, **use)
        other: dict[str, Any] = {
            "data": b"",
            "user": "mallory",
            "actor": None,
            "authenticated_at": 1,
            "created_at": 1,
        }
        given = replace(touched, **other)
        before = replace(given)
        assert touching.touch(given) is True
        assert store.load(session.id) == touched
        assert given == before

    def test_touch_never_moves_the_expiry_back(self, store: SessionStore) -> None:
        touching, session = having(store, "touch"), new_session()
        store.save(session)
        for seconds, expires_at in enumerate((session.expires_at - 1, session.expires_at, 1)):
            seen_at = session.created_at + seconds
            touched = replace(session, version=1, expires_at=expires_at, last_seen_at=seen_at)
            assert touching.touch(touched) is True
            assert store.load(session.id) == replace(touched, expires_at=session.expires_at)

    def test_of_many_touches_the_furthest_stands(self, store: SessionStore) -> None:
        touching, session = having(store, "touch"), new_session()
        store.save(session)
        moments = [session.expires_at + number * 1000 for number in range(THREADS)]
        touches = [partial(touching.touch, replace(session, version=1, expires_at=at)) for at in moments]
        assert set(race(touches)) == {True}
        assert store.load(session.id) == replace(session, version=1, expires_at=max(moments))

    def test_touch_does_not_get_in_the_way_of_a_save(self, store: SessionStore) -> None:
        session = new_session()
        store.save(session)
        having(store, "touch").touch(replace(session, version=1, expires_at=session.expires_at + MINUTE))
        store.save(replace(session, version=1, data=b"saved"))
        assert loaded(store, session).data == b"saved"

    @pytest.mark.parametrize("version", [1, 3], ids=["older", "newer"])
    def test_touch_of_another_version_is_false_and_changes_nothing(self, store: SessionStore, version: int) -> None:
        session = new_session()
        store.save(session)
        shortened = replace(session, version=1, expires_at=session.expires_at - MINUTE)
        store.save(shortened)
        touched = replace(session, version=version, expires_at=session.expires_at + MINUTE, last_seen_at=1)
        assert having(store, "touch").touch(touched) is False
        assert store.load(session.id) == replace(shortened, version=2)

    def test_touch_of_an_absent_session_is_false_and_makes_nothing(self, store: SessionStore) -> None:
        touching, unknown, destroyed = having(store, "touch"), new_session(), new_session()
        store.save(destroyed)
        store.destroy(destroyed.id)
        for session in (unknown, destroyed):
            assert touching.touch(replace(session, version=1)) is False
            assert store.load(session.id) is None

    def test_session_that_has_expired_since_it_was_loaded_is_touched(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        session = new_session(expires_at=moment(clock) - 1)
        store.save(session)
        touched = replace(session, version=1, expires_at=moment(clock) + MINUTE)
        assert having(store, "touch").touch(touched) is True
        assert store.load(session.id) == touched

    def test_touch_does_not_prolong_a_marker(self, store: SessionStore) -> None:
        marker = new_session(superseded=True)
        store.save(marker)
        touched = replace(marker, version=1, expires_at=marker.expires_at + MINUTE, last_seen_at=1)
        assert having(store, "touch").touch(touched) is False
        assert store.load(marker.id) == replace(marker, version=1)

    # replace

    def test_replace_saves_both(self, store: SessionStore) -> None:
        session = new_session(user="alice")
        store.save(session)
        new = new_session(data=b"new", user="alice")
        marker = marker_of(session, new)
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

    # Following a session that has moved

    @pytest.mark.parametrize("user", ["alice", None])
    def test_destroy_ends_a_session_where_it_has_moved(self, store: SessionStore, user: str | None) -> None:
        replacing, moves = having(store, "replace"), [new_session(user=user) for _ in range(3)]
        store.save(moves[0])
        for old, new in pairwise(moves):
            replacing.replace(marker_of(old, new), new)
        store.destroy(moves[0].id)
        assert [store.load(one.id) for one in moves] == [None, None, None]

    def test_destroy_of_a_marker_that_names_no_other_session_ends_none(self, store: SessionStore) -> None:
        session, new = new_session(), new_session()
        store.save(session)
        having(store, "replace").replace(marker_of(session), new)
        store.destroy(session.id)
        assert store.load(session.id) is None
        assert store.load(new.id) == replace(new, version=1)

    @pytest.mark.parametrize(("before", "now"), [(None, "alice"), ("alice", "bob"), ("alice", None)])
    def test_destroy_does_not_follow_a_session_to_another_user(
        self, store: SessionStore, before: str | None, now: str | None
    ) -> None:
        """An attacker may have planted the cookie before a login, and must not end the session of the login."""
        replacing, session, new = having(store, "replace"), new_session(user=before), new_session(user=now)
        store.save(session)
        replacing.replace(marker_of(session, new), new)
        store.destroy(session.id)
        assert store.load(session.id) is None
        assert store.load(new.id) == replace(new, version=1)

    def test_destroy_ends_where_markers_name_each_other(self, store: SessionStore) -> None:
        having(store, "replace")
        alone, first, second = (new_session(user="alice") for _ in range(3))
        markers = [marker_of(alone, alone), marker_of(first, second), marker_of(second, first)]
        for marker in markers:
            store.save(replace(marker, version=0))
        store.destroy(alone.id)
        store.destroy(first.id)
        assert [store.load(marker.id) for marker in markers] == [None, None, None]

    def test_destroy_wins_over_a_replacement_under_way(self, store: SessionStore) -> None:
        replacing = having(store, "replace")
        for _ in range(ROUNDS):
            session, new = new_session(user="alice"), new_session(user="alice")
            store.save(session)
            race([partial(store.destroy, session.id), partial(replacing.replace, marker_of(session, new), new)])
            assert [store.load(session.id), store.load(new.id)] == [None, None]

    # revoke

    def test_revoke_ends_the_users_session(self, store: SessionStore) -> None:
        revoking, session, other = having(store, "revoke"), new_session(user="alice"), new_session(user="alice")
        store.save(session)
        store.save(other)
        assert revoking.revoke(session.id, user="alice") is True
        assert revoking.revoke(session.id, user="alice") is False
        assert store.load(session.id) is None
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1))
        assert store.load(other.id) is not None

    @pytest.mark.parametrize("user", ["bob", "Alice", "alice ", None])
    def test_revoke_spares_what_is_another_users(self, store: SessionStore, user: str | None) -> None:
        revoking, session = having(store, "revoke"), new_session(user=user)
        store.save(session)
        assert revoking.revoke(session.id, user="alice") is False
        assert store.load(session.id) == replace(session, version=1)

    def test_revoke_for_nobody_is_refused(self, store: SessionStore) -> None:
        revoking, session = having(store, "revoke"), new_session(user=None)
        store.save(session)
        with pytest.raises(TypeError):
            revoking.revoke(session.id, user=None)
        assert store.load(session.id) is not None

    @pytest.mark.parametrize("user", ["alice", "administrator"])
    def test_revoke_ends_an_impersonation_for_either_user(self, store: SessionStore, user: str) -> None:
        revoking, session = having(store, "revoke"), new_session(user="alice", actor="administrator")
        store.save(session)
        assert revoking.revoke(session.id, user="mallory") is False
        assert revoking.revoke(session.id, user=user) is True
        assert store.load(session.id) is None

    def test_revoke_ends_an_expired_session_for_good(self, store: SessionStore, clock: ManualClock | None) -> None:
        session = new_session(user="alice", expires_at=moment(clock) - 1)
        store.save(session)
        having(store, "revoke").revoke(session.id, user="alice")
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))

    def test_revoke_ends_a_session_where_it_has_moved(self, store: SessionStore) -> None:
        moving, moves = having(store, "replace", "revoke"), [new_session(user="alice") for _ in range(3)]
        store.save(moves[0])
        for old, new in pairwise(moves):
            moving.replace(marker_of(old, new), new)
        assert moving.revoke(moves[0].id, user="mallory") is False
        assert loaded(store, moves[2]).version == 1
        assert moving.revoke(moves[0].id, user="alice") is True
        assert store.load(moves[2].id) is None

    @pytest.mark.parametrize(("before", "now"), [(None, "alice"), ("bob", "alice"), ("alice", "bob")])
    def test_revoke_does_not_follow_a_session_to_another_user(
        self, store: SessionStore, before: str | None, now: str
    ) -> None:
        moving, session, new = having(store, "replace", "revoke"), new_session(user=before), new_session(user=now)
        store.save(session)
        moving.replace(marker_of(session, new), new)
        assert moving.revoke(session.id, user="alice") is False
        assert store.load(new.id) == replace(new, version=1)

    def test_revoke_ends_where_markers_name_each_other(self, store: SessionStore) -> None:
        revoking, first, second = having(store, "revoke"), new_session(user="alice"), new_session(user="alice")
        for marker in (marker_of(first, second), marker_of(second, first)):
            store.save(replace(marker, version=0))
        assert revoking.revoke(first.id, user="alice") is False

    def test_revoke_wins_over_saves_and_a_move_under_way(self, store: SessionStore) -> None:
        moving = having(store, "replace", "revoke")
        for _ in range(ROUNDS):
            session, new = new_session(user="alice"), new_session(user="alice")
            store.save(session)
            revoke = partial(moving.revoke, session.id, user="alice")
            save = partial(store.save, replace(session, version=1))
            outcomes = race([revoke, partial(moving.replace, marker_of(session, new), new), save])
            assert outcomes[0] is True
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

        # A sweeper skips the sessions that others are deleting, so one sweeps again at the end.
        assert sum(race([sweep_all] * 4)) + sweep_all() == 60
        assert store.load(live.id) is not None

    def test_sweep_spares_a_session_that_is_extended_meanwhile(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        sweeping, touching, now = having(store, "sweep"), having(store, "touch"), moment(clock)
        sessions = [new_session(expires_at=now + MINUTE + number) for number in range(60)]
        before = now + 2 * MINUTE  # a sweeper whose clock is ahead, so that it meets live sessions
        for session in sessions:
            store.save(session)

        def extend_all() -> list[bool]:
            return [touching.touch(replace(one, version=1, expires_at=before + MINUTE)) for one in sessions]

        def sweep_all() -> list[bool]:
            while sweeping.sweep(before, 5):
                pass
            return []

        extended, *_ = race([extend_all, sweep_all, sweep_all])
        assert [store.load(session.id) is not None for session in sessions] == extended

    # find, find_all, count

    def test_find_all_lists_live_sessions_by_id(self, store: SessionStore, clock: ManualClock | None) -> None:
        indexed = having(store, "find_all")
        live = [new_session(user=user, data=b"data") for user in ("alice", "bob", None)]
        for session in (*live, new_session(superseded=True), new_session(expires_at=moment(clock) - 1)):
            store.save(session)
        assert list(indexed.find_all()) == as_stored(live)

    def test_find_lists_a_users_live_sessions_by_id(self, store: SessionStore, clock: ManualClock | None) -> None:
        indexed, expired = having(store, "find"), new_session(user="alice", expires_at=moment(clock) - 1)
        live = [new_session(user="alice", data=b"data") for _ in range(3)]
        for session in (*live, new_session(user="bob"), new_session(user="alice", superseded=True), expired):
            store.save(session)
        assert list(indexed.find(user="alice")) == as_stored(live)

    def test_find_for_nobody_is_refused(self, store: SessionStore) -> None:
        """`find(user=session.user)` for a visitor who is not logged in must not list all such visitors."""
        indexed = having(store, "find")
        store.save(new_session(user="alice"))
        with pytest.raises(TypeError):
            list(indexed.find(user=None))

    def test_find_narrows_to_one_user_exactly(self, store: SessionStore) -> None:
        indexed = having(store, "find")
        by_user = {user: new_session(user=user) for user in ("alice", "Alice", "álice", "alice ", "alic", "alice%")}
        for session in by_user.values():
            store.save(session)
        for user, session in by_user.items():
            assert [found.id for found in indexed.find(user=user)] == [session.id]
        assert list(indexed.find(user="nobody")) == []

    def test_find_lists_an_impersonation_for_either_user(self, store: SessionStore) -> None:
        indexed, own = having(store, "find"), new_session(user="administrator")
        session = new_session(user="alice", actor="administrator")
        store.save(own)
        store.save(session)
        assert list(indexed.find(user="alice")) == as_stored([session])
        assert list(indexed.find(user="administrator")) == as_stored([session, own])

    def test_a_session_is_found_under_its_present_user(self, store: SessionStore) -> None:
        indexed, session = having(store, "find"), new_session(user=None)
        store.save(session)
        for version, (user, actor) in enumerate([("alice", None), ("bob", "alice"), ("bob", None), (None, None)]):
            store.save(replace(session, version=version + 1, user=user, actor=actor))
            found = {name: len(list(indexed.find(user=name))) for name in ("alice", "bob")}
            assert found == {name: int(name in (user, actor)) for name in ("alice", "bob")}

    @pytest.mark.parametrize("whose", [{"user": "alice"}, {}], ids=["a user's", "everybody's"])
    def test_a_listing_continues_behind_the_page_before(self, store: SessionStore, whose: dict[str, str]) -> None:
        indexed, sessions = having(store, "find", "find_all"), [new_session(user="alice") for _ in range(7)]
        for session in sessions:
            store.save(session)
        pages: list[list[str]] = []
        after = None
        listing = indexed.find if whose else indexed.find_all
        while page := [session.id for session in listing(limit=3, after=after, **whose)]:
            pages.append(page)
            after = page[-1]
        assert [len(page) for page in pages] == [3, 3, 1]
        assert list(chain(*pages)) == sorted(session.id for session in sessions)

    def test_a_listing_is_a_hundred_sessions_long_unless_told_otherwise(self, store: SessionStore) -> None:
        indexed = having(store, "find", "find_all")
        for _ in range(101):
            store.save(new_session(user="alice"))
        assert (len(list(indexed.find(user="alice"))), len(list(indexed.find_all()))) == (100, 100)

    def test_count_is_of_live_sessions(self, store: SessionStore, clock: ManualClock | None) -> None:
        counting, expired = having(store, "count"), new_session(user="alice", expires_at=moment(clock) - 1)
        assert counting.count() == 0
        impersonation = new_session(user="bob", actor="alice")
        live = [new_session(user="alice"), new_session(user="alice"), impersonation, new_session()]
        for session in (*live, new_session(user="alice", superseded=True), expired):
            store.save(session)
        assert (counting.count(), counting.count(user="alice"), counting.count(user="bob")) == (4, 3, 1)
        assert counting.count(user="nobody") == 0

    def test_estimate_is_a_number_or_none(self, store: SessionStore) -> None:
        counting = having(store, "estimate")
        store.save(new_session())
        estimate = counting.estimate()
        assert estimate is None or (type(estimate) is int and estimate >= 0)

    # destroy_all

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
        """`destroy_all(session.user)` for a visitor who is not logged in must not end all such visitors' sessions."""
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

    @pytest.mark.parametrize("user", ["alice", "administrator"])
    def test_destroy_all_ends_impersonations_by_and_of_the_user(self, store: SessionStore, user: str) -> None:
        indexed, session = having(store, "destroy_all"), new_session(user="alice", actor="administrator")
        store.save(session)
        assert indexed.destroy_all("bob") == 0
        assert indexed.destroy_all(user) == 1
        assert store.load(session.id) is None

    def test_destroy_all_ends_expired_sessions_for_good(self, store: SessionStore, clock: ManualClock | None) -> None:
        session = new_session(user="alice", expires_at=moment(clock) - 1)
        store.save(session)
        having(store, "destroy_all").destroy_all("alice")
        with pytest.raises(SessionGone):
            store.save(replace(session, version=1, expires_at=moment(clock) + MINUTE))

    def test_destroy_all_counts_no_markers_and_follows_none_to_another_user(self, store: SessionStore) -> None:
        moving, sessions = having(store, "replace", "destroy_all"), [new_session(user="alice") for _ in range(2)]
        news = [new_session(user="alice"), new_session(user="bob")]
        for session, new in zip(sessions, news, strict=True):
            store.save(session)
            moving.replace(marker_of(session, new), new)
        assert moving.destroy_all("alice") == 1
        assert [is_live(store, one) for one in (*sessions, *news)] == [False, False, False, True]

    def test_destroy_all_spares_the_session_that_asks_where_a_marker_leads_to_it(self, store: SessionStore) -> None:
        moving, session, new = having(store, "replace", "destroy_all"), new_session(user="a"), new_session(user="a")
        store.save(session)
        moving.replace(marker_of(session, new), new)
        assert moving.destroy_all("a", except_id=new.id) == 0
        assert store.load(new.id) == replace(new, version=1)

    def test_destroy_all_wins_over_a_move_under_way(self, store: SessionStore) -> None:
        moving = having(store, "replace", "destroy_all")
        for _ in range(ROUNDS):
            session, new = new_session(user="alice"), new_session(user="alice")
            store.save(session)
            race([partial(moving.destroy_all, "alice"), partial(moving.replace, marker_of(session, new), new)])
            assert [is_live(store, session), is_live(store, new)] == [False, False]

    # stats, ping

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
        assert stats.data_bytes == 10

    def test_what_expired_in_the_last_ten_minutes_does_not_wait_for_a_sweep(
        self, store: SessionStore, clock: ManualClock | None
    ) -> None:
        counting, now = having(store, "stats", "sweep"), moment(clock)
        store.save(new_session(expires_at=now - KEPT_EXPIRED_MS + 5000))
        assert counting.stats().oldest_expired is None
        for seconds in (5, 6):
            store.save(new_session(expires_at=now - KEPT_EXPIRED_MS - seconds * 1000))
        assert counting.stats().oldest_expired == now - KEPT_EXPIRED_MS - 6000

    def test_a_ping_leaves_nothing_behind(self, store: SessionStore) -> None:
        pinged = having(store, "ping", "count")
        pinged.ping()
        assert pinged.count() == 0


def having(store: SessionStore, *verbs: str) -> Any:
    """Return the store if it has these optional verbs; skip the test if it lacks one."""
    lacking = [verb for verb in verbs if not callable(getattr(store, verb, None))]
    if lacking:
        pytest.skip(f"{type(store).__name__} has no {', '.join(lacking)}")
    return store


def is_live(store: SessionStore, session: StoredSession) -> bool:
    """Tell whether a session is stored under its id, rather than nothing or a marker."""
    stored = store.load(session.id)
    return stored is not None and not stored.superseded


def standing(clock: ManualClock | None) -> ManualClock:
    """Return the clock; skip the test if there is none."""
    if clock is None:
        pytest.skip("needs the fixture `clock`")
    return clock


def as_stored(sessions: Iterable[StoredSession]) -> list[StoredSession]:
    """Return sessions as a store lists them after their first save."""
    return [replace(session, version=1) for session in sorted(sessions, key=lambda one: one.id)]
