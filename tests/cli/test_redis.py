"""The command line with the URL of a Redis."""

import json
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from prism_wsgi import RedisStore, Session, StoredSession
from tests.support import databases
from tests.support.browsing import Clock, Site
from tests.support.command_line import HOUR, run, session_id
from tests.support.own_redis import OwnCluster, Watched

pytest_plugins = ["tests.support.redis_fixtures"]
pytestmark = pytest.mark.whole

DATABASE = 14
"""One of its own: the command line has no prefix, so that the tests empty what they use."""


@pytest.fixture
def url(redis_prefix: str) -> Iterator[str]:
    address = databases.REDIS.rpartition("/")[0] + f"/{DATABASE}"
    with closing(redis.Redis.from_url(address, protocol=2)) as client:
        client.flushdb()
        yield address
        client.flushdb()


def keep(url: str, number: int, *, user: str | None = None, began: float = 1) -> None:
    now = int(time.time() * 1000)
    stored = StoredSession(session_id(number), b"data", 0, now - int(began * 1000), now + HOUR * 1000, user)
    with closing(RedisStore(url)) as store:
        store.save(stored)


def listed(url: str, *options: str) -> list[str]:
    lines = run("sessions", "list", "--json", "--url", url, *options).stdout.splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_sessions_are_listed_and_narrowed(url: str) -> None:
    keep(url, 1, user="ada", began=2 * HOUR)
    keep(url, 2, user="ada")
    keep(url, 3)
    assert listed(url) == [session_id(1), session_id(2), session_id(3)]
    assert listed(url, "--user", "ada") == [session_id(1), session_id(2)]
    assert listed(url, "--older-than", str(HOUR)) == [session_id(1)]
    assert listed(url, "--limit", "1", "--after", session_id(1)) == [session_id(2)]


def test_a_session_is_shown_without_its_data(url: str) -> None:
    keep(url, 1, user="ada")
    shown = run("sessions", "show", "--id", session_id(1), "--url", url).stdout
    assert "ada" in shown
    assert "data" not in shown


def test_sessions_of_redis_are_revoked_by_id_user_age_and_all(url: str) -> None:
    for number in range(1, 5):
        keep(url, number, user="ada" if number < 3 else None, began=number * HOUR)
    assert run("sessions", "revoke", "--id", session_id(1), "--yes", "--url", url).stdout == "Revoked: 1\n"
    assert run("sessions", "revoke", "--user", "ada", "--yes", "--url", url).stdout == "Revoked: 1\n"
    older = run("sessions", "revoke", "--older-than", str(4 * HOUR - 60), "--yes", "--url", url)
    assert older.stdout == "Revoked: 1\n"
    assert listed(url) == [session_id(3)]
    assert run("sessions", "revoke", "--all", "--yes", "--url", url).stdout == "Revoked: 1\n"
    assert listed(url) == []


def test_stats_count_live_and_logged_in_sessions_of_redis(url: str) -> None:
    keep(url, 1, user="ada")
    keep(url, 2)
    counted = json.loads(run("stats", "--json", "--url", url).stdout)
    assert (counted["live"], counted["logged_in"], counted["data_bytes"]) == (2, 1, 8)


def test_doctor_says_that_it_answers(url: str) -> None:
    found = run("doctor", "--url", url, SESSION_SECRET="aV3ryL0ng&VariedSecret-of-the-tests-")
    assert found.exit_code == 0
    assert "nothing to sweep" in found.stdout


def test_doctor_fails_where_any_key_may_be_evicted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisStore, "eviction_policy", "allkeys-lru")
    found = run("doctor", "--url", url)
    assert found.exit_code == 1
    assert "maxmemory-policy is allkeys-lru" in found.stdout


def test_doctor_fails_without_an_answer() -> None:
    found = run("doctor", "--url", "redis://localhost:1/0")
    assert found.exit_code == 1
    assert "fail  redis" in found.stdout


@pytest.mark.parametrize("command", [("sweep",), ("db", "upgrade"), ("db", "check")], ids=" ".join)
def test_what_redis_does_not_need_says_so(command: tuple[str, ...]) -> None:
    refused = run(*command, "--url", "redis://user:password@localhost/0")
    assert refused.exit_code == 2
    assert "Redis needs no such command" in refused.stderr
    assert "password" not in refused.stderr


# Servers that take each other's place


def test_every_command_takes_the_url_of_a_cluster(cluster: OwnCluster) -> None:
    answers_by_url(cluster.url)


def test_every_command_takes_the_url_of_sentinels(watched: Watched) -> None:
    answers_by_url(watched.url)


def answers_by_url(url: str) -> None:
    for number in range(1, 5):
        keep(url, number, user="ada" if number < 3 else None)
    assert listed(url) == [session_id(number) for number in range(1, 5)]
    assert listed(url, "--user", "ada") == [session_id(1), session_id(2)]
    assert json.loads(run("stats", "--json", "--url", url).stdout)["live"] == 4
    found = run("doctor", "--url", url, SESSION_SECRET="aV3ryL0ng&VariedSecret-of-the-tests-")
    assert found.exit_code == 0
    assert "nothing to sweep" in found.stdout
    assert "Redis needs no such command" in run("sweep", "--url", url).stderr
    assert run("sessions", "revoke", "--user", "ada", "--yes", "--url", url).stdout == "Revoked: 2\n"
    assert run("sessions", "revoke", "--all", "--yes", "--url", url).stdout == "Revoked: 2\n"
    assert listed(url) == []


def test_what_is_stored_of_a_user_is_exported_and_erased(url: str) -> None:
    def fill(session: Session) -> None:
        session.login("ada", auth_method="pwd")
        session["cart"] = ["apple"]

    with closing(RedisStore(url)) as store:
        ada, bob = (Site(store, Clock(time.time())).browser() for _ in range(2))
        ada.visit(fill)
        bob.visit(lambda session: session.login("bob"))
        exported = json.loads(run("sessions", "export", "--url", url, "--user", "ada").stdout)
        (session,) = exported["sessions"]
        assert (session["user"], session["auth_method"], session["data"]) == ("ada", "pwd", {"cart": ["apple"]})
        assert (session["client_address"], session["user_agent"], exported["events"]) == (None, None, [])
        erased = run("sessions", "erase", "--url", url, "--user", "ada", "--yes", "--json", "--keep-events").stdout
        assert json.loads(erased)["sessions"] == 1
        assert [browser.visit(lambda session: session.user).result for browser in (ada, bob)] == [None, "bob"]
