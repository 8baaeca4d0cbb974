"""What goes wrong around RedisStore: exceptions from outside; servers that are full, or give few connections."""

import gc
import itertools
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import redis

from prism_wsgi import ConfigError, RedisStore, StoredSession, StoreUnavailable
from prism_wsgi.testing import loaded, marker_of, new_session, race
from tests.support.databases import REDIS
from tests.support.interrupting import Interrupted, interruptions
from tests.support.own_redis import own_redis

pytestmark = pytest.mark.whole  # they start servers


@pytest.fixture
def own_url() -> Iterator[str]:
    """The URL of a server of the test's own, whose settings it may change."""
    with own_redis() as server:
        yield server.url


@pytest.fixture(params=["own connections", "the application's client"])
def make_store(request: pytest.FixtureRequest, redis_prefix: str) -> Iterator[Callable[[], RedisStore]]:
    """Makes a store of two connections, each way."""
    pool = redis.BlockingConnectionPool.from_url(REDIS, max_connections=2, timeout=1)
    own = request.param == "own connections"
    yield (
        lambda: (
            RedisStore(REDIS, prefix=redis_prefix, max_connections=2, timeout=1)
            if own
            else RedisStore(redis.Redis(connection_pool=pool), prefix=redis_prefix, timeout=1)
        )
    )
    pool.disconnect()


# Exceptions from outside


def settled(store: RedisStore, session: StoredSession) -> StoredSession:
    """Return what is stored; a connection that hangs in a cycle of garbage is not lost."""
    try:
        return loaded(store, session)
    except StoreUnavailable:
        gc.collect()
        return loaded(store, session)


# A signal inside redis-py's `connect` leaves a socket to the garbage collector, which closes it with a warning.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruption_at_any_line_costs_no_connection_and_mixes_up_no_answers(
    make_store: Callable[[], RedisStore],
) -> None:
    store, sessions = make_store(), [new_session(user=name, data=name.encode()) for name in ("ada", "bob")]
    for session in sessions:
        store.save(session)
    calls: list[Callable[[], object]] = [
        lambda: store.load(sessions[0].id),
        lambda: store.save(new_session(user="ada")),
    ]
    for call in calls:
        seen = 0
        for seen in interruptions(call, "prism_wsgi/stores"):
            assert [settled(store, one).data for one in sessions] == [b"ada", b"bob"], f"after line {seen}"
        assert seen > 20
        found = race([lambda one=one: loaded(store, one).data for one in sessions])  # type: ignore[misc]
        assert found == [b"ada", b"bob"]
    store.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_move_is_whole_or_can_be_done_again(make_store: Callable[[], RedisStore]) -> None:
    store = make_store()
    session = new_session(user="ada")
    store.save(session)

    def move() -> None:
        new = new_session(user="ada")
        moves.append(new)
        store.replace(replace(marker_of(session, new), version=session.version), new)

    moves: list[StoredSession] = []
    for _ in interruptions(move, "prism_wsgi/stores"):
        stored = settled(store, session)
        if stored.superseded:
            assert stored.moved_to == moves[-1].id
            stored = settled(store, moves[-1])
            assert stored.version == 1
        session = stored
    assert len(moves) > 20
    store.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_signals_at_random_moments_cost_no_connection_and_mix_up_no_answers(own_url: str) -> None:
    # On a server of its own: where anybody else empties or restarts a shared one, its sessions are gone as well.
    store = RedisStore(own_url, max_connections=2, timeout=10)
    sessions = [new_session(data=b"%d" % number) for number in range(10)]
    for session in sessions:
        store.save(session)

    raised: list[int] = []

    def interrupt(*_: object) -> None:
        raised.append(1)
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(100):
            with suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.00002 * (number % 50))
                for session in itertools.cycle(sessions):
                    assert loaded(store, session).data == session.data
                    if len(raised) > number:
                        break  # Python swallows what is raised in a `__del__` that the garbage collector calls
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    both = race([lambda one=one: loaded(store, one).data for one in sessions[:2]])  # type: ignore[misc]
    assert both == [b"0", b"1"]
    store.close()


# Connections


def test_server_that_gives_few_connections_is_waited_for(own_url: str) -> None:
    store, session = RedisStore(own_url, timeout=10), new_session()
    store.save(session)
    with redis.Redis.from_url(own_url) as client:
        client.config_set("maxclients", 4)

        def work() -> None:
            for _ in range(20):
                assert loaded(store, session).id == session.id

        assert set(race([work] * 12)) == {None}
    store.close()


def test_process_holds_no_more_connections_than_it_was_told_and_gives_idle_ones_back(own_url: str) -> None:
    store, session = RedisStore(own_url, max_connections=3, max_idle=0.3), new_session()
    store.save(session)
    race([lambda: [loaded(store, session) for _ in range(20)]] * 8)
    with redis.Redis.from_url(own_url) as client:
        assert 1 < len(client.client_list()) <= 3 + 1
        time.sleep(0.5)  # longer than they may idle
        loaded(store, session)
        deadline = time.monotonic() + 10
        while len(client.client_list()) > 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    store.close()


# Servers that take no writes, and evict


def test_ping_finds_a_server_that_takes_no_writes(own_url: str) -> None:
    port = own_url.split(":")[2].split("/")[0]
    with own_redis("--replicaof", "127.0.0.1", port) as replica:
        store = RedisStore(replica.url)
        with pytest.raises(StoreUnavailable, match="ReadOnly"):
            store.ping()
        store.close()
    store = RedisStore(own_url)
    store.ping()
    with redis.Redis.from_url(own_url) as client:
        assert client.dbsize() == 0
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            store.ping()
    store.close()


def test_master_without_the_replicas_that_it_must_have_is_read_and_says_that_it_saves_nothing(own_url: str) -> None:
    store, session = RedisStore(own_url), new_session(user="alice")
    store.save(session)
    with redis.Redis.from_url(own_url) as client:
        client.config_set("min-replicas-to-write", 1)
        verbs: list[Callable[[], object]] = [
            lambda: store.save(replace(session, version=1)),
            lambda: store.destroy(session.id),
            store.ping,
        ]
        for verb in verbs:
            with pytest.raises(StoreUnavailable, match="Not enough good replicas"):
                verb()
        assert loaded(store, session).version == 1
    store.close()


def test_full_server_loads_and_ends_sessions_and_says_that_it_saves_none(own_url: str) -> None:
    store, session, new = RedisStore(own_url), new_session(user="alice"), new_session(user="alice")
    store.save(session)
    with redis.Redis.from_url(own_url) as client:
        client.config_set("maxmemory", 1)
        verbs: list[Callable[[], object]] = [
            lambda: store.save(replace(session, version=1)),
            lambda: store.touch(replace(session, version=1)),
            lambda: store.replace(marker_of(session, new), new),
        ]
        for verb in verbs:
            with pytest.raises(StoreUnavailable, match="OutOfMemory"):
                verb()
        assert loaded(store, session).version == 1
        assert store.load(new.id) is None
        store.destroy(session.id)
        assert store.load(session.id) is None
    store.close()


def test_server_that_evicts_any_key_is_warned_of_once_and_not_trusted_with_the_end_of_all_sessions(
    own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(own_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    store = RedisStore(own_url)
    session = new_session(user="alice")
    store.save(session)
    with pytest.raises(ConfigError, match="allow_eviction=True"):
        store.destroy_all("alice")
    assert loaded(store, session).version == 1
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "allkeys-lru" in warnings[0]
    trusting = RedisStore(own_url, allow_eviction=True)
    assert trusting.destroy_all("alice") == 1
    store.close()
    trusting.close()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_server_that_evicts_nothing_without_an_expiry_is_fine(
    own_url: str, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    with redis.Redis.from_url(own_url) as client:
        client.config_set("maxmemory-policy", policy)
    store = RedisStore(own_url)
    store.save(new_session(user="alice"))
    assert store.destroy_all("alice") == 1
    assert store.eviction_policy == policy
    assert not caplog.records
    store.close()


def test_server_that_does_not_say_its_policy_is_used_all_the_same(
    own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(own_url) as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">pass", "~*", "+@all", "-info", "-config")
    store = RedisStore(own_url.replace("//", "//shop:pass@"))
    store.save(new_session(user="alice"))
    assert store.destroy_all("alice") == 1
    assert store.eviction_policy is None
    assert not caplog.records
    store.close()


def test_error_of_a_server_shows_no_data(own_url: str) -> None:
    with redis.Redis.from_url(own_url) as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">pass", "~*", "+@all", "-evalsha")
    store = RedisStore(own_url.replace("//", "//shop:pass@"))
    with pytest.raises(StoreUnavailable) as failure:
        store.save(new_session(data=b"confidential"))
    assert "confidential" not in str(failure.value)
    store.close()


def test_end_of_many_sessions_does_not_stop_the_server(own_url: str) -> None:
    store = RedisStore(own_url)
    with redis.Redis.from_url(own_url) as client:
        sessions = [new_session(user="alice", data=b"") for _ in range(5_000)]
        with client.pipeline(transaction=False) as pipeline:
            for one in sessions:
                fields = {"version": 1, "data": b"", "created_at": 1, "expires_at": one.expires_at, "user": "=alice"}
                pipeline.hset(f"prism:session:{one.id}", mapping=fields)
            pipeline.zadd("prism:user=alice", {one.id: one.expires_at + 660_000 for one in sessions})
            pipeline.execute()
        client.config_resetstat()
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 100_000)
        client.slowlog_reset()
        assert store.destroy_all("alice") == 5_000
        slowest = max(client.slowlog_get(100_000), key=lambda entry: entry["duration"])
        assert len(client.slowlog_get(100_000)) > 5_000, "each is ended by a command of its own"
        assert b"session:" in slowest["command"] or len(slowest["command"]) < 200_000
        assert client.exists("prism:user=alice") == 0
    store.close()
