"""What observers are told of sessions and logins, on each kind of store."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from prism_wsgi import MemoryStore, Session, StoredSession, StoreUnavailable
from prism_wsgi.events import Kind, Reason, SessionEvent, StoreCall
from prism_wsgi.request.state import SessionState
from prism_wsgi.retry import attempts
from tests.support.browsing import Browser, Clock, Page, Site, ThreeVerbStore, WatchedStore, plain_page, read, write
from tests.support.observing import Recorder

pytest_plugins = ["tests.support.site_fixtures"]

NAME = "prism_session"


class ListingStore(WatchedStore):
    """The optional verbs that list and end a user's sessions, too."""

    def find(self, *, user: str, limit: int = 100, after: str | None = None) -> Any:
        return self.store.find(user=user, limit=limit, after=after)

    def find_all(self, *, limit: int = 100, after: str | None = None) -> Any:
        return self.store.find_all(limit=limit, after=after)

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        return int(self.store.destroy_all(user, except_id))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def site(store: ThreeVerbStore, clock: Clock, recorder: Recorder) -> Site:
    return Site(store, clock, observers=[recorder])


@pytest.fixture
def listing_site(store: ThreeVerbStore, clock: Clock, recorder: Recorder) -> Site:
    """A site whose store lists a user's sessions."""
    return Site(ListingStore(store.store), clock, observers=[recorder], max_sessions_per_user=3)


def login(user: str, **options: Any) -> Callable[[Session], str]:
    def handler(session: Session) -> str:
        session.login(user, **options)
        return session.id

    return handler


def session_id(session: Session) -> str:
    return session.id


def logged_in(site: Site, recorder: Recorder, user: str = "ann") -> Browser:
    browser = site.browser()
    browser.visit(login(user))
    recorder.take()
    return browser


# Logins


def test_the_first_write_starts_a_session_and_later_ones_are_no_events(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    begun = browser.visit(lambda session: (session.update(n=1), session.id)[1]).result
    (event,) = recorder.take()
    assert event == SessionEvent(
        kind=Kind.STARTED, timestamp=datetime.fromtimestamp(site.clock(), UTC), session_id=begun
    )
    browser.visit(write(n=2))
    browser.visit(read("n"))
    assert recorder.take() == []


def test_looking_at_the_site_is_no_event(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(read("n"))
    browser.request(plain_page)
    browser.visit(read("n"))
    assert recorder.take() == []


def test_a_login_of_a_new_visitor_starts_a_session_first(site: Site, recorder: Recorder) -> None:
    begun = site.browser().visit(login("ann")).result
    started, entered = recorder.take()
    assert (started.kind, started.session_id) == ("started", begun)
    assert (entered.kind, entered.session_id, entered.user, entered.previous_id) == ("logged_in", begun, "ann", None)


def test_a_login_names_the_id_from_which_the_session_moved(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    before = browser.visit(session_id).result
    recorder.take()
    after = browser.visit(login("ann")).result
    (event,) = recorder.take()
    assert (event.kind, event.session_id, event.previous_id, event.user) == ("logged_in", after, before, "ann")
    assert (event.actor, event.client, event.path, event.author, event.reason) == (None, None, None, None, None)


def test_the_same_user_logs_in_again_although_the_clock_stands_still(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    browser.visit(login("ann"))
    assert recorder.names() == ["logged_in"]


def test_a_login_of_another_user_ends_the_session_of_the_first(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    before = browser.visit(session_id).result
    after = browser.visit(login("bob")).result
    ended, entered = recorder.take()
    assert (ended.kind, ended.reason, ended.session_id, ended.user) == ("ended", "replaced_user", before, "ann")
    assert (entered.kind, entered.session_id, entered.previous_id, entered.user) == (
        "logged_in",
        after,
        before,
        "bob",
    )


def test_a_confirmation_is_no_login(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    browser.visit(lambda session: session.confirm_login("otp"))
    (event,) = recorder.take()
    assert (event.kind, event.user) == ("confirmed", "ann")


def test_a_new_id_alone_is_told_with_the_previous_one(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    before = browser.visit(session_id).result
    browser.visit(lambda session: session.regenerate())
    after = browser.visit(session_id).result
    (event,) = recorder.take()
    assert (event.kind, event.session_id, event.previous_id, event.user) == ("id_changed", after, before, "ann")


def test_a_new_id_after_a_login_that_was_told_is_no_second_login(site: Site, recorder: Recorder) -> None:
    def handler(session: Session) -> None:
        with session.atomic():
            session.login("ann")
        session.regenerate()

    site.browser().visit(handler)
    assert recorder.names() == ["started", "logged_in", "id_changed"]


def test_a_new_id_for_a_session_that_was_never_stored_is_a_start(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit()

    def handler(session: Session) -> None:
        session["n"] = 1
        session.regenerate()

    browser.visit(handler)
    (event,) = recorder.take()
    assert (event.kind, event.previous_id) == ("started", None)


def test_impersonation_begins_and_ends_with_the_administrators_name(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder, "admin")
    browser.visit(lambda session: session.impersonate("ann"))
    (begun,) = recorder.take()
    browser.visit(lambda session: session.stop_impersonating())
    (over,) = recorder.take()
    assert (begun.kind, begun.user, begun.actor) == ("logged_in", "ann", "admin")
    assert (over.kind, over.user, over.actor) == ("logged_out", "ann", "admin")


def test_a_user_key_is_followed(store: ThreeVerbStore, clock: Clock, recorder: Recorder) -> None:
    browser = Site(store, clock, observers=[recorder], user_id_key="user_id").browser()
    browser.visit(write(user_id=5))
    assert recorder.names() == ["started", "logged_in"]
    browser.visit(lambda session: session.pop("user_id"))
    (event,) = recorder.take()
    assert (event.kind, event.user) == ("logged_out", "5")


def test_a_user_whom_a_library_had_named_before_there_was_a_user_key_has_not_logged_in(
    store: ThreeVerbStore, clock: Clock, recorder: Recorder
) -> None:
    before, after = Site(store, clock), Site(store, clock, observers=[recorder], user_id_key="user_id")
    browser = before.browser()
    browser.visit(write(user_id="5"))
    browser.site = after
    browser.visit(write(n=1))
    assert recorder.take() == []
    assert browser.visit(lambda session: session.user).result == "5"


# Endings


@pytest.mark.parametrize("end", [Session.logout, Session.destroy])
def test_a_logout_ends_the_session(site: Site, recorder: Recorder, end: Callable[[Session], None]) -> None:
    browser = logged_in(site, recorder)
    ended = browser.visit(session_id).result
    browser.visit(end)
    left, over = recorder.take()
    assert (left.kind, left.session_id, left.user) == ("logged_out", ended, "ann")
    assert (over.kind, over.reason, over.session_id, over.user) == ("ended", "logout", ended, "ann")


def test_a_logout_without_a_look_at_the_session_is_told(site: Site, recorder: Recorder) -> None:
    logged_in(site, recorder).visit(Session.logout)
    assert recorder.names() == ["logged_out", "ended:logout"]


def test_an_anonymous_session_ends_without_a_logout(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    recorder.take()
    browser.visit(Session.destroy)
    assert recorder.names() == ["ended:logout"]


def test_a_logout_of_a_session_that_was_never_stored_is_no_event(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(Session.logout)

    def come_and_go(session: Session) -> None:
        session.login("ann")
        session.logout()

    browser.visit(come_and_go)
    assert recorder.take() == []


def test_a_logout_with_the_id_from_before_ends_the_session_that_moved(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    header = browser.cookie_header
    browser.visit(lambda session: session.regenerate())
    after = browser.visit(session_id).result
    recorder.take()
    site.browser().visit(Session.logout, HTTP_COOKIE=header)
    rejected, left, over = recorder.take()
    assert rejected.reason == "superseded_id"
    assert (left.kind, left.session_id, over.session_id, over.reason) == ("logged_out", after, after, "logout")


def test_a_logout_that_fails_is_no_end(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    assert isinstance(site.store, ThreeVerbStore)
    site.store.failing = {"destroy"}
    assert browser.visit(Session.logout).status == 503
    assert set(recorder.names()) == {"store_failed"}


def test_ending_other_sessions_is_told_of_each(listing_site: Site, recorder: Recorder) -> None:
    browsers = [logged_in(listing_site, recorder) for _ in range(3)]
    ids = [browser.visit(session_id).result for browser in browsers]
    recorder.take()
    assert browsers[0].visit(lambda session: session.revoke(ids[1])).result
    (revoked,) = recorder.take()
    assert (revoked.kind, revoked.reason, revoked.session_id, revoked.user) == ("ended", "revoked", ids[1], "ann")
    assert not browsers[0].visit(lambda session: session.revoke(ids[1])).result
    assert browsers[0].visit(lambda session: session.logout_elsewhere()).result == 1
    (ended,) = recorder.take()
    assert (ended.kind, ended.reason, ended.session_id, ended.user) == ("ended", "revoked", ids[2], "ann")


def test_sessions_beyond_the_limit_are_told_after_the_login(listing_site: Site, recorder: Recorder) -> None:
    first = logged_in(listing_site, recorder)
    ended = first.visit(session_id).result
    for _ in range(2):
        listing_site.clock.advance(1)
        logged_in(listing_site, recorder)
    listing_site.clock.advance(1)
    listing_site.browser().visit(login("ann"))
    events = recorder.take()
    assert [one.kind for one in events] == ["started", "logged_in", "ended"]
    assert (events[2].reason, events[2].session_id, events[2].user) == ("limit", ended, "ann")


# What is no event


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable"])
def test_changes_that_are_dropped_are_no_events(site: Site, recorder: Recorder, status: str) -> None:
    browser = site.browser()
    browser.visit(login("ann"), status=status)
    assert recorder.take() == []


def test_a_block_inside_atomic_that_raises_is_no_login(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    recorder.take()

    def handler(session: Session) -> None:
        with suppress(ZeroDivisionError), session.atomic():
            session.login("ann")
            raise ZeroDivisionError
        session.regenerate()

    browser.visit(handler)
    assert recorder.names() == ["id_changed"]


def test_expiry_is_no_event(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    site.clock.advance(10_000)
    browser.visit(read("n"))
    assert recorder.take() == []  # the browser has dropped its cookie


def test_a_merge_is_no_event(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)

    def slow(session: Session) -> None:
        session["m"] = 1
        browser.visit(write(n=1))

    twin = site.browser()
    twin.jar = browser.jar
    twin.visit(slow)
    assert recorder.take() == []
    assert [call.outcome for call in recorder.calls if call.operation == "save"].count("conflict") == 1


# Rejections


def rejected(page: Callable[[Browser], Page], site: Site, recorder: Recorder) -> SessionEvent:
    browser = site.browser()
    browser.visit(write(n=1))
    recorder.take()
    page(browser)
    return recorder.take()[-1]


def forge(browser: Browser) -> Page:
    header = f"{NAME}={browser.token[:-4]}AAAA"
    return browser.visit(
        read("n"), path="/reset/caf\u00c3\u00a9", HTTP_COOKIE=header, SCRIPT_NAME="/shop", QUERY_STRING="key=canary"
    )


def expire(browser: Browser) -> Page:
    header = browser.cookie_header
    browser.site.clock.advance(4000)
    return browser.visit(read("n"), HTTP_COOKIE=header)


def come_back_after_logout(browser: Browser) -> Page:
    header = browser.cookie_header
    browser.visit(Session.logout)
    return browser.visit(read("n"), HTTP_COOKIE=header)


def come_back_after_login(browser: Browser) -> Page:
    header = browser.cookie_header
    browser.visit(login("ann"))
    return browser.visit(read("n"), HTTP_COOKIE=header)


def bring_two(browser: Browser) -> Page:
    other = browser.site.browser()
    other.visit(write(n=2))
    return browser.visit(read("n"), HTTP_COOKIE=f"{browser.cookie_header}; {other.cookie_header}")


def write_late(browser: Browser) -> Page:
    header = browser.cookie_header

    def slow(session: Session) -> None:
        session["n"] = 2
        browser.visit(Session.logout)

    return browser.site.browser().visit(slow, HTTP_COOKIE=header)


def write_unreadable(browser: Browser) -> Page:
    store = browser.site.store
    assert isinstance(store, ThreeVerbStore)
    stored = store.load(browser.visit(session_id).result)
    assert isinstance(stored, StoredSession)
    stored.data = b"\xff nonsense"
    store.save(stored)
    return browser.visit(read("n"))


REJECTIONS: list[tuple[Callable[[Browser], Page], str]] = [
    (forge, "forged"),
    (expire, "expired"),
    (come_back_after_logout, "unknown_id"),
    (come_back_after_login, "superseded_id"),
    (bring_two, "duplicate_cookie"),
    (write_late, "late_write_dropped"),
    (write_unreadable, "unreadable_data"),
]


@pytest.mark.parametrize(("happen", "reason"), REJECTIONS)
def test_a_rejection_is_told_with_its_reason_and_path(
    site: Site, recorder: Recorder, happen: Callable[[Browser], Page], reason: str
) -> None:
    event = rejected(happen, site, recorder)
    assert (event.kind, event.reason) == ("rejected", reason)
    assert event.path == ("/shop/reset/café" if happen is forge else "/")


def test_every_reason_of_a_rejection_can_be_met() -> None:
    others = {"conflict_merged", "store_failed", "write_withheld", "public_cache_overridden"}
    assert {reason for _, reason in REJECTIONS} == {str(reason) for reason in Reason} - others


def test_a_failing_store_is_told_without_a_reason(site: Site, recorder: Recorder) -> None:
    browser = logged_in(site, recorder)
    assert isinstance(site.store, ThreeVerbStore)
    site.store.failing = {"load"}
    browser.visit(read("n"))
    (event,) = recorder.take()
    assert (event.kind, event.reason, event.path) == ("store_failed", None, None)
    assert recorder.calls[-1].outcome == "failed"


def test_a_write_of_another_sites_form_is_told(site: Site, recorder: Recorder) -> None:
    site.browser().visit(write(n=1), REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="cross-site")
    (event,) = recorder.take()
    assert (event.kind, event.reason, event.path) == ("write_withheld", None, None)


def test_log_lines_alone_are_no_events(site: Site, recorder: Recorder) -> None:
    site.browser().visit(login("ann"), headers=[("Cache-Control", "public")])
    assert recorder.names() == ["started", "logged_in"]


def test_each_event_is_told_although_the_log_is_rate_limited(site: Site, recorder: Recorder) -> None:
    for _ in range(100):
        site.browser().visit(read("n"), HTTP_COOKIE=f"{NAME}=junk")
    assert recorder.names() == ["rejected:forged"] * 100


# What an event says of the visitor


def test_the_device_is_told_only_where_it_is_recorded(
    store: ThreeVerbStore, clock: Clock, recorder: Recorder
) -> None:
    browser = Site(store, clock, observers=[recorder]).browser()
    device: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Firefox"}
    browser.visit(login("ann"), **device)
    assert {one.client for one in recorder.take()} == {None}
    browser.site = Site(store, clock, observers=[recorder], record_client=True)
    browser.visit(login("ann"), **device)
    browser.visit(read("n"), HTTP_COOKIE=f"{NAME}=junk", **device)
    events = recorder.take()
    assert [one.kind for one in events] == ["logged_in", "rejected"]
    for event in events:
        assert event.client is not None
        assert (event.client.address, event.client.user_agent) == ("192.0.2.7", "Firefox")
        assert event.client.last_seen_at == event.timestamp


def test_no_event_holds_a_secret_a_cookie_data_or_a_query(
    store: ThreeVerbStore, clock: Clock, recorder: Recorder
) -> None:
    site = Site(store, clock, observers=[recorder], record_client=True)
    tokens = set()
    for happen, _ in REJECTIONS:
        browser = site.browser()
        browser.visit(write(password="canary-data"), QUERY_STRING="canary-query", path="/magic/canary-link")
        tokens.add(browser.token)
        happen(browser)
        browser.visit(login("ann"))
        tokens |= {cookie.value for cookie in browser.jar.cookies.values()}
    text = repr(recorder.events) + repr(recorder.calls)
    assert "canary" not in text
    for token in tokens:
        secret, _, signature = token.split(".")
        assert secret not in text
        assert signature not in text


# Observers that fail, and how they are called


class FailingObserver:
    def on_event(self, event: SessionEvent) -> None:
        raise ZeroDivisionError("canary")

    def on_store_call(self, call: StoreCall) -> None:
        raise ZeroDivisionError("canary")


def test_an_observer_that_raises_harms_nothing_and_is_logged(
    store: ThreeVerbStore, clock: Clock, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Site(store, clock, observers=[FailingObserver(), recorder]).browser()
    assert browser.visit(login("ann")).status == 200
    assert browser.visit(lambda session: session.user).result == "ann"
    assert recorder.names() == ["started", "logged_in"]
    assert "FailingObserver, told of `logged_in`, raised ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text


def test_an_observer_that_always_raises_does_not_fill_the_disk(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(clock=clock, observers=[FailingObserver()])
    for _ in range(200):
        site.browser().visit(login("ann"))
    told = [record for record in caplog.records if "told of `started`" in record.getMessage()]
    assert 1 <= len(told) <= 40
    assert {record.levelno for record in told} == {logging.ERROR}


def test_an_event_is_told_after_the_session_is_saved(clock: Clock) -> None:
    store = MemoryStore(clock=clock)

    class Looking(Recorder):
        def on_event(self, event: SessionEvent) -> None:
            assert event.session_id is not None
            assert store.load(event.session_id) is not None
            super().on_event(event)

    looking = Looking()
    Site(WatchedStore(store), clock, observers=[looking]).browser().visit(login("ann"))
    assert looking.names() == ["started", "logged_in"]


def test_without_observers_no_event_is_made(
    store: ThreeVerbStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was made for nobody")

    for name in ("SessionEvent", "StoreCall"):
        monkeypatch.setattr(f"prism_wsgi.events.{name}", refuse)
    monkeypatch.setattr("prism_wsgi.persistence.adapter.StoreCall", refuse)
    monkeypatch.setattr("prism_wsgi.request.saving.tell_saved", refuse)
    monkeypatch.setattr(SessionState, "note_path", refuse)
    browser = Site(store, clock).browser()
    for handler in (write(n=1), login("ann"), read("n"), Session.logout):
        assert browser.visit(handler).status == 200


# Store calls


def test_each_call_of_the_store_is_told_with_its_time(site: Site, recorder: Recorder) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    browser.visit(read("n"))
    browser.request(plain_page)
    assert isinstance(site.store, ThreeVerbStore)
    assert [call.operation for call in recorder.calls] == site.store.calls
    assert {(call.outcome, call.attempts) for call in recorder.calls} == {("ok", 1)}
    assert all(call.duration >= 0 for call in recorder.calls)


def test_the_attempts_of_a_store_that_repeats_are_counted(clock: Clock, recorder: Recorder) -> None:
    class Repeating(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            for number in attempts(3):
                if number == 2:
                    return super().load(session_id)
            raise StoreUnavailable

    browser = Site(WatchedStore(Repeating(clock=clock)), clock, observers=[recorder]).browser()
    browser.visit(write(n=1))
    browser.visit(read("n"))
    browser.visit(read("n"))
    assert [(call.operation, call.attempts) for call in recorder.calls] == [("save", 1), ("load", 3), ("load", 3)]
