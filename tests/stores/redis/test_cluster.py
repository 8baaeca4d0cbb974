"""RedisStore on a cluster: three masters that share the keys, each with a replica."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from prism_wsgi import ConfigError, RedisStore, SessionStore, StoredSession, StoreUnavailable
from prism_wsgi.errors import SessionConflict
from prism_wsgi.testing import ManualClock, StoreContract, loaded, marker_of, new_session, race
from tests.support.interrupting import interruptions
from tests.support.own_redis import OwnCluster, OwnRedis, own_redis, wait_until_it_says
from tests.support.waiting import PATIENCE, eventually

pytest_plugins = ["tests.support.redis_fixtures"]
pytestmark = pytest.mark.whole  # they start servers


@pytest.fixture
def store(cluster: OwnCluster, prefix: str) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url, prefix=prefix, timeout=PATIENCE)
    yield store
    store.close()


class TestContract(StoreContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, cluster: OwnCluster, prefix: str, clock: ManualClock) -> Iterator[SessionStore]:
        store = RedisStore(cluster.url, prefix=prefix, clock=clock, timeout=PATIENCE)
        yield store
        store.close()


def slot_of(store: RedisStore, session: StoredSession) -> int:
    return int(key_slot(store._session_key(session.id).encode()))


def session_on(cluster: OwnCluster, store: RedisStore, node: OwnRedis, **values: Any) -> StoredSession:
    """Return a new session whose key belongs to a master."""
    while cluster.owner_of(slot_of(store, session := new_session(**values))) is not node:
        pass
    return session


def on_each(cluster: OwnCluster, store: RedisStore, **values: Any) -> list[StoredSession]:
    """Save a session on each master, and return them."""
    sessions = [session_on(cluster, store, one, **values) for one in cluster.masters()]
    for session in sessions:
        store.save(session)
    return sessions


# Where keys are


def test_sessions_of_one_user_are_on_all_masters_and_listed_counted_and_ended_on_all(
    cluster: OwnCluster, store: RedisStore, prefix: str
) -> None:
    sessions = on_each(cluster, store, user="alice")
    for node in cluster.masters():
        assert len(list(node.client.scan_iter(f"{prefix}session:*"))) == 1
    ids = sorted(one.id for one in sessions)
    assert [one.id for one in store.find_all()] == [one.id for one in store.find(user="alice")] == ids
    assert store.count() == store.stats().live == store.count(user="alice") == 3
    assert store.estimate() >= 4
    assert store.destroy_all("alice", except_id=ids[0]) == 2
    assert [one.id for one in store.find_all()] == ids[:1]


def test_session_is_listed_before_it_is_saved_and_moves_before_its_marker_is_written(
    cluster: OwnCluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, new = new_session(user="alice"), new_session(user="bob")
    store.save(session)
    asked: list[str] = []
    talk = store._server._talk

    def listening(connection: Any, commands: Any) -> Any:
        answers = talk(connection, commands)
        asked.append(" ".join(str(word) for command in commands for word in command))
        return answers

    monkeypatch.setattr(store._server, "_talk", listening)
    store.replace(marker_of(session, new), new)
    asked = [one for one in asked if "TIME" not in one]
    *listings, first, second = asked
    assert all("ZADD" in one and "EVALSHA" not in one for one in listings)
    assert "user=alice" in " ".join(listings)
    assert "user=bob" in " ".join(listings)
    assert f"session:{new.id}" in first
    assert f"session:{session.id}" in second


def test_move_that_loses_its_marker_deletes_the_new_session_again(store: RedisStore) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    store.save(replace(session, version=1, data=b"meanwhile"))
    with pytest.raises(SessionConflict):
        store.replace(marker_of(session, new), new)
    assert store.load(new.id) is None
    assert loaded(store, session).data == b"meanwhile"


def test_logins_remove_old_entries_from_indexes_on_every_master(
    cluster: OwnCluster, store: RedisStore, prefix: str
) -> None:
    def gone() -> int:
        return sum(len(list(one.client.scan_iter(f"{prefix}user=gone*"))) for one in cluster.masters())

    for number in range(30):
        name = f"{prefix}user=gone{number}"
        cluster.owner_of(int(key_slot(name.encode()))).client.zadd(name, {"a" * 64: 1000})
    assert gone() == 30
    for number in range(5000):
        store.save(new_session(user=f"user{number % 50}"))
        if number % 50 == 0 and gone() == 0:
            return
    raise AssertionError("the look does not get around")


def test_ping_finds_the_one_master_that_takes_no_writes(cluster: OwnCluster, store: RedisStore) -> None:
    store.ping()
    full = cluster.masters()[1]
    full.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            store.ping()
    finally:
        full.client.config_set("maxmemory", 0)


def test_one_master_that_evicts_any_key_is_not_trusted_with_the_end_of_all_sessions(
    cluster: OwnCluster, store: RedisStore
) -> None:
    evicting = cluster.masters()[2]
    evicting.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="maxmemory-policy is allkeys-lru"):
            store.destroy_all("alice")
    finally:
        evicting.client.config_set("maxmemory-policy", "noeviction")


# Slots that move


def test_session_in_a_slot_that_has_moved_is_found_and_saved(cluster: OwnCluster, store: RedisStore) -> None:
    source, target, *_ = cluster.masters()
    session = session_on(cluster, store, source)
    store.save(session)
    cluster.move_slot(slot_of(store, session), target)
    store.save(replace(session, version=1, data=b"moved"))
    assert loaded(store, session).data == b"moved"
    assert cluster.owner_of(slot_of(store, session)) is target


def test_session_is_found_saved_and_ended_while_its_slot_moves(
    cluster: OwnCluster, store: RedisStore, prefix: str
) -> None:
    """With half of its keys on either side, and scripts that the new side does not know."""
    source, target, *_ = cluster.masters()
    first = session_on(cluster, store, source)
    slot = slot_of(store, first)
    # A prefix with a tag in braces: its keys share the slot.
    tag = next(f"t{n}" for n in range(10**6) if key_slot(f"t{n}".encode()) == slot)
    tagged = RedisStore(cluster.url, prefix=f"{prefix}{{{tag}}}:", timeout=PATIENCE)
    sessions = [new_session(user="alice") for _ in range(10)]
    for one in sessions:
        tagged.save(one)
    added = new_session(user="alice")

    def between() -> None:
        target.client.script_flush()
        for one in sessions:
            assert loaded(tagged, one).version == 1
            tagged.save(replace(one, version=1, data=b"between"))
        tagged.save(added)
        assert len(tagged.find(user="alice")) == 11
        tagged.destroy(sessions[0].id)

    cluster.move_slot(slot, target, between=between)
    assert {loaded(tagged, one).data for one in sessions[1:]} == {b"between"}
    assert tagged.load(sessions[0].id) is None
    assert tagged.destroy_all("alice") == 10
    assert tagged.count() == 0
    tagged.close()


def test_no_save_is_lost_while_slots_move(cluster: OwnCluster, store: RedisStore) -> None:
    source, target, *_ = cluster.masters()
    sessions = [session_on(cluster, store, source, user="alice") for _ in range(4)]
    for one in sessions:
        store.save(one)
    is_over = threading.Event()

    def keep_saving(session: StoredSession) -> int:
        version = 1
        while not is_over.is_set():
            store.save(replace(session, version=version))
            version += 1
            assert loaded(store, session).version == version
        return version

    def move() -> None:
        try:
            for goal in (target, source):
                for one in sessions:
                    cluster.move_slot(slot_of(store, one), goal)
        finally:
            is_over.set()

    *versions, _ = race([*(partial(keep_saving, one) for one in sessions), move])
    assert [loaded(store, one).version for one in sessions] == versions
    assert store.destroy_all("alice") == 4


# Masters that die


def test_sessions_are_found_saved_and_ended_when_a_replica_has_taken_over(
    cluster: OwnCluster, store: RedisStore
) -> None:
    sessions = on_each(cluster, store, user="alice")
    failing = cluster.owner_of(slot_of(store, sessions[0]))
    failing.replicate()
    failing.kill()
    store.save(replace(sessions[0], version=1))  # it waits for the replica to be promoted
    assert [loaded(store, one).version for one in sessions] == [2, 1, 1]
    assert store.count() == 3
    assert store.destroy_all("alice") == 3
    failing.start()
    cluster.wait_until_whole()


def test_new_session_of_a_user_is_listed_on_a_replica_too_before_it_is_saved(
    cluster: OwnCluster, store: RedisStore
) -> None:
    """The list and the session are on different masters: if the list's dies, its replica must know the session."""
    index = store._user_key("alice")
    listing_on = cluster.owner_of(int(key_slot(index)))
    saved_on = next(one for one in cluster.masters() if one is not listing_on)
    session = session_on(cluster, store, saved_on, user="alice")
    (replica,) = cluster.replicas_of(listing_on)
    store.ping()  # so that it knows where everything is
    replica.freeze()
    saving = threading.Thread(target=store.save, args=(session,))
    saving.start()
    eventually(lambda: listing_on.client.zscore(index, session.id), "it is not listed")
    was_saved_too_soon = saved_on.client.exists(store._session_key(session.id))
    replica.thaw()
    saving.join(PATIENCE)
    assert not was_saved_too_soon
    assert store.find(user="alice") == [replace(session, version=1)]


def test_login_does_not_wait_for_a_replica_that_the_cluster_has_given_up(cluster: OwnCluster, prefix: str) -> None:
    store = RedisStore(cluster.url, prefix=prefix, timeout=0.5)
    listing_on = cluster.owner_of(int(key_slot(store._user_key("alice"))))
    (replica,) = cluster.replicas_of(listing_on)

    def waits() -> bool:
        with suppress(StoreUnavailable):
            store.save(new_session(user="alice"))
        return store._server.nodes.has_replica(listing_on.address)

    assert waits()
    replica.kill()
    eventually(lambda: not waits(), "it waits for a replica that is gone")
    replica.start()
    cluster.wait_until_whole()
    store.close()


def test_list_of_a_user_that_a_replica_has_taken_over_lacks_no_session(
    cluster: OwnCluster, store: RedisStore
) -> None:
    listing_on = cluster.owner_of(int(key_slot(store._user_key("alice"))))
    elsewhere = [one for one in cluster.masters() if one is not listing_on]
    sessions = [session_on(cluster, store, one, user="alice") for one in elsewhere * 10]
    for one in sessions:
        store.save(one)
    listing_on.kill()  # at once: what its replica lacks is lost
    assert store.destroy_all("alice") == 20
    listing_on.start()
    cluster.wait_until_whole()


def test_master_that_is_away_costs_no_more_than_the_timeout(cluster: OwnCluster, prefix: str) -> None:
    store = RedisStore(cluster.url, prefix=prefix, timeout=0.3)
    sessions = on_each(cluster, store)
    away = cluster.owner_of(slot_of(store, sessions[0]))
    away.freeze()
    try:
        with pytest.raises(StoreUnavailable):
            store.load(sessions[0].id)
    finally:
        away.thaw()
    cluster.wait_until_whole()
    assert loaded(store, sessions[0]).version == 1
    store.close()


def test_cluster_of_which_no_node_answers_is_unavailable_and_its_password_is_not_shown(closed_port: int) -> None:
    store = RedisStore(f"redis+cluster://shop:hunter2@127.0.0.1:{closed_port}", timeout=0.2)
    with pytest.raises(StoreUnavailable) as failure:
        store.load("0" * 64)
    assert f"127.0.0.1:{closed_port}" in str(failure.value)
    assert "hunter2" not in str(failure.value) + repr(failure.value.__cause__) + repr(store)
    store.close()


def test_server_that_is_no_cluster_is_unavailable_and_says_why() -> None:
    with own_redis() as server:
        store = RedisStore(f"redis+cluster://127.0.0.1:{server.port}", timeout=0.2)
        wait_until_it_says("cluster support disabled", store)
        store.close()


def test_node_of_a_cluster_that_is_taken_for_a_single_server_says_so(cluster: OwnCluster, prefix: str) -> None:
    store = RedisStore(cluster.masters()[0].url, prefix=prefix)
    elsewhere = session_on(cluster, store, cluster.masters()[-1])
    with pytest.raises(StoreUnavailable, match=r"begin the URL with redis\+cluster://"):
        store.load(elsewhere.id)
    store.close()


# Exceptions from outside, forks


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_move_between_masters_is_whole_or_can_be_done_again(cluster: OwnCluster, prefix: str) -> None:
    store = RedisStore(cluster.url, prefix=prefix, max_connections=2, timeout=5)
    session = new_session(user="alice")
    store.save(session)
    moves: list[StoredSession] = []

    def move() -> None:
        new = new_session(user="alice")
        moves.append(new)
        store.replace(replace(marker_of(session, new), version=session.version), new)

    for _ in interruptions(move, "prism_wsgi/stores/redis/server"):
        stored = loaded(store, session)
        if stored.superseded:
            assert stored.moved_to == moves[-1].id
            stored = loaded(store, moves[-1])
            assert stored.version == 1
        session = stored
    assert len(moves) > 20
    store.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruption_at_any_line_costs_no_connection_to_any_master_and_mixes_up_no_answers(
    cluster: OwnCluster, prefix: str
) -> None:
    store = RedisStore(cluster.url, prefix=prefix, max_connections=2, timeout=5)
    names = ("ada", "bob", "eve")
    sessions = [
        session_on(cluster, store, node, data=name.encode())
        for node, name in zip(cluster.masters(), names, strict=True)
    ]
    for one in sessions:
        store.save(one)

    def call() -> None:
        # It learns where the slots are as well.
        store._server.nodes.note_redirect(None)
        store.load(sessions[0].id)

    seen = 0
    for seen in interruptions(call, "stores/redis/cluster"):
        assert [loaded(store, one).data.decode() for one in sessions] == list(names), f"after line {seen}"
    assert seen > 20
    found = race([lambda one=one: loaded(store, one).data.decode() for one in sessions])  # type: ignore[misc]
    assert tuple(found) == names
    store.close()


def test_forked_child_and_parent_both_go_on(cluster: OwnCluster, store: RedisStore) -> None:
    sessions = on_each(cluster, store, data=b"0")
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for version in range(1, 21):
                for one in sessions:
                    store.save(replace(one, version=version, data=b"child"))
            os._exit(0)
        os._exit(1)
    others = on_each(cluster, store, data=b"parent")
    for _ in range(20):
        assert {loaded(store, one).data for one in others} == {b"parent"}
    assert os.waitpid(child, 0)[1] == 0
    assert {loaded(store, one).version for one in sessions} == {21}


def test_process_holds_no_more_connections_to_a_master_than_it_was_told(cluster: OwnCluster, prefix: str) -> None:
    store = RedisStore(cluster.url, prefix=prefix, max_connections=2)
    sessions = on_each(cluster, store)
    before = [len(one.client.client_list()) for one in cluster.masters()]
    work: list[Callable[[], object]] = [lambda: [loaded(store, one) for _ in range(20) for one in sessions]] * 6
    race(work)
    after = [len(one.client.client_list()) for one in cluster.masters()]
    assert all(now - then <= 1 for then, now in zip(before, after, strict=True))
    store.close()
