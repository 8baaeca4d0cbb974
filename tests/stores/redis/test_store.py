"""RedisStore beyond the contract: its keys, its index of users, what it costs, and what goes wrong with servers."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from prism_wsgi import ConfigError, RedisStore, StoreUnavailable
from prism_wsgi.testing import ManualClock, loaded, marker_of, new_session, race
from tests.support.databases import REDIS


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(redis_prefix: str, clock: ManualClock) -> Iterator[RedisStore]:
    store = RedisStore(REDIS, prefix=redis_prefix, clock=clock)
    yield store
    store.close()


@pytest.fixture
def client() -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(REDIS, protocol=2) as client:
        yield client


def keys_of(client: "redis.Redis", prefix: str) -> list[str]:
    return sorted(name.decode().removeprefix(prefix) for name in client.scan_iter(f"{prefix}*", count=1000))


def listed(client: "redis.Redis", prefix: str, user: str) -> set[str]:
    """The ids in the index of a user, whether or not those sessions are there."""
    names: Any = client.zrange(f"{prefix}user={user}", 0, -1)
    return {name.decode() for name in names}


# Expiry


def test_redis_deletes_a_session_a_minute_after_it_expired(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session = new_session(user="alice")
    store.save(session)
    for key in (f"session:{session.id}", "user=alice"):
        assert client.pexpiretime(redis_prefix + key) == session.expires_at + 60_000
    store.touch(session.id, session.expires_at + 5000)
    for key in (f"session:{session.id}", "user=alice"):
        assert client.pexpiretime(redis_prefix + key) == session.expires_at + 65_000


def test_list_of_a_user_lives_as_long_as_the_last_of_the_sessions(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    longer, shorter = new_session(user="alice"), new_session(user="alice")
    longer.expires_at += 1000
    store.save(longer)
    store.save(shorter)
    assert client.pexpiretime(f"{redis_prefix}user=alice") == longer.expires_at + 60_000


# The index of users


def test_ended_session_leaves_no_key_behind(store: RedisStore, client: "redis.Redis", redis_prefix: str) -> None:
    session = new_session(user="alice")
    store.save(session)
    assert keys_of(client, redis_prefix) == [f"session:{session.id}", "user=alice"]
    store.destroy(session.id)
    assert keys_of(client, redis_prefix) == []


def test_regenerated_session_is_listed_under_its_new_id_only(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    store.replace(marker_of(session), new)
    assert listed(client, redis_prefix, "alice") == {new.id}


def test_session_that_changes_hands_changes_lists(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session = new_session(user="alice")
    store.save(session)
    store.save(replace(session, version=1, user="bob"))
    assert listed(client, redis_prefix, "alice") == set()
    assert listed(client, redis_prefix, "bob") == {session.id}


def test_list_of_a_user_does_not_keep_what_expired(
    store: RedisStore, client: "redis.Redis", redis_prefix: str, clock: ManualClock
) -> None:
    for _ in range(20):
        session = new_session(user="alice", expires_at=int(clock() * 1000) + 1000)
        store.save(session)
        clock.advance(120)
    assert listed(client, redis_prefix, "alice") == {session.id}


def test_listed_session_that_is_gone_is_taken_off_the_list_when_met(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, gone = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    store.save(gone)
    client.delete(f"{redis_prefix}session:{gone.id}")  # as Redis does when it expires
    assert [one.id for one in store.find(user="alice")] == [session.id]
    assert listed(client, redis_prefix, "alice") == {session.id}


def test_stores_of_different_prefixes_do_not_see_each_other(store: RedisStore, redis_prefix: str) -> None:
    other = RedisStore(REDIS, prefix=f"{redis_prefix}[*]:")
    session = new_session(user="alice")
    other.save(session)
    assert store.load(session.id) is None
    assert store.find(user="alice") == store.find() == []
    assert [one.id for one in other.find()] == [session.id]
    assert other.stats().live == 1
    other.close()


def test_all_sessions_are_listed_in_pages_and_counted_beyond_one_batch(store: RedisStore) -> None:
    sessions = [new_session() for _ in range(1100)]
    for session in sessions:
        store.save(session)
    ids = sorted(session.id for session in sessions)
    first = store.find(limit=600)
    rest = store.find(limit=600, after=first[-1].id)
    assert [one.id for one in first + rest] == ids
    assert store.stats().live == 1100


# What it costs


def test_each_verb_of_a_request_is_one_round_trip(redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    client = redis.Redis.from_url(REDIS, protocol=2)
    store = RedisStore(client, prefix=redis_prefix)
    session, new = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    store.touch(session.id, session.expires_at + 1)
    store.replace(marker_of(session), new)
    store.find(user="alice")
    store.destroy(new.id)
    store.destroy_all("alice")  # now every script is known to the server
    send = redis.Connection.send_packed_command

    def counting(self: "redis.Connection", command: list[bytes], check_health: bool = True) -> None:
        asked.append(b"".join(command).split(b"\r\n")[2].decode())
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(redis.Connection, "send_packed_command", counting)
    session, new = new_session(user="alice"), new_session(user="alice")
    verbs: list[Callable[[], object]] = [
        lambda: store.save(session),
        lambda: store.load(session.id),
        lambda: store.touch(session.id, session.expires_at + 1),
        lambda: store.replace(marker_of(session), new),
        lambda: store.find(user="alice"),
        lambda: store.destroy(new.id),
        lambda: store.destroy_all("alice"),
    ]
    counts = []
    for verb in verbs:
        asked.clear()
        verb()
        counts.append(list(asked))
    assert counts == [["EVALSHA"], ["HMGET"], *[["EVALSHA"]] * 5]
    client.close()


# Servers that fail


def test_scripts_that_the_server_has_forgotten_are_sent_again(store: RedisStore, client: "redis.Redis") -> None:
    session = new_session()
    store.save(session)
    client.script_flush()
    store.save(replace(session, version=1, data=b"again"))
    assert loaded(store, session).data == b"again"


def test_connection_that_the_server_closed_is_replaced(store: RedisStore, client: "redis.Redis") -> None:
    session = new_session()
    store.save(session)
    kill_connections_of(store, client)
    store.save(replace(session, version=1))
    kill_connections_of(store, client)
    assert loaded(store, session).version == 2


def test_save_whose_answer_was_lost_is_not_taken_for_a_rivals(store: RedisStore, client: "redis.Redis") -> None:
    session = new_session()
    save, answers_lost = store._save, 0

    def save_and_lose_the_answer(keys: Any, arguments: Any) -> object:
        nonlocal answers_lost
        save(keys, arguments)
        answers_lost += 1
        raise redis.ConnectionError("Connection closed by server.")

    store._save = save_and_lose_the_answer  # type: ignore[assignment]
    store.save(session)
    assert answers_lost == 1
    assert loaded(store, session).version == 1


@pytest.mark.parametrize("listens", [True, False], ids=["no answer", "nobody there"])
def test_server_that_does_not_answer_is_unavailable_and_its_password_is_not_shown(listens: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not listens:
            listener.close()
        store = RedisStore(f"redis://shop:hunter2@127.0.0.1:{port}/0", timeout=0.2)
        with pytest.raises(StoreUnavailable) as failure:
            store.load(new_session().id)
        assert f"127.0.0.1:{port}/0" in str(failure.value)
        assert "hunter2" not in str(failure.value) + repr(failure.value.__cause__) + repr(store)
        store.close()


def test_value_of_another_kind_under_a_key_of_ours_is_an_error_of_the_store(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session = new_session()
    client.set(f"{redis_prefix}session:{session.id}", "somebody else's")
    verbs: list[Callable[[], object]] = [lambda: store.load(session.id), lambda: store.save(session)]
    for verb in verbs:
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            verb()


def test_forked_child_and_parent_both_go_on(store: RedisStore) -> None:
    session = new_session(data=b"0")
    store.save(session)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for version in range(1, 51):
                store.save(replace(session, version=version, data=b"child"))
            os._exit(0)
        os._exit(1)
    other = new_session(data=b"parent")
    for version in range(50):
        store.save(replace(other, version=version))
        assert loaded(store, other).data == b"parent"
    assert os.waitpid(child, 0)[1] == 0
    assert loaded(store, session).version == 51


def test_many_threads_share_a_store(store: RedisStore) -> None:
    def work() -> None:
        for _ in range(25):
            session = new_session(user="alice")
            store.save(session)
            assert loaded(store, session).id == session.id

    assert set(race([work] * 8)) == {None}
    assert len(store.find(user="alice", limit=1000)) == 200


# Settings


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RedisStore("http://localhost"), "url_or_client must be a URL such as redis://"),
        (lambda: RedisStore("redis://shop:hun/ter2@localhost"), "url_or_client must be a URL such as redis://"),
        (lambda: RedisStore(cast(str, 6379)), "url_or_client must be a URL or a redis.Redis, not int"),
        (lambda: RedisStore(redis.Redis(decode_responses=True)), "url_or_client must not decode responses"),
        (lambda: RedisStore(REDIS, timeout=0), "timeout must be a positive number of seconds"),
        (lambda: RedisStore(REDIS, prefix=""), "prefix must be printable text"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_the_password(
    make: Callable[[], RedisStore], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as refusal:
        make()
    assert "ter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_client_of_the_application_stays_open(redis_prefix: str, client: "redis.Redis") -> None:
    store = RedisStore(client, prefix=redis_prefix)
    store.save(new_session())
    store.close()
    assert client.ping()
    assert repr(store) == "<RedisStore 127.0.0.1:6379/15>" or "PRISM_TEST_REDIS" in os.environ


def test_without_redis_py_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["redis"] = None
import prism_wsgi
try:
    prism_wsgi.RedisStore
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == 'RedisStore needs redis-py; install it: pip install "prism_wsgi[redis]"\n'


def test_importing_prism_wsgi_does_not_import_redis() -> None:
    program = "import sys, prism_wsgi; print('redis' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def kill_connections_of(store: RedisStore, client: "redis.Redis") -> None:
    for connection in list(store._client.connection_pool._available_connections):
        port = connection._sock.getsockname()[1]
        client.client_kill_filter(addr=f"127.0.0.1:{port}")
