"""Every store of ours, and one of a user's, honours the contract; stores that do not are found out."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine

from prism_wsgi import MemoryStore, RedisStore, SessionStore, SQLAlchemyStore
from prism_wsgi.testing import ManualClock, StoreContract
from tests.support.databases import REDIS
from tests.support.plain_store import PlainStore


class TimedContract(StoreContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()


class TestMemoryStore(TimedContract):
    @pytest.fixture
    def store(self, clock: ManualClock) -> SessionStore:
        return MemoryStore(clock=clock)


class TestSQLAlchemyStore(TimedContract):
    @pytest.fixture
    def store(self, empty_url: str, clock: ManualClock) -> Iterator[SessionStore]:
        store = SQLAlchemyStore(empty_url, clock=clock)
        yield store
        store.close()


class TestSQLAlchemyStoreOnTheSystemClock(StoreContract):
    @pytest.fixture
    def store(self, empty_sqlite_url: str) -> Iterator[SessionStore]:
        store = SQLAlchemyStore(empty_sqlite_url)
        yield store
        store.close()


class TestSQLAlchemyStoreOnTheApplicationsEngine(TimedContract):
    @pytest.fixture(params=[{}, {"isolation_level": "SERIALIZABLE"}], ids=["as it comes", "serializable"])
    def store(self, empty_url: str, clock: ManualClock, request: pytest.FixtureRequest) -> Iterator[SessionStore]:
        engine = create_engine(empty_url, pool_size=20, **request.param)
        yield SQLAlchemyStore(engine, clock=clock)
        engine.dispose()


class TestRedisStore(TimedContract):
    @pytest.fixture
    def store(self, redis_prefix: str, clock: ManualClock) -> Iterator[SessionStore]:
        store = RedisStore(REDIS, prefix=redis_prefix, clock=clock)
        yield store
        store.close()


class TestRedisStoreOnTheApplicationsClient(TimedContract):
    @pytest.fixture
    def store(self, redis_prefix: str, clock: ManualClock) -> Iterator[SessionStore]:
        with redis.Redis.from_url(REDIS, protocol=3) as client:
            yield RedisStore(client, prefix=redis_prefix, clock=clock)


class TestStoreOfThreeVerbs(TimedContract):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: ManualClock) -> SessionStore:
        return PlainStore(tmp_path / "plain.db", clock)


WRONG = {
    "TestUpsertingStore": {
        "test_insert_of_a_taken_id_is_refused",
        "test_of_many_inserts_of_one_id_one_wins",
        "test_save_of_a_destroyed_session_does_not_bring_it_back",
    },
    "TestLastWriterWinsStore": {
        "test_save_over_another_version_conflicts_and_changes_nothing[older]",
        "test_of_many_saves_of_one_version_one_wins",
    },
    "TestAliasingStore": {
        "test_what_is_stored_does_not_change_with_the_object_that_was_saved",
        "test_what_is_stored_does_not_change_with_the_object_that_was_loaded",
    },
    "TestStoreThatTouchesBack": {"test_touch_never_moves_the_expiry_back"},
    "TestStoreThatTouchesByCopy": {"test_touch_records_a_use_and_changes_nothing_else"},
    "TestStoreThatTouchesAnyVersion": {
        "test_touch_of_another_version_is_false_and_changes_nothing[older]",
        "test_touch_of_another_version_is_false_and_changes_nothing[newer]",
    },
    "TestStoreThatTouchesTheExpiryAlone": {"test_touch_records_a_use_and_changes_nothing_else"},
    "TestStoreThatProlongsMarkers": {"test_touch_does_not_prolong_a_marker"},
    "TestStoreThatTouchesOnlyTheLiving": {"test_session_that_has_expired_since_it_was_loaded_is_touched"},
    "TestStoreThatRefusesLateSaves": {
        "test_session_that_has_expired_since_it_was_loaded_is_saved",
        "test_expired_session_is_kept_ten_minutes_for_a_request_under_way",
    },
    "TestStoreThatForgetsWhatExpired": {"test_expired_session_is_kept_ten_minutes_for_a_request_under_way"},
    "TestStoreThatGivesAwayExpiredIds": {"test_id_of_an_expired_session_stays_taken"},
    "TestStoreThatOverwritesExpiredSessions": {"test_save_over_another_version_of_an_expired_session_conflicts"},
    "TestStoreOfFewFields": {
        "test_a_new_session_is_saved_with_every_field",
        "test_every_field_comes_back_as_given_and_can_be_changed[actor]",
        "test_every_field_comes_back_as_given_and_can_be_changed[device_key]",
    },
    "TestStoreThatSetsFieldsOnce": {"test_every_field_comes_back_as_given_and_can_be_changed[actor]"},
    "TestStoreOfText": {"test_data_comes_back_byte_for_byte[every byte]"},
    "TestHalfReplacingStore": {
        "test_replace_of_a_gone_session_saves_neither",
        "test_of_many_replacements_one_wins",
    },
    "TestStoreThatSweepsBlindly": {
        "test_sweep_deletes_what_expired_until_then_and_nothing_else",
        "test_sweep_stops_at_its_limit",
    },
    "TestStoreThatForgetsExpiry": {
        "test_expired_session_loads_as_none",
        "test_session_expires_at_its_very_millisecond",
    },
    "TestStoreThatRegeneratesByDeleting": {
        "test_replace_saves_both",
        "test_replace_of_a_gone_session_saves_neither",
        "test_replace_by_a_taken_id_saves_neither",
        "test_of_many_replacements_one_wins",
    },
    "TestStoreWhoseReadsRewrite": {"test_loads_never_take_a_save_back"},
    "TestStoreThatFoldsUsers": {"test_find_narrows_to_one_user_exactly", "test_destroy_all_ends_one_users_sessions"},
    "TestStoreThatListsEverybodyForNobody": {"test_find_for_nobody_is_refused"},
    "TestStoreThatEndsEverybodyForNobody": {
        "test_destroy_all_of_nobody_is_refused",
        "test_revoke_for_nobody_is_refused",
    },
    "TestStoreThatListsMarkers": {
        "test_find_all_lists_live_sessions_by_id",
        "test_find_lists_a_users_live_sessions_by_id",
        "test_count_is_of_live_sessions",
    },
    "TestStoreThatListsWhatExpired": {
        "test_find_all_lists_live_sessions_by_id",
        "test_find_lists_a_users_live_sessions_by_id",
        "test_count_is_of_live_sessions",
    },
    "TestStoreThatListsInAnyOrder": {"test_a_listing_continues_behind_the_page_before[everybody's]"},
    "TestStoreThatKnowsNoActors": {
        "test_find_lists_an_impersonation_for_either_user",
        "test_revoke_ends_an_impersonation_for_either_user[administrator]",
        "test_destroy_all_ends_impersonations_by_and_of_the_user[administrator]",
    },
    "TestStoreThatListsUnderEarlierUsers": {"test_a_session_is_found_under_its_present_user"},
    "TestStoreThatCountsMarkersAsEnded": {
        "test_destroy_all_counts_no_markers_and_follows_none_to_another_user",
    },
    "TestStoreThatSparesExpiredSessions": {
        "test_destroy_all_ends_expired_sessions_for_good",
        "test_revoke_ends_an_expired_session_for_good",
    },
    "TestStoreThatEndsTheSessionThatAsks": {
        "test_destroy_all_spares_the_session_that_asks",
        "test_destroy_all_spares_the_session_that_asks_where_a_marker_leads_to_it",
    },
    "TestStoreThatRevokesForAnybody": {
        "test_revoke_spares_what_is_another_users[bob]",
        "test_revoke_spares_what_is_another_users[None]",
        "test_revoke_does_not_follow_a_session_to_another_user[bob-alice]",
    },
    "TestStoreThatFollowsNoMarker": {
        "test_destroy_ends_a_session_where_it_has_moved[alice]",
        "test_destroy_ends_a_session_where_it_has_moved[None]",
        "test_revoke_ends_a_session_where_it_has_moved",
    },
    "TestStoreThatFollowsMarkersToAnybody": {
        "test_destroy_does_not_follow_a_session_to_another_user[None-alice]",
        "test_destroy_does_not_follow_a_session_to_another_user[alice-bob]",
    },
    "TestStoreThatRevokesWhereverMarkersLead": {
        "test_revoke_does_not_follow_a_session_to_another_user[None-alice]",
        "test_revoke_does_not_follow_a_session_to_another_user[bob-alice]",
    },
    "TestStoreThatFollowsMarkersInCircles": {"test_destroy_ends_where_markers_name_each_other"},
    "TestStoreThatCountsWhatIsStored": {"test_count_is_of_live_sessions"},
    "TestStoreThatTakesWhatIsKeptForBacklog": {
        "test_what_expired_in_the_last_ten_minutes_does_not_wait_for_a_sweep",
    },
}


@pytest.fixture(scope="session")
def failures_of_wrong_stores() -> dict[str, set[str]]:
    """Which tests of the contract each wrong store failed."""
    wrong_stores = Path(__file__).with_name("wrong_stores.py")
    command = [sys.executable, "-m", "pytest", str(wrong_stores), "-q", "-rf", "--tb=no", "-p", "no:cacheprovider"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=wrong_stores.parents[2])
    failed: dict[str, set[str]] = {}
    for store, test in re.findall(r"^FAILED \S+?::(\w+)::(\w+(?:\[[^\]]*\])?)", run.stdout, re.M):
        failed.setdefault(store, set()).add(test)
    assert failed, run.stdout + run.stderr
    return failed


@pytest.mark.parametrize("store", WRONG)
def test_a_store_that_breaks_the_contract_is_found_out(
    store: str, failures_of_wrong_stores: dict[str, set[str]]
) -> None:
    assert failures_of_wrong_stores[store] >= WRONG[store]


def test_the_right_store_among_the_wrong_ones_passes(failures_of_wrong_stores: dict[str, set[str]]) -> None:
    assert failures_of_wrong_stores.keys() == WRONG.keys()
