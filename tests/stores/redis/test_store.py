"""RedisStore beyond the contract: its keys, its index of users, what it costs, and what goes wrong with servers."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from prism_wsgi import ConfigError, RedisStore, StoredSession, StoreUnavailable
from prism_wsgi.stores.redis import scripts, server
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


def test_redis_forgets_a_session_ten_minutes_after_it_expired(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session = new_session()
    store.save(session)
    key = f"{redis_prefix}session:{session.id}"
    assert client.pexpiretime(key) == session.expires_at + 600_000
    store.touch(replace(session, version=1, expires_at=session.expires_at + 5000))
    assert client.pexpiretime(key) == session.expires_at + 605_000
    store.save(replace(session, version=1, expires_at=session.expires_at - 5000))
    assert client.pexpiretime(key) == session.expires_at + 595_000


def test_redis_forgets_a_marker_a_minute_after_it_expired(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, new = new_session(), new_session()
    store.save(session)
    store.replace(marker_of(session, new), new)
    assert client.pexpiretime(f"{redis_prefix}session:{session.id}") == session.expires_at + 60_000


# The index of users


def test_index_has_no_expiry_and_an_entry_outlasts_its_session(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, index = new_session(user="alice", actor="bob"), f"{redis_prefix}user=alice"
    store.save(session)
    store.touch(replace(session, version=1, expires_at=session.expires_at + 5000))
    forgotten_at = client.pexpiretime(f"{redis_prefix}session:{session.id}")
    for name in ("alice", "bob"):
        key = f"{redis_prefix}user={name}"
        assert client.pexpiretime(key) == -1
        assert (client.zscore(key, session.id) or 0) > forgotten_at
    listed_until = client.zscore(index, session.id)
    store.save(replace(session, version=1, expires_at=session.expires_at - 60_000))
    assert client.zscore(index, session.id) == listed_until, "it moved back"


def test_session_is_listed_before_it_is_saved_also_where_the_server_has_lost_its_scripts(
    store: RedisStore, client: "redis.Redis", redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")

    def spelled_unknown(command: server.Command, *, in_full: bool = False) -> server.Command:
        return ("EVALSHA", "0" * 40, 1, command[1]) if isinstance(command[0], server.Script) else command

    monkeypatch.setattr(server, "_spelled", spelled_unknown)
    with pytest.raises(StoreUnavailable, match="No matching script"):
        store.save(session)
    with pytest.raises(StoreUnavailable, match="No matching script"):
        store.replace(replace(marker_of(session, new), version=0), new)
    assert listed(client, redis_prefix, "alice") == {session.id, new.id}
    assert keys_of(client, redis_prefix) == ["user=alice"]


def test_save_under_way_is_not_taken_off_the_index(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    """Its entry is there before it is: neither a listing nor the end of all sessions may take it for an old one."""
    session, other = new_session(user="alice"), new_session(user="alice")
    store.save(other)
    client.zadd(f"{redis_prefix}user=alice", {session.id: session.expires_at + 660_000})
    assert [one.id for one in store.find(user="alice")] == [other.id]
    assert store.destroy_all("alice") == 1
    store.save(new_session(user="alice"))
    assert session.id in listed(client, redis_prefix, "alice")


def test_session_that_changes_hands_is_found_under_its_present_user_only(store: RedisStore) -> None:
    session = new_session(user="alice")
    store.save(session)
    store.save(replace(session, version=1, user="bob"))
    assert store.find(user="alice") == []
    assert store.count(user="alice") == 0
    assert store.destroy_all("alice") == 0
    assert [one.id for one in store.find(user="bob")] == [session.id]


def test_login_removes_entries_of_its_user_that_are_old_by_the_servers_clock(
    store: RedisStore, client: "redis.Redis", redis_prefix: str, clock: ManualClock
) -> None:
    index, now = f"{redis_prefix}user=alice", int(time.time() * 1000)
    client.zadd(index, {"a" * 64: now - 120_000, "b" * 64: now + 120_000})
    clock.advance(10**6)  # this worker's clock is wrong
    store.save(new_session(user="bob"))  # the server says what time it is
    session = new_session(user="alice")
    store.save(session)
    assert listed(client, redis_prefix, "alice") == {"b" * 64, session.id}


def test_logins_remove_the_indexes_of_users_who_never_come_back(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    for number in range(50):
        client.zadd(f"{redis_prefix}user=gone{number}", {"a" * 64: 1000})
    client.zadd(f"{redis_prefix}user=here", {"a" * 64: int(time.time() * 1000) + 60_000})
    client.set(f"{redis_prefix}user=other kind", "")
    keys, logins = int(client.dbsize()), 0
    while any("user=gone" in name for name in keys_of(client, redis_prefix)):
        logins += 1
        store.save(new_session(user=f"user{logins}"))
        assert logins < keys, "the look does not get around"
    assert listed(client, redis_prefix, "here") == {"a" * 64}


def test_all_sessions_of_a_user_end_also_where_there_are_many(store: RedisStore) -> None:
    sessions = [new_session(user="alice") for _ in range(1500)]
    for session in sessions:
        store.save(session)
    assert len(store.find(user="alice", limit=5000)) == store.count(user="alice") == 1500
    assert store.destroy_all("alice", except_id=sessions[7].id) == 1499
    assert [one.id for one in store.find_all()] == [sessions[7].id]


# Data of earlier releases


def put_as_before(
    client: "redis.Redis", prefix: str, session: StoredSession, *, moved_to: StoredSession | None = None
) -> None:
    """Store a session as releases before this did."""
    data = session.data if moved_to is None else bytes.fromhex(moved_to.id)
    user = "" if session.user is None else f"={session.user}"
    fields: Any = {"version": 1, "data": data, "created_at": session.created_at}
    fields |= {"expires_at": session.expires_at, "user": user, "superseded": int(moved_to is not None)}
    key, index = f"{prefix}session:{session.id}", f"{prefix}user{user}"
    client.hset(key, mapping=fields)
    client.pexpireat(key, session.expires_at + 60_000)
    if user and moved_to is None:
        client.zadd(index, {session.id: session.expires_at})
        client.pexpireat(index, session.expires_at + 60_000)


def test_sessions_of_earlier_releases_are_read_touched_listed_and_ended(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, anonymous = replace(new_session(user="alice"), last_seen_at=None), new_session()
    put_as_before(client, redis_prefix, session)
    put_as_before(client, redis_prefix, anonymous)
    stored = loaded(store, session)
    assert stored == replace(session, version=1)
    assert loaded(store, anonymous).user is None
    assert store.find(user="alice") == [stored]
    assert store.touch(replace(stored, expires_at=stored.expires_at + 1, last_seen_at=5))
    assert client.pexpiretime(f"{redis_prefix}user=alice") == -1
    store.save(replace(stored, data=b"new"))
    assert loaded(store, session).version == 2
    assert store.destroy_all("alice") == 1


def test_marker_of_an_earlier_release_leads_to_its_successor(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")
    put_as_before(client, redis_prefix, new)
    put_as_before(client, redis_prefix, session, moved_to=new)
    assert loaded(store, session).moved_to == new.id
    store.destroy(session.id)
    assert store.load(new.id) is None


# Listings


def test_stores_of_different_prefixes_do_not_see_each_other(store: RedisStore, redis_prefix: str) -> None:
    other = RedisStore(REDIS, prefix=f"{redis_prefix}[*]:")
    session = new_session(user="alice")
    other.save(session)
    assert store.load(session.id) is None
    assert store.find(user="alice") == store.find_all() == []
    assert [one.id for one in other.find_all()] == [session.id]
    assert other.stats().live == 1
    other.close()


def test_all_sessions_are_listed_in_pages_and_counted_beyond_one_batch(store: RedisStore) -> None:
    sessions = [new_session() for _ in range(1100)]
    for session in sessions:
        store.save(session)
    ids = sorted(session.id for session in sessions)
    first = store.find_all(limit=600)
    rest = store.find_all(limit=600, after=first[-1].id)
    assert [one.id for one in first + rest] == ids
    assert store.stats().live == store.count() == 1100
    assert store.estimate() >= 1100


def test_key_of_another_kind_or_form_hides_no_session(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    client.set(f"{redis_prefix}session:{'a' * 64}", "somebody else's")
    client.hset(f"{redis_prefix}session:{'b' * 64}", mapping={"data": b"", "version": "x"})
    client.hset(f"{redis_prefix}session:\x1b[2J", mapping={"data": b"", "version": 1})
    session = new_session(user="alice")
    store.save(session)
    client.zadd(f"{redis_prefix}user=alice", {b"a" * 64: 9e15, b"b" * 64: 9e15, b"\xff": 9e15})
    assert store.find_all() == store.find(user="alice") == [replace(session, version=1)]
    assert store.count() == store.stats().live == 1
    assert store.load("b" * 64) is None


# What it costs


def test_each_verb_of_a_request_is_one_round_trip_and_a_login_tidies_up_in_another(
    redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    client = redis.Redis.from_url(REDIS, protocol=2)
    store = RedisStore(client, prefix=redis_prefix)

    def verbs() -> list[Callable[[], object]]:
        session, new = new_session(user="alice"), new_session(user="alice")
        return [
            lambda: store.save(session),
            lambda: store.load(session.id),
            lambda: store.touch(replace(session, version=1, expires_at=session.expires_at + 1)),
            lambda: store.save(replace(session, version=1)),
            lambda: store.replace(replace(marker_of(session), version=2), new),
            lambda: store.destroy(new.id),
        ]

    for verb in verbs():
        verb()  # now every script is known to the server
    send = redis.Connection.send_packed_command

    def counting(self: "redis.Connection", command: list[bytes], check_health: bool = True) -> None:
        asked.append(re.findall(r"\*\d+\r\n\$\d+\r\n([A-Z]+)", b"".join(command).decode("latin-1")))
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(redis.Connection, "send_packed_command", counting)
    while not asked or any(words[0] == "EVAL" for words in asked):  # another test made the server forget them
        asked.clear()
        for verb in verbs():
            verb()
    listing, upkeep = ["ZADD", "PERSIST"], ["ZREMRANGEBYSCORE", "TIME", "SCAN"]
    seen = [[word for word in words if word != "ECHO"] for words in asked]
    for words in seen:
        del words[1 : len(words) - 2 if "SCAN" in words else 0]  # the look has found indexes of others
    assert seen == [
        [*listing, "EVALSHA"],
        upkeep,
        ["HGETALL"],
        [*listing, "EVALSHA"],
        [*listing, "EVALSHA"],
        [*listing, "EVALSHA", "EVALSHA"],
        upkeep,
        ["EVALSHA"],
    ]
    client.close()


@pytest.mark.parametrize("script", [scripts.SAVE, scripts.UNDO, scripts.TOUCH, scripts.END])
def test_each_script_names_no_key_but_the_one_it_is_given(script: server.Script) -> None:
    """Redis Cluster then knows where it belongs."""
    calls = re.findall(r"redis\.call\('(\w+)'(?:, (\S+?))?[,)]", script.source)
    assert calls
    assert {key for _, key in calls} == {"KEYS[1]"}


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


def test_save_whose_answer_was_lost_is_not_taken_for_a_rivals(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_session(user="alice")
    lose_the_next_answer(store, monkeypatch)
    store.save(session)
    assert loaded(store, session).version == 1


def test_move_whose_answer_was_lost_is_not_taken_for_a_rivals(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    lose_the_next_answer(store, monkeypatch)
    store.replace(marker_of(session, new), new)
    assert loaded(store, session).moved_to == new.id
    assert loaded(store, new).version == 1


def test_half_a_move_is_undone_and_done_again(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    session, new = new_session(user="alice"), new_session(user="alice")
    store.save(session)
    store.save(new)  # the connection broke behind the first of the two
    lose_the_next_answer(store, monkeypatch, before_sending=True)
    store.replace(marker_of(session, new), new)
    assert loaded(store, session).moved_to == new.id
    assert loaded(store, new).version == 1


def test_move_whose_new_session_could_not_be_saved_leaves_the_old_one_as_it_was(
    store: RedisStore, client: "redis.Redis", redis_prefix: str
) -> None:
    session, new = replace(new_session(user="alice"), device_key=b"key"), new_session(user="alice")
    store.save(session)
    key = f"{redis_prefix}session:{session.id}"
    before = client.hgetall(key), client.pexpiretime(key)
    client.set(f"{redis_prefix}session:{new.id}", "somebody else's")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.replace(marker_of(session, new), new)
    assert (client.hgetall(key), client.pexpiretime(key)) == before


def test_answers_for_another_question_are_not_used(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, others = new_session(data=b"mine"), new_session(data=b"others")
    store.save(mine)
    store.save(others)
    with store._server.nodes.connections(None).acquire() as lease:
        key = f"{store._prefix}session:{others.id}"
        lease.connection.send_command("HGETALL", key)  # whoever asked has not read the answer
    assert loaded(store, mine).data == b"mine"


@pytest.mark.whole
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


@pytest.mark.whole
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


@pytest.mark.whole
def test_without_redis_py_everything_else_can_be_imported_by_a_star() -> None:
    program = """
import sys
sys.modules["redis"] = None
from prism_wsgi import *
print(MemoryStore.__name__, "RedisStore" in globals())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "MemoryStore False\n"


@pytest.mark.whole
def test_importing_prism_wsgi_does_not_import_redis() -> None:
    program = "import sys, prism_wsgi; print('redis' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def kill_connections_of(store: RedisStore, client: "redis.Redis") -> None:
    with store._server.nodes.connections(None).acquire() as lease:
        port = lease.connection._sock.getsockname()[1]
    client.client_kill_filter(addr=f"127.0.0.1:{port}")


def lose_the_next_answer(store: RedisStore, monkeypatch: pytest.MonkeyPatch, *, before_sending: bool = False) -> None:
    """Let the connection break after the next commands were carried out, or before."""
    store.load("0" * 64)
    talk = store._server._talk

    def talk_and_lose(connection: Any, commands: Any) -> Any:
        monkeypatch.undo()
        if not before_sending:
            talk(connection, commands)
        raise redis.ConnectionError("Connection closed by server.")

    monkeypatch.setattr(store._server, "_talk", talk_and_lose)
