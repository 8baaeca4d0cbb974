"""RedisStore behind Sentinel: a master with a replica, and three sentinels that promote it."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from prism_wsgi import RedisStore, SessionStore, StoreUnavailable
from prism_wsgi.stores.redis import sentinel
from prism_wsgi.testing import ManualClock, StoreContract, loaded, new_session, race
from tests.support.interrupting import interruptions
from tests.support.own_redis import Watched, own_redis, wait_until_it_says
from tests.support.waiting import PATIENCE, eventually

pytest_plugins = ["tests.support.redis_fixtures"]
pytestmark = pytest.mark.whole  # they start servers


@pytest.fixture
def store(watched: Watched, prefix: str) -> Iterator[RedisStore]:
    store = RedisStore(watched.url, prefix=prefix, timeout=PATIENCE)
    yield store
    store.close()


class TestContract(StoreContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, watched: Watched, prefix: str, clock: ManualClock) -> Iterator[SessionStore]:
        store = RedisStore(watched.url, prefix=prefix, clock=clock, timeout=PATIENCE)
        yield store
        store.close()


# Masters that change


def test_sessions_are_found_saved_and_ended_when_the_replica_has_taken_over(
    watched: Watched, store: RedisStore
) -> None:
    session, failing = new_session(user="alice"), watched.master
    store.save(session)
    failing.replicate()
    failing.kill()
    store.save(replace(session, version=1))  # it waits for the replica to be promoted
    assert loaded(store, session).version == 2
    assert store.destroy_all("alice") == 1
    watched.bring_back(failing)


def test_store_follows_a_master_that_hands_over_while_it_lives(watched: Watched, store: RedisStore) -> None:
    session, before = new_session(), watched.master
    store.save(session)
    before.replicate()  # what no replica has is lost with the master
    watched.hand_over()
    store.save(replace(session, version=1))
    assert loaded(store, session).version == 2
    assert watched.master is not before
    assert watched.master.client.exists(store._session_key(session.id))


def test_old_master_that_comes_back_unaware_is_not_used(
    watched: Watched, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections to it live, and it says that it is a master: only the sentinels know better."""
    monkeypatch.setattr(sentinel, "LOOK_SECONDS", 0.0)
    session, old = new_session(), watched.master
    store.save(session)
    old.replicate()
    old.freeze()
    eventually(
        lambda: watched.named() not in ({old.port}, set()) and len(watched.named()) == 1, "nothing was promoted"
    )
    new = watched.master
    for one in watched.sentinels:
        one.freeze()  # they would tell the old master at once
    old.thaw()
    assert old.role() == "master"
    watched.sentinels[0].thaw()
    store.save(replace(session, version=1))
    assert new.client.hget(store._session_key(session.id), "version") == b"2"
    for one in watched.sentinels[1:]:
        one.thaw()
    watched.bring_back(old, is_alive=True)


def test_replica_that_a_sentinel_takes_for_the_master_is_not_used(watched: Watched, prefix: str) -> None:
    master = watched.master
    replica = next(one for one in watched.servers if one is not master)
    with own_redis(is_sentinel=True) as mistaken, own_redis(is_sentinel=True) as right:
        # Under a name of their own: the other sentinels would correct the first.
        mistaken.say("SENTINEL MONITOR", "stale", *replica.address, 2)
        right.say("SENTINEL MONITOR", "stale", *master.address, 2)
        url = f"redis+sentinel://127.0.0.1:{mistaken.port}"
        store = RedisStore(f"{url}/stale", prefix=prefix, timeout=0.2)
        wait_until_it_says("is a slave, not the master of stale", store)
        store.close()
        store = RedisStore(f"{url},127.0.0.1:{right.port}/stale", prefix=prefix, timeout=PATIENCE)
        session = new_session()
        store.save(session)
        assert loaded(store, session).version == 1
        store.close()


# Sentinels that fail


def test_sentinels_that_do_not_answer_are_passed_over(watched: Watched, prefix: str, closed_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        first = f"//127.0.0.1:{closed_port},127.0.0.1:{silent.getsockname()[1]},"
        store = RedisStore(watched.url.replace("//", first, 1), prefix=prefix)
        session = new_session()
        store.save(session)
        assert loaded(store, session).version == 1
        store.close()


def test_master_that_answers_is_used_while_no_sentinel_does(
    watched: Watched, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sentinel, "_QUICK_SECONDS", 0.05)
    session = new_session()
    store.save(session)
    for one in watched.sentinels:
        one.freeze()
    store.save(replace(session, version=1))
    for one in watched.sentinels:
        one.thaw()
    assert loaded(store, session).version == 2


def test_service_that_no_sentinel_knows_is_unavailable_and_says_so(watched: Watched) -> None:
    store = RedisStore(watched.url.replace("/shop", "/other"), timeout=0.2)
    wait_until_it_says("they know no master of this name", store)
    store.close()


def test_sentinels_that_are_all_away_are_unavailable_and_no_password_is_shown(closed_port: int) -> None:
    store = RedisStore(
        f"redis+sentinel://shop:hunter2@127.0.0.1:{closed_port}/shop?sentinel_password=hunter3", timeout=0.2
    )
    with pytest.raises(StoreUnavailable) as failure:
        store.load("0" * 64)
    assert f"127.0.0.1:{closed_port}" in str(failure.value)
    assert "hunter" not in str(failure.value) + repr(failure.value.__cause__) + repr(store)
    store.close()


def test_master_and_sentinels_have_passwords_of_their_own(prefix: str) -> None:
    with own_redis() as master, own_redis(is_sentinel=True) as watcher:
        watcher.say("SENTINEL MONITOR", "shop", *master.address, 1)
        watcher.say("SENTINEL SET", "shop", "auth-pass", "p@ss:1")
        master.say("CONFIG SET", "requirepass", "p@ss:1")
        watcher.say("ACL", "SETUSER", "default", "resetpass", ">p&ss2")
        url = f"redis+sentinel://:p%40ss%3A1@127.0.0.1:{watcher.port}/shop/3?sentinel_password=p%26ss2"
        store, session = RedisStore(url, prefix=prefix), new_session()
        store.save(session)
        assert loaded(store, session).version == 1
        assert master.say("INFO", "keyspace")["db3"]["keys"] == 1
        store.close()
        for wrong in (url.replace("ss%3A1", "x"), url.replace("ss2", "x")):
            refused = RedisStore(wrong, prefix=prefix, timeout=0.2)
            wait_until_it_says("AuthenticationError", refused)
            refused.close()


# Exceptions from outside, forks


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruption_at_any_line_of_finding_the_master_costs_no_connection(watched: Watched, prefix: str) -> None:
    store = RedisStore(watched.url, prefix=prefix, max_connections=2, timeout=5)
    sessions = [new_session(data=name) for name in (b"ada", b"bob")]
    for session in sessions:
        store.save(session)

    def call() -> None:
        store._server.nodes.connections(None).drop_idle()
        store.load(sessions[0].id)

    seen = 0
    for seen in interruptions(call, "prism_wsgi/stores/redis"):
        assert [loaded(store, one).data for one in sessions] == [b"ada", b"bob"], f"after line {seen}"
    assert seen > 20
    found = race([lambda one=one: loaded(store, one).data for one in sessions])  # type: ignore[misc]
    assert found == [b"ada", b"bob"]
    store.close()


def test_forked_child_and_parent_both_go_on(store: RedisStore) -> None:
    session, other = new_session(data=b"0"), new_session(data=b"parent")
    for one in (session, other):
        store.save(one)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for version in range(1, 21):
                store.save(replace(session, version=version, data=b"child"))
            os._exit(0)
        os._exit(1)
    for _ in range(20):
        assert loaded(store, other).data == b"parent"
    assert os.waitpid(child, 0)[1] == 0
    assert loaded(store, session).version == 21
