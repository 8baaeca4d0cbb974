"""A store that fails: 503, and never a stranger's session, a lost cookie or a logout that was none."""

import logging
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from prism_wsgi import MemoryStore, Session, SessionConflict, StoreError, StoreUnavailable
from tests.support.browsing import Browser, Clock, Page, Site, StoreDownError, ThreeVerbStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]

TEXT = [("Content-Type", "text/plain")]
VERBS = {"load", "save", "destroy", "touch", "replace"}


def regenerate(session: Session) -> None:
    session.regenerate()


def logout(session: Session) -> None:
    session.logout()


def login(session: Session) -> None:
    session.login("ann")


def count(session: Session) -> None:
    with session.atomic():
        session["n"] += 1


def visitor(site: Site) -> Browser:
    browser = site.browser()
    browser.visit(write(n=1))
    site.clock.advance(1000)  # so that activity is due to be recorded
    site.calls.clear()
    return browser


def watched(site: Site) -> ThreeVerbStore:
    assert isinstance(site.store, ThreeVerbStore)
    return site.store


FAILURES: list[tuple[str, Callable[[Session], object], set[str]]] = [
    ("read", read("n"), {"load"}),
    ("write", write(n=2), {"load"}),
    ("write", write(n=2), {"save"}),
    ("regenerate", regenerate, {"load"}),
    ("regenerate", regenerate, {"replace", "save"}),
    ("login", login, {"replace", "save"}),
    ("logout", logout, {"load"}),
    ("logout", logout, {"destroy", "save"}),
    ("logout", logout, VERBS),
    ("count", count, {"save"}),
    ("count", count, {"load"}),
]
IDS = [f"{name} while {' and '.join(sorted(verbs))} fails" for name, _, verbs in FAILURES]


def is_refused(page: Page) -> bool:
    """Tell whether the answer is a 503 that leaves the browser's cookies alone."""
    (retry_after,) = page.all("Retry-After")
    return page.status == 503 and int(retry_after) > 0 and not page.all("Set-Cookie") and b"hello" not in page.body


@pytest.mark.parametrize(("_name", "handler", "failing"), FAILURES, ids=IDS)
@pytest.mark.parametrize(
    "error", [StoreDownError("down"), StoreUnavailable("down"), StoreError("full"), OSError("disk")]
)
def test_a_failing_store_is_a_503_that_sets_and_deletes_no_cookie(
    site: Site, _name: str, handler: Any, failing: set[str], error: Exception
) -> None:
    browser = visitor(site)
    store = watched(site)
    store.failing, store.error = failing, error
    cookie = browser.cookie_header
    page = browser.visit(handler)
    assert is_refused(page)
    assert page.all("Cache-Control") == ["no-store"]
    assert browser.cookie_header == cookie
    store.failing = set()
    assert browser.visit(lambda session: (session["n"], session.user)).result == (1, None)


@pytest.mark.parametrize(
    "error", [StoreDownError("down"), StoreUnavailable("down"), StoreError("full"), OSError("disk")]
)
def test_a_page_that_only_reads_is_answered_though_its_use_cannot_be_recorded(
    site: Site, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    browser = visitor(site)
    store = watched(site)
    store.failing, store.error = {"touch", "save"}, error
    page = browser.visit(read("n"))
    assert (page.status, page.result, page.all("Set-Cookie")) == (200, 1, [])
    assert [record.__dict__["reason"] for record in caplog.records] == ["store_failed"]
    store.failing = set()
    assert browser.visit(read("n")).cookies


def test_a_touch_that_takes_other_arguments_is_an_error_in_the_program(site: Site) -> None:
    browser = visitor(site)
    store = watched(site)
    store.failing, store.error = {"touch", "save"}, TypeError("touch() takes 2 positional arguments")
    assert is_refused(browser.visit(read("n")))


@pytest.mark.parametrize(("_name", "handler", "failing"), FAILURES, ids=IDS)
def test_in_raise_mode_the_error_goes_to_the_server(
    store: ThreeVerbStore, _name: str, handler: Any, failing: set[str]
) -> None:
    browser = visitor(Site(store, on_store_error="raise"))
    store.failing = failing
    with pytest.raises(StoreUnavailable) as caught:
        browser.visit(handler)
    assert isinstance(caught.value.__cause__, StoreDownError)
    store.failing = set()
    assert browser.visit(lambda session: (session["n"], session.user)).result == (1, None)


@pytest.mark.parametrize(("_name", "handler", "failing"), FAILURES, ids=IDS)
def test_a_generator_that_uses_a_failing_store_is_a_503(
    site: Site, _name: str, handler: Any, failing: set[str]
) -> None:
    browser = visitor(site)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        handler(environ["prism.session"])
        yield b"hello"

    watched(site).failing = failing
    assert is_refused(browser.request(app))
    watched(site).failing = set()
    assert browser.visit(lambda session: (session["n"], session.user)).result == (1, None)


def test_the_first_write_of_a_visitor_that_fails_gives_no_cookie(site: Site) -> None:
    watched(site).failing = {"save"}
    browser = site.browser()
    assert is_refused(browser.visit(write(n=1)))
    assert browser.cookie_header == ""


def test_a_page_that_does_not_touch_the_session_works_without_the_store(site: Site) -> None:
    browser = visitor(site)
    watched(site).failing = VERBS
    assert browser.visit().status == 200
    assert list(site.browser().visit().cookies) == ["prism_session"]


def test_a_head_request_is_refused_without_a_body(site: Site) -> None:
    browser = visitor(site)
    watched(site).failing = {"load"}
    page = browser.visit(read("n"), REQUEST_METHOD="HEAD")
    assert (page.status, page.body) == (503, b"")


# An application that does something about it


def swallowing(use: Callable[[Session], object], *, status: str = "200 OK") -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            use(environ["prism.session"])
        except StoreUnavailable:
            body = b"without a session"
        else:
            body = b"hello"
        start_response(status, TEXT)
        return [body]

    return app


def test_an_application_may_answer_without_the_session(site: Site) -> None:
    browser = visitor(site)
    watched(site).failing = {"load"}
    page = browser.request(swallowing(read("n")))
    assert (page.status, page.body) == (200, b"without a session")
    assert page.all("Set-Cookie") == []


def test_an_error_page_of_its_own_becomes_a_503(site: Site) -> None:
    browser = visitor(site)
    watched(site).failing = {"load"}
    assert is_refused(browser.request(swallowing(read("n"), status="500 Oops")))


def test_a_logout_whose_row_cannot_be_deleted_is_refused_and_ends_the_session_where_it_can(clock: Clock) -> None:
    store = ThreeVerbStore(MemoryStore(clock=clock))
    site = Site(store, clock)
    browser = visitor(site)
    store.failing = {"destroy"}
    assert is_refused(browser.visit(logout))
    store.failing = set()
    assert browser.visit(dict).result == {}
    assert browser.visit(logout).status == 200


def test_a_store_that_takes_no_writes_but_deletes_logs_out(clock: Clock) -> None:
    store = ThreeVerbStore(MemoryStore(clock=clock))
    browser = visitor(Site(store, clock))
    store.failing = {"save"}
    assert browser.visit(logout).status == 200
    assert browser.cookie_header == ""


@pytest.mark.parametrize("failing", [{"destroy", "save"}, {"load"}, VERBS])
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "500 Oops"])
def test_a_logout_that_failed_never_looks_like_a_success(site: Site, failing: set[str], status: str) -> None:
    browser = visitor(site)
    header = browser.cookie_header
    watched(site).failing = failing
    assert is_refused(browser.request(swallowing(logout, status=status)))
    assert browser.cookie_header == header
    watched(site).failing = set()
    assert browser.visit(read("n")).result == 1


def test_a_logout_that_works_the_second_time_is_a_success(site: Site) -> None:
    browser = visitor(site)
    header = browser.cookie_header

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = environ["prism.session"]
        watched(site).failing = {"destroy"}
        with pytest.raises(StoreUnavailable):
            session.logout()
        watched(site).failing = set()
        session.logout()
        start_response("200 OK", TEXT)
        return [b"bye"]

    assert browser.request(app).attributes()["max-age"] == "0"
    assert site.browser().visit(read("n"), HTTP_COOKIE=header).result is None


def test_a_read_that_works_the_second_time_is_a_read(site: Site) -> None:
    browser = visitor(site)

    def again(session: Session) -> object:
        watched(site).failing = {"load"}
        with pytest.raises(StoreUnavailable):
            session.get("n")
        watched(site).failing = set()
        session["m"] = 2
        return session["n"]

    assert browser.visit(again).result == 1
    assert browser.visit(read("m")).result == 2


def test_what_was_changed_before_the_store_failed_is_dropped_with_the_503(site: Site) -> None:
    browser = visitor(site)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = environ["prism.session"]
        session["n"] = 2
        watched(site).failing = {"load"}
        try:
            count(session)
        finally:
            watched(site).failing = set()
        start_response("200 OK", TEXT)
        yield b"hello"

    assert is_refused(browser.request(app))
    assert browser.visit(read("n")).result == 1


# Failures once the headers are out


def late(use: Callable[[Session], object]) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        yield b"one "
        use(environ["prism.session"])
        yield b"two"

    return app


def test_a_late_save_that_fails_is_logged_and_the_page_is_complete(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    browser = visitor(site)
    watched(site).failing = {"save"}
    page = browser.request(late(write(n=2)))
    assert (page.status, page.body) == (200, b"one two")
    assert "store_failed" in caplog.text


def test_a_late_save_that_fails_is_raised_in_raise_mode(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, on_store_error="raise"))
    store.failing = {"save"}
    with pytest.raises(StoreUnavailable):
        browser.request(late(write(n=2)))


def test_a_late_load_that_fails_is_the_applications_to_see(site: Site) -> None:
    browser = visitor(site)
    watched(site).failing = {"load"}
    with pytest.raises(StoreUnavailable):
        browser.request(late(read("n")))


# Rivals


def test_a_store_that_reports_conflicts_for_ever_is_a_503_in_bounded_attempts(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prism_wsgi.request.saving.pause", lambda attempt: None)
    browser = visitor(site)
    watched(site).failing, watched(site).error = {"save"}, SessionConflict("again")
    assert is_refused(browser.visit(write(n=2)))
    assert len(site.calls) < 100
    reasons = [record.reason for record in caplog.records if record.levelno > logging.DEBUG]  # type: ignore[attr-defined]
    assert reasons == ["store_failed"]
