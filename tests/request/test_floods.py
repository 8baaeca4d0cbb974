"""Floods of strangers: they cost no rows, no store calls, and no visitor who is there his session."""

from collections.abc import Callable

import pytest

from prism_wsgi import MemoryStore, Session
from tests.support.browsing import Clock, Site, ThreeVerbStore, WatchedStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]

BOTS = 300  # of each kind


def log_out(session: Session) -> None:
    session.logout()


def look(session: Session) -> None:
    assert dict(session) == {}
    assert session.user is None


@pytest.mark.parametrize("cookie_on", ["request", "write"])
def test_bots_that_look_and_log_out_leave_no_row_and_cost_no_store_call(cookie_on: str) -> None:
    memory = MemoryStore()
    site = Site(WatchedStore(memory), cookie_on=cookie_on)
    for _ in range(BOTS):
        assert site.browser().visit(look).status == 200
        assert site.browser().visit(log_out).all("Set-Cookie") == []
    assert len(memory) == 0
    assert site.calls == []


def test_bots_that_come_back_with_their_cookie_leave_no_row(site: Site) -> None:
    browser = site.browser()
    for handler in (look, log_out, look, log_out):
        browser.visit(handler)
    assert isinstance(site.store, ThreeVerbStore)
    assert site.store.store.stats().live == 0


FORGERIES: dict[str, Callable[[str], str]] = {
    "another signature": lambda token: token[:-4] + "AAAA",
    "another secret": lambda token: "AAAA" + token[4:],
    "junk": lambda token: "x" * 100,
    "expired": lambda token: token,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_and_expired_cookies_never_reach_the_store(forgery: str, clock: Clock) -> None:
    site = Site(clock=clock)
    browser = site.browser()
    browser.visit(write(n=1))
    header = f"prism_session={FORGERIES[forgery](browser.token)}"
    clock.advance(4000 if forgery == "expired" else 0)
    site.calls.clear()
    for _ in range(BOTS):
        site.browser().visit(look, HTTP_COOKIE=header)
    assert site.calls == []


def test_a_flood_of_written_sessions_evicts_nobody_who_comes_back_in_time(clock: Clock) -> None:
    """The policy of MemoryStore: a visitor stays unless `max_sessions` others were active since the last visit."""
    memory = MemoryStore(max_sessions=100, clock=clock)
    site = Site(WatchedStore(memory), clock)
    browser = site.browser()
    browser.visit(lambda session: session.login("ann"))
    for _ in range(5):
        for _ in range(99):
            site.browser().visit(write(n=1))
        assert browser.visit(lambda session: session.user).result == "ann"
        assert len(memory) == 100
    for _ in range(100):
        site.browser().visit(write(n=1))
    assert browser.visit(read("n")).result is None
