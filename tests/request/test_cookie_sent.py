"""The cookie the middleware sends: legal whatever the settings, one a response, and always deletable."""

import locale
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_wsgi import ConfigError, Cookie, InvalidCookie, SameSite, Session
from prism_wsgi.cookies import MAX_AGE_LIMIT
from tests.support.browsing import Browser, Site, read, write

pytest_plugins = ["tests.support.site_fixtures"]

# RFC 6265bis 4.1.1, with the date as RFC 9110 5.6.7 wants it
DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
MONTH = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
DATE = rf"{DAY}, [0-9]{{2}} {MONTH} [0-9]{{4}} [0-9:]{{8}} GMT"
SET_COOKIE = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]+=[\x21\x23-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]*"
    rf"(; (Expires={DATE}|Max-Age=(0|[1-9][0-9]*)|Domain=[A-Za-z0-9.-]+|Path=/[\x20-\x3A\x3C-\x7E]*"
    r"|Secure|HttpOnly|SameSite=(Strict|Lax|None)|Partitioned))*"
)


def test_the_first_cookie_has_every_attribute_of_the_defaults(site: Site) -> None:
    line = site.browser().visit().all("Set-Cookie")[0]
    value = r"[A-Za-z0-9_-]{43}\.0\.[A-Za-z0-9_-]{43}"
    assert re.fullmatch(rf"prism_session={value}; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax", line)


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({"secure": False}, "Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"),
        ({"httponly": False}, "Max-Age=3600; Path=/; Secure; SameSite=Lax"),
        ({"samesite": "strict"}, "Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Strict"),
        ({"samesite": SameSite.NONE}, "Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=None"),
        ({"path": "/shop"}, "Max-Age=3600; Path=/shop; Secure; HttpOnly; SameSite=Lax"),
        ({"domain": "shop.example"}, "Max-Age=3600; Path=/; Domain=shop.example; Secure; HttpOnly; SameSite=Lax"),
        ({"partitioned": True}, "Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned"),
        ({"persistent": False}, "Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"cookie_name": "__Host-sid"}, "Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ],
)
def test_each_cookie_setting_is_an_attribute_of_set_cookie(settings: dict[str, Any], attributes: str) -> None:
    line = Site(**settings).browser().visit(path="/shop/").all("Set-Cookie")[0]
    assert line.partition("; ")[2] == attributes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"secure": False},
        {"path": "/shop"},
        {"domain": "shop.example"},
        {"domain": "example", "cookie_name": "__Secure-sid"},
        {"samesite": "none", "partitioned": True},
        {"cookie_name": "__Host-sid"},
        {"cookie_name": "__Host-Http-sid"},
        {"persistent": False},
    ],
)
def test_after_logout_the_browser_has_no_cookie(settings: dict[str, Any]) -> None:
    browser = Site(**settings).browser()
    browser.visit(write(n=1), path="/shop/cart")
    assert browser.jar.cookies
    page = browser.visit(Session.logout, path="/shop/cart")
    assert not browser.jar.cookies
    assert page.attributes(browser.site.middleware.site.cookies.name)["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_visitor_without_a_cookie_is_told_to_delete_none(site: Site) -> None:
    assert site.browser().visit(Session.logout).all("Set-Cookie") == []


def regenerate_three_times(session: Session) -> None:
    for _ in range(3):
        session.regenerate()
        session["n"] = session.get("n", 0) + 1


def log_out_and_begin_anew(session: Session) -> None:
    session.logout()
    session["n"] = 1
    session.regenerate()


@pytest.mark.parametrize("handler", [regenerate_three_times, log_out_and_begin_anew])
@pytest.mark.parametrize("known", [False, True])
def test_a_response_sets_our_cookie_once(site: Site, handler: Callable[[Session], None], known: bool) -> None:
    browser = site.browser()
    if known:
        browser.visit(write(n=0))
    page = browser.visit(handler)
    assert len(page.all("Set-Cookie")) == 1
    assert browser.visit(read("n")).result == (3 if handler is regenerate_three_times else 1)


def test_other_cookies_of_the_application_stay_as_they_are(site: Site) -> None:
    theirs = [("Set-Cookie", "theme=dark; Path=/"), ("set-cookie", "lang=en, de"), ("Set-Cookie", "prism_session2=x")]
    page = site.browser().visit(write(n=1), headers=theirs)
    assert page.all("Set-Cookie")[:3] == [value for _, value in theirs]
    assert len(page.all("Set-Cookie")) == 4


def test_a_cookie_of_our_name_from_the_application_gives_way(site: Site) -> None:
    page = site.browser().visit(write(n=1), headers=[("Set-Cookie", "prism_session=mine; Path=/")])
    assert len(page.all("Set-Cookie")) == 1
    assert page.cookies["prism_session"] != "mine"


def test_no_attribute_is_repeated(site: Site) -> None:
    browser = site.browser()
    for handler in (write(n=1), Session.logout):
        line = browser.visit(handler).all("Set-Cookie")[0]
        names = [attribute.partition("=")[0] for attribute in line.split("; ")[1:]]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "spoofed",
    [
        {"HTTP_X_FORWARDED_PROTO": "http"},
        {"HTTP_X_FORWARDED_HOST": "evil.example"},
        {"HTTP_HOST": "evil.example"},
        {"HTTP_FORWARDED": "proto=http;host=evil.example"},
        {"wsgi.url_scheme": "http"},
    ],
)
def test_the_request_does_not_change_the_attributes(spoofed: dict[str, Any]) -> None:
    site = Site()
    assert site.browser().visit(**spoofed).attributes() == site.browser().visit().attributes()


def test_a_cookie_for_the_browser_session_ends_with_it() -> None:
    browser = Site(persistent=False).browser()
    browser.visit(write(n=1))
    browser.jar.restart()
    assert browser.visit(read("n")).result is None


def test_a_persistent_session_outlives_the_browser_whatever_the_setting() -> None:
    browser = Site(persistent=False).browser()

    def remember(session: Session) -> None:
        session["n"] = 1
        session.persistent = True

    assert browser.visit(remember).attributes()["max-age"] == "3600"
    browser.jar.restart()
    assert browser.visit(lambda session: (session["n"], session.persistent)).result == (1, True)


def test_a_session_that_is_not_persistent_ends_with_the_browser_whatever_the_setting() -> None:
    browser = Site().browser()
    browser.visit(write(n=1))

    def forget(session: Session) -> None:
        session.persistent = False

    assert "max-age" not in browser.visit(forget).attributes()
    browser.jar.restart()
    assert browser.cookie_header == ""


# Cookie, the value


def test_a_cookie_is_formatted_with_all_its_attributes() -> None:
    cookie = Cookie(
        "session",
        "abc123",
        domain="example.com",
        max_age=3600,
        expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        samesite=SameSite.STRICT,
        partitioned=True,
    )
    assert cookie.header_value == (
        "session=abc123; Max-Age=3600; Path=/; Domain=example.com; Expires=Wed, 02 Jan 2030 03:04:05 GMT; "
        "Secure; HttpOnly; SameSite=Strict; Partitioned"
    )


def test_a_deletion_repeats_every_attribute() -> None:
    cookie = Cookie("__Host-a", "b", max_age=10, samesite="none", partitioned=True, httponly=False)
    assert cookie.deletion().header_value == (
        "__Host-a=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; SameSite=None; Partitioned"
    )


def test_a_date_of_another_zone_is_sent_in_gmt() -> None:
    east = datetime(2030, 1, 2, 3, 0, tzinfo=UTC).astimezone(tz=None)
    assert "Expires=Wed, 02 Jan 2030 03:00:00 GMT" in Cookie("a", "b", expires=east).header_value


def test_the_date_is_english_under_any_locale(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: locale.setlocale(locale.LC_TIME, "C"))
    for name in ("de_DE.UTF-8", "ja_JP.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_TIME, name)
        except locale.Error:
            continue
        cookie = Cookie("a", "b", expires=datetime(2030, 5, 2, tzinfo=UTC))
        assert "Expires=Thu, 02 May 2030 00:00:00 GMT" in cookie.header_value


def test_a_cookie_cannot_be_changed() -> None:
    cookie = Cookie("a", "b")
    with pytest.raises(AttributeError):
        cookie.value = "c"  # type: ignore[misc]


BAD_COOKIES: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": "a;b"}, "name"),
    ({"name": "a=b"}, "name"),
    ({"name": "naïve"}, "name"),
    ({"name": "a\r\nX"}, "name"),
    ({"name": None}, "name"),
    ({"name": b"a"}, "name"),
    ({"value": 5}, "value"),
    ({"value": b"b"}, "value"),
    ({"value": "a;b"}, "value"),
    ({"value": "a\r\nSet-Cookie: b=c"}, "value"),
    ({"value": "a\n"}, "value"),
    ({"value": 'a"b'}, "value"),
    ({"value": "a,b"}, "value"),
    ({"value": "é"}, "value"),
    ({"value": "x" * 4096}, "4096"),
    ({"path": "shop"}, "path"),
    ({"path": None}, "path"),
    ({"path": "/a;b"}, "path"),
    ({"path": "/a\n"}, "path"),
    ({"path": "/" + "x" * 1024}, "1024"),
    ({"domain": ""}, "domain"),
    ({"domain": b"example.com"}, "domain"),
    ({"domain": "..example.com"}, "domain"),
    ({"domain": "https://example.com"}, "domain"),
    ({"domain": "a;b"}, "domain"),
    ({"domain": "a" * 1025}, "1024"),
    ({"max_age": -1}, "max_age"),
    ({"max_age": MAX_AGE_LIMIT + 1}, "max_age"),
    ({"max_age": 2**70}, "max_age"),
    ({"max_age": 1.5}, "max_age"),
    ({"max_age": True}, "max_age"),
    ({"max_age": "60"}, "max_age"),
    ({"expires": datetime(2030, 1, 1)}, "expires"),  # noqa: DTZ001
    ({"expires": "tomorrow"}, "expires"),
    ({"samesite": "none", "secure": False}, "secure"),
    ({"samesite": "sometimes"}, "samesite"),
    ({"samesite": None}, "samesite"),
    ({"partitioned": True, "secure": False}, "secure"),
    ({"name": "__Host-a", "secure": False}, "secure"),
    ({"name": "__Host-a", "path": "/a"}, "path"),
    ({"name": "__Host-a", "domain": "example.com"}, "domain"),
    ({"name": "__Secure-a", "secure": False}, "secure"),
    ({"name": "__HOST-a"}, "__Host-"),
    ({"name": "__secure-a"}, "__Secure-"),
    ({"name": "__Http-a", "httponly": False}, "httponly"),
    ({"name": "__Host-Http-a", "httponly": False}, "httponly"),
    ({"name": "__Host-Http-a", "path": "/a"}, "path"),
]


@pytest.mark.parametrize(("change", "named"), BAD_COOKIES)
def test_a_cookie_that_browsers_would_drop_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidCookie, match=re.escape(named)):
        Cookie(**{"name": "a", "value": "b", **change})


SETTINGS = {"name": "cookie_name", "value": None, "max_age": None, "expires": None}
BAD_SETTINGS = [
    {SETTINGS.get(name, name): value for name, value in change.items()}
    for change, _ in BAD_COOKIES
    if not {"value", "max_age", "expires"} & change.keys()
]


@pytest.mark.parametrize("settings", BAD_SETTINGS)
def test_a_setting_whose_cookie_browsers_would_drop_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Site(**settings)


def test_a_name_that_leaves_no_room_for_the_token_is_refused() -> None:
    Site(cookie_name="n" * 1000).browser().visit()
    with pytest.raises(ConfigError, match="4096"):
        Site(cookie_name="n" * 4000)


@given(
    name=st.text(max_size=12),
    value=st.text(max_size=20),
    path=st.one_of(st.just("/"), st.text(max_size=20).map(lambda text: f"/{text}")),
    domain=st.one_of(st.none(), st.just("example.com"), st.text(max_size=12)),
    max_age=st.one_of(st.none(), st.integers(-5, 2**70)),
    expires=st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
    samesite=st.sampled_from(SameSite),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_every_cookie_that_is_accepted_matches_the_grammar_of_set_cookie(
    name: str,
    value: str,
    path: str,
    domain: str | None,
    max_age: int | None,
    expires: datetime | None,
    samesite: SameSite,
    flags: tuple[bool, bool, bool],
) -> None:
    secure, httponly, partitioned = flags
    try:
        cookie = Cookie(
            name,
            value,
            path=path,
            domain=domain,
            max_age=max_age,
            expires=expires,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
    except InvalidCookie:
        return
    assert SET_COOKIE.fullmatch(cookie.header_value)
    assert SET_COOKIE.fullmatch(cookie.deletion().header_value)


def test_the_cookie_that_is_renewed_matches_the_grammar(site: Site) -> None:
    browser: Browser = site.browser()
    browser.visit(write(n=1))
    site.clock.advance(timedelta(minutes=30).total_seconds())
    line = browser.visit(read("n")).all("Set-Cookie")[0]
    assert SET_COOKIE.fullmatch(line)


def test_a_plain_cookie_has_these_attributes_and_no_others() -> None:
    assert Cookie("a", "b").header_value == "a=b; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_a_cookie_lives_for_400_days_at_most() -> None:
    assert "Max-Age=34560000" in Cookie("a", "b", max_age=34_560_000).header_value
    with pytest.raises(InvalidCookie, match="400 days"):
        Cookie("a", "b", max_age=34_560_001)


def test_a_cookie_may_be_as_large_as_browsers_take_and_no_larger() -> None:
    assert Cookie("a", "b" * 4095).value
    assert Cookie("a", "b", path="/" + "p" * 1023).path
    with pytest.raises(InvalidCookie, match="4096"):
        Cookie("a", "b" * 4096)
    with pytest.raises(InvalidCookie, match="1024"):
        Cookie("a", "b", path="/" + "p" * 1024)
