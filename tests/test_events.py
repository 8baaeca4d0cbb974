"""What is logged: one line with a reason code for what matters, and never what could be used or is private."""

import logging
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from prism_wsgi import Session, StoreUnavailable
from prism_wsgi.events import LINES_PER_WINDOW, WINDOW, EventLog, Reason
from tests.support.browsing import Browser, Site, StoreDownError, ThreeVerbStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]

NAME = "prism_session"


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the log, in seconds; it stands still, so that a busy machine does not begin another window."""
    moment = [1000.0]
    monkeypatch.setattr("prism_wsgi.events.time", SimpleNamespace(monotonic=lambda: moment[0]))
    return moment


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prism_wsgi")


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if record.name == "prism_wsgi"]


def visitor(site: Site) -> Browser:
    browser = site.browser()
    browser.visit(write(n=1))
    return browser


def session_id(browser: Browser) -> Any:
    return browser.visit(lambda session: session.id).result


def logout(session: Session) -> None:
    session.logout()


def forge(browser: Browser) -> None:
    browser.visit(read("n"), HTTP_COOKIE=f"{NAME}={browser.token[:-4]}AAAA")


def malform(browser: Browser) -> None:
    browser.visit(read("n"), HTTP_COOKIE=f"{NAME}=junk")


def expire(browser: Browser) -> None:
    header = browser.cookie_header
    browser.site.clock.advance(4000)
    browser.visit(read("n"), HTTP_COOKIE=header)


def replay_after_logout(browser: Browser) -> None:
    header = browser.cookie_header
    browser.visit(logout)
    browser.visit(read("n"), HTTP_COOKIE=header)


def replay_after_login(browser: Browser) -> None:
    header = browser.cookie_header
    browser.visit(lambda session: session.login("ann"))
    browser.site.browser().visit(read("n"), HTTP_COOKIE=header)


def write_after_logout(browser: Browser) -> None:
    header = browser.cookie_header

    def slow(session: Session) -> None:
        session["n"] = 2
        browser.visit(logout)

    browser.site.browser().visit(slow, HTTP_COOKIE=header)


def collide(browser: Browser) -> None:
    header = browser.cookie_header

    def slow(session: Session) -> None:
        session["m"] = 2
        browser.visit(write(n=3))

    browser.site.browser().visit(slow, HTTP_COOKIE=header)


def write_from_elsewhere(browser: Browser) -> None:
    browser.site.browser().visit(write(n=1), REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="cross-site")


def two_cookies(browser: Browser) -> None:
    other = visitor(browser.site)
    browser.visit(read("n"), HTTP_COOKIE=f"{browser.cookie_header}; {other.cookie_header}")


def break_the_store(browser: Browser) -> None:
    store = browser.site.store
    assert isinstance(store, ThreeVerbStore)
    store.failing = {"load"}
    assert browser.visit(read("n")).status == 503


def cache(browser: Browser) -> None:
    browser.visit(lambda session: session.login("ann"), headers=[("Cache-Control", "public")])


EVENTS: list[tuple[Callable[[Browser], None], str, int]] = [
    (forge, "forged", logging.WARNING),
    (malform, "forged", logging.WARNING),
    (expire, "expired", logging.INFO),
    (replay_after_logout, "unknown_id", logging.INFO),
    (replay_after_login, "superseded_id", logging.INFO),
    (write_after_logout, "late_write_dropped", logging.WARNING),
    (write_from_elsewhere, "write_withheld", logging.WARNING),
    (collide, "conflict_merged", logging.DEBUG),
    (two_cookies, "duplicate_cookie", logging.WARNING),
    (break_the_store, "store_failed", logging.ERROR),
    (cache, "public_cache_overridden", logging.WARNING),
]


@pytest.mark.parametrize(("happen", "reason", "level"), EVENTS)
def test_what_matters_is_one_line_with_its_reason(
    site: Site, happen: Callable[[Browser], None], reason: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    browser = visitor(site)
    caplog.clear()
    happen(browser)
    assert reasons(caplog) == [reason]
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith(f"{reason}: ")


def test_every_reason_can_be_met() -> None:
    assert {reason for _, reason, _ in EVENTS} | {"unreadable_data"} == set(Reason)


def test_an_event_carries_the_id_and_nothing_else_of_the_session(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    browser = visitor(site)
    ended = session_id(browser)
    replay_after_logout(browser)
    record = caplog.records[-1]
    assert record.__dict__["session_id"] == ended
    assert record.getMessage().endswith(f"[session {ended}]")


def test_ordinary_visits_log_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    browser = visitor(site)
    for handler in (
        read("n"),
        write(n=2),
        lambda session: session.login("ann"),
        lambda session: session.regenerate(),
    ):
        browser.visit(handler)
        site.clock.advance(1000)
    browser.visit(logout)
    assert caplog.records == []


# An attacker can neither fill the disk nor write lines of their own


def test_a_thousand_forged_cookies_are_a_few_lines_and_no_store_call(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(plain=True)
    for number in range(1000):
        site.browser().visit(read("n"), HTTP_COOKIE=f"{NAME}={number:043}.0.{number:043}")
    assert len(caplog.records) <= LINES_PER_WINDOW
    assert site.calls == []


def test_one_reason_does_not_silence_another(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    for _ in range(100):
        log.emit(Reason.FORGED)
    log.emit(Reason.STORE_FAILED)
    assert reasons(caplog)[-1] == "store_failed"


def test_what_was_not_logged_is_counted_in_the_next_window(
    caplog: pytest.LogCaptureFixture, moment: list[float]
) -> None:
    log = EventLog()
    for _ in range(100):
        log.emit(Reason.FORGED)
    assert len(caplog.records) == LINES_PER_WINDOW
    moment[0] += WINDOW
    log.emit(Reason.FORGED)
    assert caplog.records[-1].__dict__["suppressed"] == 100 - LINES_PER_WINDOW
    assert f"({100 - LINES_PER_WINDOW} more of these were not logged)" in caplog.records[-1].getMessage()
    log.emit(Reason.FORGED)
    assert caplog.records[-1].__dict__["suppressed"] == 0


def test_a_silent_logger_costs_nothing_and_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    caplog.set_level(logging.CRITICAL, "prism_wsgi")
    for _ in range(100):
        log.emit(Reason.FORGED)
    caplog.set_level(logging.DEBUG, "prism_wsgi")
    log.emit(Reason.FORGED)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("nasty", ["\r\nforged: line", "\x1b[2J", "\x00", "\u2028x", "a\tb", "\x85", "\u202e"])
def test_control_characters_do_not_reach_the_log(site: Site, nasty: str, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(site.store, ThreeVerbStore)
    browser = visitor(site)
    site.store.failing = {"load"}
    site.store.error = StoreUnavailable(f"the driver said {nasty}")
    browser.visit(read("n"))
    sent = nasty.encode().decode("latin-1")
    browser.visit(read("n"), HTTP_COOKIE=f"{NAME}={sent}")
    browser.visit(read("n"), HTTP_COOKIE=f"{NAME}={browser.token}; {NAME}={sent}")
    for record in caplog.records:
        text = record.getMessage()
        assert text.isprintable()
        assert re.fullmatch(r"[ -~]*", text)


def test_a_failing_store_is_named_and_its_words_are_not_trusted(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A driver's message may quote the row."""
    assert isinstance(site.store, ThreeVerbStore)
    browser = visitor(site)
    site.store.failing = {"load"}
    site.store.error = StoreDownError("Key (id)=(canary) holds canary")
    browser.visit(read("n"))
    assert "canary" not in caplog.text
    assert "load raised StoreDownError" in caplog.text


# Canaries through the whole of it


def test_a_store_that_says_it_is_unavailable_is_logged_in_its_own_words(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    assert isinstance(site.store, ThreeVerbStore)
    site.store.failing, site.store.error = {"load"}, StoreUnavailable("the pool is empty")
    assert browser.visit(read("n")).status == 503
    assert [record.__dict__["reason"] for record in caplog.records] == ["store_failed"]
    assert "the pool is empty" in caplog.text


def test_no_cookie_secret_or_data_is_ever_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(site.store, ThreeVerbStore)
    tokens = set()
    for happen, _, _ in EVENTS:
        browser = site.browser()
        browser.visit(write(n=1, password="canary-data"))
        tokens.add(browser.token)
        happen(browser)
        tokens |= {cookie.value for cookie in browser.jar.cookies.values()}
        site.store.failing = set()
    text = caplog.text + str([record.__dict__ for record in caplog.records])
    assert len(reasons(caplog)) >= len(EVENTS)
    assert "canary-data" not in text
    for token in tokens:
        secret, _, signature = token.split(".")
        assert secret not in text
        assert signature not in text
