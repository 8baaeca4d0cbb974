"""Earlier forms of the session cookie: another name, domain or path."""

from functools import partial
from typing import Any

import pytest

from prism_wsgi import ConfigError, Cookie, Session, SessionMiddleware
from tests.support.browsing import Browser, Site, plain_page, read, write
from tests.support.keys import OTHER_SECRET
from tests.support.keys import SECRET as SIGNING_SECRET

pytest_plugins = ["tests.support.site_fixtures"]


def change(browser: Browser, **settings: Any) -> None:
    """Serve the browser from now on by a site with other settings, over the same store."""
    browser.site = Site(browser.site.store, browser.site.clock, **settings)


def log_in(user: str, session: Session) -> None:
    session.login(user)


def names(browser: Browser) -> list[str]:
    return sorted(cookie.name for cookie in browser.jar.cookies.values())


RENAMED = {"cookie_name": "__Host-session", "cookie_fallbacks": ["prism_session"]}


def test_a_renamed_cookie_keeps_the_session_and_its_id(site: Site) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.login("ada"))
    before = browser.visit(lambda session: session.id).result
    change(browser, **RENAMED)
    assert browser.visit(lambda session: (session.user, session.id)).result == ("ada", before)
    assert names(browser) == ["__Host-session"]


def test_an_earlier_name_is_kept_while_workers_run_that_know_nothing_else(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    change(browser, **RENAMED, keep_fallbacks=True)
    browser.visit(read("n"))
    assert names(browser) == ["__Host-session", "prism_session"]
    browser.visit(lambda session: session.logout())
    assert names(browser) == []


def test_a_logout_deletes_a_kept_earlier_form_though_the_request_goes_on_to_write(site: Site) -> None:
    def leave(session: Session) -> None:
        session.logout()
        session.flash("Goodbye")

    browser = site.browser()
    browser.visit(partial(log_in, "ada"))
    change(browser, **RENAMED, keep_fallbacks=True)
    browser.visit(leave)
    assert names(browser) == ["__Host-session"]


def test_a_logout_by_a_login_library_deletes_a_kept_earlier_form(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(user_id="7"))
    change(browser, **RENAMED, keep_fallbacks=True, user_id_key="user_id")
    browser.visit(lambda session: session.pop("user_id"))
    assert names(browser) == ["__Host-session"]


def test_the_present_cookie_counts_more_than_an_earlier_one(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n="old"))
    old = browser.cookie_header
    change(browser, **RENAMED)
    other = browser.site.browser()
    other.visit(write(n="new"))
    page = browser.site.browser().visit(read("n"), HTTP_COOKIE=f"{other.cookie_header}; {old}")
    assert page.result == "new"


@pytest.mark.parametrize("value", ["forged.1.x", "A" * 43 + ".1800000000." + "B" * 43])
def test_a_forged_earlier_cookie_opens_nothing_and_asks_nothing(site: Site, value: str) -> None:
    browser = site.browser()
    change(browser, **RENAMED)
    browser.site.calls.clear()
    assert browser.visit(read("n"), HTTP_COOKIE=f"prism_session={value}").result is None
    assert browser.site.calls == []


def test_an_earlier_name_is_verified_by_its_own_key(site: Site) -> None:
    """The name is part of what is signed: a value under another name is another cookie."""
    browser = site.browser()
    browser.visit(write(n=1))
    token = browser.token
    change(browser, **RENAMED)
    assert browser.visit(read("n"), HTTP_COOKIE=f"__Host-session={token}").result is None


@pytest.mark.parametrize(("before", "after"), [(None, "example"), ("example", None)])
def test_a_domain_that_comes_or_goes_leaves_one_cookie(site: Site, before: str | None, after: str | None) -> None:
    browser = site.browser()
    change(browser, domain=before)
    browser.visit(lambda session: session.login("ada"))
    site.clock.advance(1000)
    change(browser, domain=after, cookie_fallbacks=[Cookie("prism_session", "", domain=before)])
    for user in ("ada", "bob"):
        browser.visit(partial(log_in, user))
        assert browser.visit(lambda session: session.user).result == user
        assert len(browser.jar.cookies) == 1
    browser.visit(lambda session: session.logout())
    assert len(browser.jar.cookies) == 0


def test_another_secret_makes_an_earlier_form_worthless(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    change(browser, **RENAMED, secret=OTHER_SECRET)
    assert browser.visit(read("n")).result is None


@pytest.mark.parametrize(
    "value", ["prism_session", [5], ["a b"], ["prism_session"], [Cookie("prism_session", "")]], ids=str
)
def test_what_is_no_earlier_form_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="cookie_fallbacks"):
        SessionMiddleware(plain_page, secret=SIGNING_SECRET, cookie_fallbacks=value)
