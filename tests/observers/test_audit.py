"""The audit trail: what it keeps, for how long, and what it loses, on each database."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from prism_wsgi import ConfigError, MemoryStore, RedisStore, Session, SQLAlchemyStore, StoreUnavailable
from prism_wsgi.observers.audit import AuditTrail
from prism_wsgi.stores.base import StoredEvent
from prism_wsgi.sweeper import SweepEnd, Sweeper
from tests.support.browsing import Browser, Clock, Site, plain_page, read, write
from tests.support.command_line import keep_expired, run

NAME = "prism_session"
DAY = 24 * 3600
DEVICE: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Firefox"}


@pytest.fixture
def store(empty_url: str) -> Iterator[SQLAlchemyStore]:
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        for table in ("prism_sessions_events", "prism_sessions_sweeps"):
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()
    with closing(SQLAlchemyStore(empty_url)) as store:
        yield store


@pytest.fixture
def trail(store: SQLAlchemyStore) -> AuditTrail:
    return AuditTrail(store)


@pytest.fixture
def browser(store: SQLAlchemyStore, trail: AuditTrail) -> Browser:
    return Site(store, Clock(now()), observers=[trail]).browser()


def now() -> float:
    from time import time

    return time()


def login(session: Session) -> None:
    session.login("ann")


def kinds(store: SQLAlchemyStore, user: str = "ann") -> list[str]:
    """Return the events of a user, the oldest first."""
    found = reversed(store.find_events(user=user))
    return [f"{one.kind}:{one.reason}" if one.reason else one.kind for one in found]


def add(store: SQLAlchemyStore, count: int, *, days_ago: float, **values: Any) -> None:
    moment = int((now() - days_ago * DAY) * 1000)
    for _ in range(count):
        store.add_event(StoredEvent(timestamp=moment, kind="logged_in", **{"user": "ann", **values}))


def test_what_happens_to_a_login_is_written_and_found_by_its_user(browser: Browser, store: SQLAlchemyStore) -> None:
    browser.visit(login, **DEVICE)
    browser.visit(lambda session: session.regenerate())
    browser.visit(lambda session: session.confirm_login())
    browser.visit(Session.logout)
    assert kinds(store) == ["started", "logged_in", "id_changed", "confirmed", "logged_out", "ended:logout"]
    newest, *_, changed, _, _ = store.find_events(user="ann")
    assert newest.session_id is not None
    assert (changed.previous_id is None, changed.client_address, changed.user_agent) == (False, None, None)
    assert abs(changed.timestamp - int(browser.site.clock() * 1000)) <= 1
    assert kinds(store, "bob") == []


def test_the_device_is_kept_with_record_client_only(store: SQLAlchemyStore, trail: AuditTrail) -> None:
    site = Site(store, Clock(now()), observers=[trail], record_client=True)
    site.browser().visit(login, **DEVICE)
    (event, _) = store.find_events(user="ann")
    assert (event.client_address, event.user_agent) == ("192.0.2.7", "Firefox")


def test_an_impersonation_is_found_by_both_users(browser: Browser, store: SQLAlchemyStore) -> None:
    browser.visit(lambda session: session.login("admin"))
    browser.visit(lambda session: session.impersonate("ann"))
    browser.visit(lambda session: session.stop_impersonating())
    assert kinds(store) == ["logged_in", "logged_out"]
    assert {(one.user, one.actor) for one in store.find_events(user="ann")} == {("ann", "admin")}
    assert kinds(store, "admin") == ["started", "logged_in", "logged_in", "logged_out"]


def test_a_forged_cookie_costs_no_query(
    browser: Browser, store: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(event: StoredEvent) -> None:
        raise AssertionError("a query for what anybody can cause")

    monkeypatch.setattr(store, "add_event", refuse)
    assert browser.visit(read("n"), HTTP_COOKIE=f"{NAME}=junk").status == 200
    assert browser.request(plain_page, HTTP_COOKIE=f"{NAME}=junk").status == 200
    page = browser.visit(write(n=1), REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="cross-site")
    assert page.status == 200


def test_what_cannot_be_written_is_counted_and_logged_and_the_request_goes_on(
    browser: Browser, store: SQLAlchemyStore, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fail(event: StoredEvent) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store, "add_event", fail)
    assert browser.visit(login).status == 200
    assert browser.visit(lambda session: session.user).result == "ann"
    assert trail.lost == 2
    assert "AuditTrail, told of `logged_in`, lost the event (2 lost so far): the disk is full" in caplog.text


def test_pages_of_events_follow_each_other(store: SQLAlchemyStore) -> None:
    add(store, 5, days_ago=1)
    first = store.find_events(user="ann", limit=3)
    rest = store.find_events(user="ann", limit=3, before=first[-1].number)
    numbers = [one.number for one in [*first, *rest]]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) == 5


def test_users_that_differ_in_a_space_are_different(store: SQLAlchemyStore) -> None:
    add(store, 1, days_ago=1, user="ann ")
    assert kinds(store) == []
    assert kinds(store, "ann ") == ["logged_in"]


def test_everybody_is_no_user(store: SQLAlchemyStore) -> None:
    with pytest.raises(TypeError):
        store.find_events(user=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        store.erase_events(None)  # type: ignore[arg-type]


# Retention


def test_a_sweep_of_the_trail_deletes_what_is_too_old_in_batches(store: SQLAlchemyStore) -> None:
    add(store, 130, days_ago=91)
    add(store, 3, days_ago=89)
    result = Sweeper(AuditTrail(store), batch_size=50, pause=0).sweep()
    assert (result.deleted, result.end) == (130, SweepEnd.COMPLETE)
    assert result.batches >= 3
    assert len(store.find_events(user="ann")) == 3


def test_a_sweep_finds_an_old_event_that_was_written_while_it_was_under_way(store: SQLAlchemyStore) -> None:
    due = int((now() - 90 * DAY) * 1000)
    add(store, 30, days_ago=91)
    assert store.sweep_events(due, 20) == 20
    add(store, 5, days_ago=100)
    swept = [store.sweep_events(due, 20) for _ in range(3)]
    assert (sum(swept), swept[-1]) == (15, 0)
    add(store, 1, days_ago=100)
    assert store.sweep_events(due, 20) == 1


def test_how_long_events_are_kept_can_be_chosen(store: SQLAlchemyStore) -> None:
    add(store, 2, days_ago=10)
    Sweeper(AuditTrail(store, keep=11)).sweep()
    assert len(store.find_events(user="ann")) == 2
    Sweeper(AuditTrail(store, keep=9.5)).sweep()
    assert store.find_events(user="ann") == []


def test_the_sweep_command_keeps_events_for_90_days_or_as_long_as_it_is_told(
    store: SQLAlchemyStore, empty_url: str
) -> None:
    add(store, 2, days_ago=91)
    add(store, 1, days_ago=80)
    assert run("sweep", "--url", empty_url).exit_code == 0
    assert len(store.find_events(user="ann")) == 1
    assert run("sweep", "--url", empty_url, "--keep-events", "30").exit_code == 0
    assert store.find_events(user="ann") == []


def test_each_sweep_is_recorded(store: SQLAlchemyStore, empty_url: str) -> None:
    keep_expired(empty_url, 3)
    assert store.last_sweeps() == []
    assert run("sweep", "--url", empty_url).exit_code == 0
    Sweeper(store).sweep()
    latest, first = store.last_sweeps(limit=5)
    assert (latest.deleted, first.deleted) == (0, 3)
    assert (first.outcome, bool(first.host)) == ("complete", True)
    assert first.started_at <= first.ended_at <= latest.started_at + 1


# The command line


def test_the_events_of_a_user_are_listed(browser: Browser, store: SQLAlchemyStore, empty_url: str) -> None:
    browser.visit(login)
    browser.visit(Session.logout)
    lines = run("events", "list", "--url", empty_url, "--user", "ann").stdout.splitlines()
    assert ["ended (logout)" in line for line in lines] == [True, False, False, False]
    assert all("user ann" in line for line in lines)
    found = [
        json.loads(line)
        for line in run("events", "list", "--url", empty_url, "--user", "ann", "--json").stdout.splitlines()
    ]
    assert [one["kind"] for one in found] == ["ended", "logged_out", "logged_in", "started"]
    assert found[0]["timestamp"].endswith("Z")


@pytest.mark.parametrize("whose", [("--user", "ann"), ("--all",), ("--older-than", "0")])
def test_a_revocation_by_the_command_line_names_its_author(
    browser: Browser,
    store: SQLAlchemyStore,
    empty_url: str,
    whose: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "operator")
    browser.visit(login)
    ended = browser.visit(lambda session: session.id).result
    browser.site.clock.advance(1)
    assert run("sessions", "revoke", "--url", empty_url, "--yes", *whose).exit_code == 0
    event = store.find_events(user="ann")[0]
    assert (event.kind, event.reason, event.session_id) == ("ended", "revoked", ended)
    assert event.author == "cli:operator"


def test_a_revocation_that_cannot_be_written_down_is_made_and_said(
    browser: Browser, store: SQLAlchemyStore, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    browser.visit(login)
    monkeypatch.setattr(SQLAlchemyStore, "add_event", fail)
    done = run("sessions", "revoke", "--url", empty_url, "--yes", "--user", "ann")
    assert (done.exit_code, done.stdout) == (0, "Revoked: 1\n")
    assert "the audit trail missed it: the disk is full" in done.stderr
    assert list(store.find(user="ann")) == []


def test_a_revocation_of_one_session_is_written_too(browser: Browser, store: SQLAlchemyStore, empty_url: str) -> None:
    browser.visit(login)
    ended = browser.visit(lambda session: session.id).result
    assert run("sessions", "revoke", "--url", empty_url, "--yes", "--id", ended).exit_code == 0
    assert kinds(store)[-1] == "ended:revoked"


def test_an_export_has_what_is_stored_of_a_user(browser: Browser, store: SQLAlchemyStore, empty_url: str) -> None:
    def fill(session: Session) -> None:
        session.login("ann", auth_method="pwd")
        session["cart"] = [1, {"colour": "blue"}]
        session["raw"] = b"\x00\x01"

    browser.visit(fill)
    found = json.loads(run("sessions", "export", "--url", empty_url, "--user", "ann").stdout)
    (session,) = found["sessions"]
    assert session["data"] == {"cart": [1, {"colour": "blue"}], "raw": "AAE="}
    assert (session["user"], session["auth_method"]) == ("ann", "pwd")
    assert [one["kind"] for one in found["events"]] == ["logged_in", "started"]


def test_an_export_shows_nothing_of_another_users_data(
    browser: Browser, store: SQLAlchemyStore, empty_url: str
) -> None:
    browser.visit(lambda session: session.login("admin"))

    def act(session: Session) -> None:
        session.impersonate("ann")
        session["secret"] = "of ann"

    browser.visit(act)
    output = run("sessions", "export", "--url", empty_url, "--user", "admin").stdout
    assert "of ann" not in output
    assert json.loads(output)["sessions"][0]["user"] == "ann"


def test_an_export_decrypts_where_the_key_can(store: SQLAlchemyStore, empty_url: str) -> None:
    key = "encryption-key-0123456789-abcdefghijkl"

    def fill(session: Session) -> None:
        session.login("ann")
        session["n"] = 1

    Site(store, Clock(now()), encryption_key=key).browser().visit(fill)
    Site(store, Clock(now()), encryption_key=key, encryption="cookie").browser().visit(fill)
    export = ("sessions", "export", "--url", empty_url, "--user", "ann")
    opened = json.loads(run(*export, PRISM_ENCRYPTION_KEY=key).stdout)["sessions"]
    assert sorted(repr(one["data"]) for one in opened) == ["None", "{'n': 1}"]
    assert [bool(one.get("unreadable")) for one in opened if one["data"] is None] == [True]
    closed = json.loads(run(*export).stdout)["sessions"]
    assert {one["data"] for one in closed} == {None}


def test_an_erasure_removes_sessions_and_events(browser: Browser, store: SQLAlchemyStore, empty_url: str) -> None:
    browser.visit(login)
    add(store, 1, days_ago=1, user="bob", actor="ann", client_address="192.0.2.7", user_agent="Firefox")
    add(store, 1, days_ago=1, user="bob")
    told = run("sessions", "erase", "--url", empty_url, "--user", "ann", "--yes", "--json").stdout
    assert json.loads(told) == {"sessions": 1, "events": 3, "alias": None}
    assert store.find_events(user="ann") == []
    assert list(store.find(user="ann")) == []
    plain, acted = store.find_events(user="bob")
    assert {plain.actor, acted.actor, acted.client_address, acted.user_agent} == {None}
    assert browser.visit(lambda session: session.user).result is None


def test_an_erasure_can_keep_the_events_under_a_random_name(
    browser: Browser, store: SQLAlchemyStore, empty_url: str
) -> None:
    browser.visit(login)
    add(store, 1, days_ago=1, client_address="192.0.2.7", user_agent="Firefox")
    command = ("sessions", "erase", "--url", empty_url, "--user", "ann", "--yes", "--json", "--keep-events")
    alias = json.loads(run(*command).stdout)["alias"]
    assert alias.startswith("erased-")
    assert store.find_events(user="ann") == []
    assert kinds(store, alias) == ["started", "logged_in", "logged_in", "ended:erased"]
    assert {one.client_address for one in store.find_events(user=alias)} == {None}


# What it refuses


@pytest.mark.parametrize("wrong", [MemoryStore(), RedisStore("redis://127.0.0.1:6379/15"), object(), 5])
def test_a_store_without_a_table_of_events_is_refused_in_one_sentence(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="which SQLAlchemyStore does and"):
        AuditTrail(wrong)


@pytest.mark.parametrize("wrong", [0, -1, "90", None, True, 10**6])
def test_a_time_to_keep_events_that_is_no_number_of_days_is_refused(sqlite_url: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="keep must be"):
        AuditTrail(sqlite_url, keep=wrong)


def test_the_url_of_the_store_is_enough(empty_url: str) -> None:
    trail = AuditTrail(empty_url)
    assert isinstance(trail.store, SQLAlchemyStore)
    trail.store.close()
