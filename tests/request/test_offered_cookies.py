"""A cookie that is merely offered replaces no good one, and a form of another site takes no session away."""

import logging
from typing import Any

import pytest

from prism_wsgi import MemoryStore
from tests.support.browsing import Browser, Clock, Site, read, write

CROSS_SITE: dict[str, Any] = {"HTTP_SEC_FETCH_SITE": "cross-site"}
FORM: dict[str, Any] = {"REQUEST_METHOD": "POST", **CROSS_SITE}
FORGED = f"{'A' * 43}.1800000000.{'B' * 43}"
ANOTHER = f"{'C' * 43}.0.{'D' * 43}"


def offered(site: Site, **environ: Any) -> bool:
    return bool(site.browser().visit(**environ).all("Set-Cookie"))


def logged_in(site: Site) -> Browser:
    browser = site.browser()
    browser.visit(lambda session: session.login("ada"))
    return browser


def user_of(browser: Browser) -> Any:
    return browser.visit(lambda session: session.user).result


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"REQUEST_METHOD": "HEAD"},
        {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_SEC_FETCH_DEST": "document"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_SEC_FETCH_DEST": "iframe"},
        {"HTTP_ORIGIN": "https://shop.example", "HTTP_HOST": "shop.example:443"},
        {"HTTP_COOKIE": "prism_session=nonsense"},
        {"HTTP_COOKIE": "other=" + FORGED},
    ],
    ids=str,
)
def test_a_page_that_a_visitor_asks_for_offers_a_cookie(environ: dict[str, Any]) -> None:
    assert offered(Site(), **environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "DELETE"},
        CROSS_SITE,
        {"HTTP_ORIGIN": "https://evil.example", "HTTP_HOST": "shop.example"},
        {"HTTP_ORIGIN": "null", "HTTP_HOST": "shop.example"},
        {"HTTP_ORIGIN": "https://[evil", "HTTP_HOST": "shop.example"},
        {"HTTP_SEC_FETCH_DEST": "image"},
        {"HTTP_SEC_FETCH_DEST": "empty"},
        {"HTTP_COOKIE": f"prism_session={FORGED}"},
        {"HTTP_COOKIE": f'prism_session="{FORGED}"'},
        {"HTTP_COOKIE": f"theme=dark, prism_session={FORGED}"},
        {"HTTP_COOKIE": f"prism_session={FORGED},{ANOTHER}"},
        {"HTTP_COOKIE": f"prism_session={FORGED}; prism_session={ANOTHER}"},
    ],
    ids=str,
)
def test_where_a_good_cookie_may_have_stayed_at_home_none_is_offered(environ: dict[str, Any]) -> None:
    site = Site()
    assert not offered(site, **environ)
    if "HTTP_ORIGIN" not in environ and environ is not CROSS_SITE:
        assert site.browser().visit(write(n=1), **environ).all("Set-Cookie")  # a write gets its cookie as ever


def test_no_cookie_is_offered_beside_an_earlier_form_of_another_key() -> None:
    site = Site(cookie_name="__Host-session", cookie_fallbacks=["prism_session"])
    assert not offered(site, HTTP_COOKIE=f"prism_session={FORGED}")


def test_a_form_of_another_site_does_not_log_the_visitor_out(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    ada = logged_in(site)
    page = site.browser().visit(write(flash="wrong password"), **FORM)
    assert (page.status, page.all("Set-Cookie")) == (200, [])
    assert [record.__dict__["reason"] for record in caplog.records] == ["write_withheld"]
    assert user_of(ada) == "ada"


def test_the_request_itself_sees_what_it_wrote_and_nothing_is_stored() -> None:
    memory = MemoryStore()

    def write_and_read(session: Any) -> Any:
        session["n"] = 1
        with session.atomic():
            session["n"] += 1
        return session["n"]

    assert Site(memory).browser().visit(write_and_read, **FORM).result == 2
    assert len(memory) == 0


def test_a_login_that_comes_back_from_another_site_gets_its_cookie() -> None:
    site = Site(user_id_key="user_id")
    for log_in in (lambda session: session.login("ada"), write(user_id="ada")):
        browser = site.browser()
        browser.visit(log_in, **FORM)
        assert user_of(browser) == "ada"


@pytest.mark.parametrize("cookie", [f"prism_session={FORGED}", f'a=b, prism_session="{FORGED}"', f"old={FORGED}"])
def test_a_form_of_another_site_that_brought_a_token_under_a_name_of_ours_is_kept(cookie: str) -> None:
    site = Site(cookie_fallbacks=["old"])
    assert site.browser().visit(write(n=1), **FORM, HTTP_COOKIE=cookie).all("Set-Cookie")


@pytest.mark.parametrize(
    "cookie",
    [
        "prism_session=x",
        "prism_session=",
        f"my_prism_session={FORGED}",
        f"x-prism_session={FORGED}",
        f"theme=prism_session; a={FORGED}",
        f"Prism_Session={FORGED}",
    ],
)
def test_a_form_of_another_site_that_brought_no_token_under_a_name_of_ours_is_withheld(cookie: str) -> None:
    page = Site().browser().visit(write(n=1), **FORM, HTTP_COOKIE=cookie)
    assert (page.status, page.all("Set-Cookie")) == (200, [])


def test_another_applications_cookie_whose_name_ends_like_ours_keeps_none_from_being_offered() -> None:
    assert offered(Site(), HTTP_COOKIE=f"my_prism_session={FORGED}")


def test_where_the_cookie_travels_with_forms_of_other_sites_a_write_is_kept() -> None:
    browser = Site(samesite="none").browser()
    browser.visit(write(n=1), **FORM)
    assert browser.visit(read("n")).result == 1


def test_contradicting_cookies_are_all_replaced_by_a_login_and_by_a_write() -> None:
    for change in (lambda session: session.login("ada"), write(n=1)):
        site = Site(domain="shop.example", cookie_fallbacks=["old_name"])
        first, second = logged_in(site), logged_in(site)
        page = site.browser().visit(change, HTTP_COOKIE=f"{first.cookie_header}; {second.cookie_header}")
        ours, *deletions = page.all("Set-Cookie")
        assert ours.startswith("prism_session=A")
        assert "Domain=shop.example" in ours
        assert {(line.partition("=")[0], "Domain" in line, "Max-Age=0" in line) for line in deletions} == {
            ("prism_session", False, True),
            ("old_name", False, True),
        }


# Requests that do not count as use


def test_a_passive_request_reads_without_counting_as_use(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    site = Site(None, clock, ttl=900, is_passive=lambda environ: environ["PATH_INFO"] == "/left")
    browser = logged_in(site)
    clock.advance(800)
    page = browser.visit(lambda session: session.expires_at.timestamp() - clock(), path="/left")
    assert (page.result, page.all("Set-Cookie")) == (100.0, [])
    clock.advance(101)
    assert user_of(browser) is None


def test_what_a_passive_request_writes_is_saved_and_moves_no_expiry() -> None:
    clock = Clock()
    browser = logged_in(Site(None, clock, ttl=900))
    clock.advance(800)

    def note(session: Any) -> None:
        session.passive = True
        session["seen"] = 1

    def look(session: Any) -> Any:
        session.passive = True
        return session["seen"]

    browser.visit(note)
    clock.advance(99)
    assert browser.visit(look).result == 1
    clock.advance(2)
    assert user_of(browser) is None
