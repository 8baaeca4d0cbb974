"""`prism-wsgi sessions` and `prism-wsgi stats`."""

import json
import time
from dataclasses import fields
from importlib import import_module

import pytest

from prism_wsgi import MemoryStore, SQLAlchemyStore, StoredSession
from prism_wsgi.stores.base import SessionSummary
from tests.support.command_line import HOUR, keep, keep_expired, run, session_id, store_of

CONTENTS = b"what the visitor keeps"


@pytest.fixture
def url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


def stored(url: str) -> list[str]:
    with store_of(url) as store:
        return [session.id for session in store.find_all()]


def test_stats_count_what_is_stored(empty_url: str) -> None:
    keep(empty_url, 1, user="ada", data=b"x" * 1500)
    keep(empty_url, 2, data=b"x" * 36)
    keep_expired(empty_url, 3)
    counted = json.loads(run("stats", "--json", "--url", empty_url).stdout)
    assert counted.pop("oldest_expired").endswith("Z")
    assert HOUR <= counted.pop("lag_seconds") < HOUR + 60
    assert counted.pop("ages") == {
        "under_1_hour": 2,
        "under_1_day": 0,
        "under_7_days": 0,
        "under_30_days": 0,
        "older": 0,
    }
    assert counted == {
        "live": 2,
        "expired": 3,
        "superseded": 0,
        "logged_in": 1,
        "anonymous": 1,
        "saved_once": 2,
        "largest": 1500,
        "data_bytes": 1548,
    }


def test_stats_are_readable(url: str) -> None:
    keep(url, 1, user="ada", data=b"x" * 1536)
    keep(url, 2, began=2 * HOUR)
    keep(url, 3, began=3 * HOUR)
    assert run("stats", "--url", url).stdout.splitlines() == [
        "live             3",
        "  logged in      1",
        "  anonymous      2",
        "  saved once     3",
        "superseded       0",
        "expired          0",
        "data             1.5 KiB",
        "  largest        1.5 KiB",
        "live, by age",
        "  under 1 hour   1         ###############",
        "  under 1 day    2         ##############################",
        "  under 7 days   0",
        "  under 30 days  0",
        "  older          0",
    ]


def test_stats_tell_the_lag_of_the_sweeper(url: str) -> None:
    keep_expired(url, 3, seconds_ago=2 * HOUR)
    (line,) = (line for line in run("stats", "--url", url).stdout.splitlines() if line.startswith("expired"))
    assert line.startswith("expired          3, the oldest at 2")
    assert "(lag 2:00:0" in line


@pytest.mark.parametrize("store", ["memory", "sql"])
def test_stats_know_saved_once_largest_and_ages(store: str, empty_url: str) -> None:
    now = 1_800_000_000_000
    counting: MemoryStore | SQLAlchemyStore = (
        MemoryStore(clock=lambda: now / 1000)
        if store == "memory"
        else SQLAlchemyStore(empty_url, clock=lambda: now / 1000)
    )
    ages = [0, HOUR - 1, HOUR, 24 * HOUR, 8 * 24 * HOUR, 31 * 24 * HOUR]
    for number, age in enumerate(ages):
        counting.save(StoredSession(session_id(number), b"x" * number, 0, now - age * 1000, now + 1000))
    counting.save(StoredSession(session_id(5), b"y" * 7, 1, now - ages[5] * 1000, now + 1000))
    counting.save(StoredSession(session_id(90), b"x" * 50, 0, now - 1000, now))
    counting.save(StoredSession(session_id(91), b"x" * 60, 0, now, now + 1000, "ada", superseded=True))
    stats = counting.stats()
    assert (stats.live, stats.logged_in, stats.saved_once, stats.largest) == (6, 0, 5, 7)
    assert stats.ages == (2, 1, 1, 1, 1)
    if isinstance(counting, SQLAlchemyStore):
        counting.close()


def test_list_shows_live_sessions_without_their_contents(empty_url: str) -> None:
    keep(empty_url, 1, user="ada", data=CONTENTS)
    keep(empty_url, 2, data=CONTENTS)
    keep(empty_url, 3, expires_in=-HOUR)
    printed = run("sessions", "list", "--url", empty_url).stdout.splitlines()
    assert [line.split()[0] for line in printed] == [session_id(1), session_id(2)]
    assert printed[0].endswith("22 B  ada")
    assert printed[1].endswith("22 B  -")
    assert CONTENTS.decode() not in "".join(printed)


def test_list_narrows_to_a_user(url: str) -> None:
    keep(url, 1, user="ada")
    keep(url, 2, user="bob")
    assert run("sessions", "list", "--user", "bob", "--url", url).stdout.startswith(session_id(2))


def test_list_says_when_there_may_be_more(url: str) -> None:
    for number in range(3):
        keep(url, number)
    result = run("sessions", "list", "--limit", "2", "--url", url)
    assert len(result.stdout.splitlines()) == 2
    assert f"--after {session_id(1)}" in result.stderr
    more = run("sessions", "list", "--after", session_id(1), "--url", url)
    assert more.stdout.startswith(session_id(2))
    assert run("sessions", "list", "--limit", "4", "--url", url).stderr == ""


def test_list_prints_one_json_object_a_line(url: str) -> None:
    keep(url, 1, user="ada", data=CONTENTS)
    keep(url, 2)
    shown = [json.loads(line) for line in run("sessions", "list", "--json", "--url", url).stdout.splitlines()]
    assert [session["user"] for session in shown] == ["ada", None]
    assert set(shown[0]) == {field.name for field in fields(SessionSummary)}
    assert shown[0]["size"] == len(CONTENTS)


def test_control_characters_in_a_user_do_not_reach_the_terminal(url: str) -> None:
    keep(url, 1, user="\x1b[2Jada\u202e")
    assert run("sessions", "list", "--url", url).stdout.endswith("  ?[2Jada?\n")


def test_show_describes_one_session_without_its_contents(url: str) -> None:
    one = keep(url, 1, user="ada", data=CONTENTS)
    printed = run("sessions", "show", "--id", one, "--url", url).stdout
    assert f"id       {one}\nuser     ada\n" in printed
    assert "size     22 B\nversion  1\n" in printed
    assert CONTENTS.decode() not in printed


def test_what_is_known_of_a_session_is_shown_and_what_is_not_is_unknown(url: str) -> None:
    now = int(time.time() * 1000)
    known = {
        "last_seen_at": 1_800_000_000_000,
        "authenticated_at": 1_700_000_000_000,
        "auth_method": "pwd otp",
        "actor": "root",
        "client_address": "192.0.2.7",
        "user_agent": "Firefox\x1b[2J",
    }
    one = StoredSession(session_id(1), b"data", 0, now, now + 10**6, "ada", **known)  # type: ignore[arg-type]
    with store_of(url) as store:
        store.save(one)
    shown = run("sessions", "show", "--id", one.id, "--url", url).stdout
    for line in (
        "used     2027-01-15T08:00:00Z",
        "login    2023-11-14T22:13:20Z",
        "method   pwd otp",
        "actor    root",
        "address  192.0.2.7",
        "browser  Firefox?[2J",
    ):
        assert line in shown.splitlines()
    (listed,) = run("sessions", "list", "--url", url).stdout.splitlines()
    assert "last used 2027-01-15T08:00:00Z" in listed
    assert "by pwd otp  from 192.0.2.7, Firefox?[2J  " in listed
    assert listed.endswith("  ada (impersonated by root)")
    told = json.loads(run("sessions", "list", "--json", "--url", url).stdout)
    moments = {"last_seen_at": "2027-01-15T08:00:00Z", "authenticated_at": "2023-11-14T22:13:20Z"}
    assert told.items() >= {**known, **moments}.items()
    keep(url, 2)
    assert "method   unknown" in run("sessions", "show", "--id", session_id(2), "--url", url).stdout


@pytest.mark.parametrize("moment", [2**63 - 1, -99_999_999_999_999])
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_a_row_with_a_moment_that_is_no_date_hides_no_other(url: str, moment: int, more: tuple[str, ...]) -> None:
    keep(url, 1, user="ada")
    odd = StoredSession(session_id(2), b"data", 0, moment, 2**63 - 1, "mallory")
    with store_of(url) as store:
        store.save(odd)
    listed = run("sessions", "list", "--url", url, *more).stdout
    assert ("ada" in listed, "mallory" in listed) == (True, True)
    assert "s since 1970" in run("sessions", "show", "--id", odd.id, "--url", url, *more).stdout


def test_a_session_is_shown_as_json(url: str) -> None:
    one = keep(url, 1)
    assert json.loads(run("sessions", "show", "--json", "--id", one, "--url", url).stdout)["id"] == one


@pytest.mark.parametrize("command", [("show",), ("revoke", "--yes")])
def test_unknown_session_is_an_error(command: tuple[str, ...], url: str) -> None:
    result = run("sessions", *command, "--id", session_id(9), "--url", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`prism-wsgi sessions list`" in result.stderr


def test_cookie_given_for_an_id_is_refused_and_not_repeated(url: str) -> None:
    result = run("sessions", "show", "--id", "AZzq-secret.1700000000.signature", "--url", url)
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_revoke_ends_every_session_of_a_user(empty_url: str) -> None:
    keep(empty_url, 1, user="ada")
    keep(empty_url, 2, user="ada")
    keep(empty_url, 3, user="bob")
    assert run("sessions", "revoke", "--user", "ada", "--yes", "--url", empty_url).stdout == "Revoked: 2\n"
    assert stored(empty_url) == [session_id(3)]


def test_revoke_ends_one_session(url: str) -> None:
    one, other = keep(url, 1, user="ada"), keep(url, 2, user="ada")
    printed = run("sessions", "revoke", "--id", one, "--yes", "--json", "--url", url).stdout
    assert json.loads(printed) == {"revoked": 1}
    assert stored(url) == [other]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_revoke_ends_every_session(batch: int, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("prism_wsgi.cli.listing"), "TRANSACTION", batch)
    for number in range(3):
        keep(empty_url, number)
    assert run("sessions", "revoke", "--all", "--yes", "--url", empty_url).stdout == "Revoked: 3\n"
    assert stored(empty_url) == []


def test_sessions_that_began_long_ago_are_listed_and_revoked(empty_url: str) -> None:
    keep(empty_url, 1, user="ada", began=3 * HOUR)
    keep(empty_url, 2, user="bob", began=3 * HOUR)
    keep(empty_url, 3, user="ada", began=HOUR)
    options = ("--older-than", str(2 * HOUR), "--url", empty_url)
    listed = run("sessions", "list", *options).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [session_id(1), session_id(2)]
    assert run("sessions", "revoke", "--user", "ada", "--yes", *options).stdout == "Revoked: 1\n"
    assert stored(empty_url) == [session_id(2), session_id(3)]
    asked = run("sessions", "revoke", *options, input="y\n")
    assert "End every session that began before 2" in asked.stderr
    assert stored(empty_url) == [session_id(3)]


def test_revoke_asks_first(url: str) -> None:
    one = keep(url, 1, user="ada")
    refused = run("sessions", "revoke", "--user", "ada", "--url", url, input="n\n")
    assert refused.exit_code == 1
    assert "End every session of ada?" in refused.stderr
    assert stored(url) == [one]
    assert run("sessions", "revoke", "--user", "ada", "--url", url, input="y\n").stdout == "Revoked: 1\n"
    assert stored(url) == []


def test_revoke_without_an_answer_ends_nothing(url: str) -> None:
    one = keep(url, 1)
    assert run("sessions", "revoke", "--id", one, "--url", url, input="").exit_code == 1
    assert stored(url) == [one]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user", "ada", "--id", session_id(1)),
        ("--all", "--user", "ada"),
        ("--all", "--older-than", "60"),
        ("--id", session_id(1), "--older-than", "60"),
    ],
)
def test_revoke_needs_to_know_which_and_only_once(options: tuple[str, ...], url: str) -> None:
    keep(url, 1, user="ada")
    assert run("sessions", "revoke", "--yes", *options, "--url", url).exit_code == 2
    assert stored(url) == [session_id(1)]
