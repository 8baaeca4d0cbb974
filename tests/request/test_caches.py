"""Shared caches between the site and its visitors: nobody is served what belongs to somebody else."""

import inspect
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from prism_wsgi import NotLoggedIn, Session
from prism_wsgi.request.headers import make_private, vary_on_cookie
from tests.support.browsing import Browser, Page, Site, new_environ, read, write

pytest_plugins = ["tests.support.site_fixtures"]

PUBLIC = [
    "public",
    "max-age=60",
    "public, max-age=60",
    "s-maxage=60",
    "max-age=0, s-maxage=60",
    "MAX-AGE=60",
    'max-age="60"',
]
TEXT = [("Content-Type", "text/plain")]
NOT_PUBLIC = ["private", "no-store", "private, max-age=60", "no-cache", "max-age=0", "no-store, public", ""]


def suppressed(use: Callable[[], object]) -> None:
    with suppress(NotLoggedIn):
        use()


USES: dict[str, Callable[[Session], object]] = {
    "__contains__": lambda session: "n" in session,
    "__delitem__": lambda session: session.__delitem__("n"),
    "__eq__": lambda session: session == {},
    "__ne__": lambda session: session != {},
    "__getitem__": lambda session: session["n"],
    "__iter__": lambda session: list(session),
    "__len__": lambda session: len(session),
    "__repr__": lambda session: repr(session),
    "__reversed__": lambda session: None,  # a mapping without an order has none
    "__setitem__": lambda session: session.__setitem__("n", 1),
    "bool": lambda session: bool(session),
    "clear": lambda session: session.clear(),
    "get": lambda session: session.get("n"),
    "items": lambda session: list(session.items()),
    "keys": lambda session: list(session.keys()),
    "pop": lambda session: session.pop("n"),
    "popitem": lambda session: session.popitem(),
    "setdefault": lambda session: session.setdefault("n", 2),
    "update": lambda session: session.update(n=1),
    "values": lambda session: list(session.values()),
    "id": lambda session: session.id,
    "is_new": lambda session: session.is_new,
    "created_at": lambda session: session.created_at,
    "expires_at": lambda session: session.expires_at,
    "user": lambda session: session.user,
    "ttl": lambda session: session.ttl,
    "persistent": lambda session: session.persistent,
    "is_fresh": lambda session: session.is_fresh(300),
    "actor": lambda session: session.actor,
    "authenticated_at": lambda session: session.authenticated_at,
    "auth_method": lambda session: session.auth_method,
    "max_lifetime": lambda session: session.max_lifetime,
    "other_sessions": lambda session: session.other_sessions(),
    "revoke": lambda session: suppressed(lambda: session.revoke("0" * 64)),
    "logout_elsewhere": lambda session: suppressed(session.logout_elsewhere),
    "confirm_login": lambda session: suppressed(session.confirm_login),
    "impersonate": lambda session: suppressed(lambda: session.impersonate("bob")),
    "stop_impersonating": lambda session: suppressed(session.stop_impersonating),
    "is_csrf_token": lambda session: session.is_csrf_token("no"),
    "copy": lambda session: session.copy(),
    "__or__": lambda session: session | {"n": 2},
    "__ror__": lambda session: {"n": 2} | session,
    "__ior__": lambda session: session.__ior__({"n": 2}),
    "regenerate": lambda session: session.regenerate(),
    "login": lambda session: session.login("ann"),
    "logout": lambda session: session.logout(),
    "destroy": lambda session: session.destroy(),
    "changed": lambda session: session.changed(),
    "atomic": lambda session: session.atomic().__enter__(),
    "client": lambda session: session.client,
    "flash": lambda session: session.flash("hello"),
    "pop_flash": lambda session: session.pop_flash(),
    "peek_flash": lambda session: session.peek_flash(),
    "get_csrf_token": lambda session: session.get_csrf_token(),
    "new_csrf_token": lambda session: session.new_csrf_token(),
}
TELL_NOTHING = {"accessed", "modified", "client_of", "passive", "__reversed__"}


def test_the_uses_of_a_session_tested_here_are_all_there_are() -> None:
    of_mappings = {name for name, _ in inspect.getmembers(MutableMapping) if name not in dir(object)}
    of_mappings -= {name for name in of_mappings if name.startswith(("_abc", "__abstract", "__class_getitem"))}
    of_mappings -= {
        "__slots__",
        "__module__",
        "__annotations__",
        "__weakref__",
        "__dict__",
        "_MutableMapping__marker",
        *("__firstlineno__", "__static_attributes__"),  # Python's, from 3.13 on
        *("__annotate_func__", "__annotations_cache__"),  # and from 3.14 on
        *("__implemented__", "__provides__", "__providedBy__"),  # zope.interface's, once Pyramid has been imported
    }
    public = {name for name in dir(Session) if not name.startswith("_")}
    assert (of_mappings | public) - USES.keys() - TELL_NOTHING == set()


def visitor(**settings: Any) -> Browser:
    browser = public_site(**settings).browser()
    browser.visit(write(n=1))
    return browser


def public_site(**settings: Any) -> Site:
    # The inner validator writes the environ into its messages, and repr(session) is a use of it.
    return Site(plain=True, **settings)


@pytest.mark.parametrize("use", sorted(USES.keys() - TELL_NOTHING))
def test_every_use_of_the_session_adds_vary_cookie_once(use: str) -> None:
    assert visitor().visit(USES[use]).all("Vary") == ["Cookie"]


@pytest.mark.parametrize("use", ["accessed", "modified"])
def test_to_ask_whether_it_was_used_is_no_use(use: str) -> None:
    page = visitor().visit(lambda session: getattr(session, use))
    assert page.result is False
    assert page.all("Vary") == []


def test_an_untouched_session_leaves_the_headers_alone() -> None:
    page = visitor().visit(headers=[("Vary", "Accept"), ("Cache-Control", "max-age=60")])
    assert page.headers == [("Content-Type", "text/plain"), ("Vary", "Accept"), ("Cache-Control", "max-age=60")]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ([], ["Cookie"]),
        (["Accept"], ["Accept, Cookie"]),
        (["Accept, Accept-Language"], ["Accept, Accept-Language, Cookie"]),
        (["Accept", "Origin"], ["Accept, Cookie", "Origin"]),
        (["*"], ["*"]),
        (["Accept, *"], ["Accept, *"]),
        (["Cookie"], ["Cookie"]),
        (["accept,COOKIE"], ["accept,COOKIE"]),
        (["Accept", "cookie"], ["Accept", "cookie"]),
        (["X-Cookie"], ["X-Cookie, Cookie"]),
        ([""], ["Cookie"]),
    ],
)
def test_vary_joins_what_the_application_said(theirs: list[str], expected: list[str]) -> None:
    page = visitor().visit(read("n"), headers=[("Vary", value) for value in theirs])
    assert page.all("Vary") == expected


# Responses with our cookie


def regenerate(session: Session) -> None:
    session.regenerate()


def logout(session: Session) -> None:
    session.logout()


@pytest.mark.parametrize("handler", [regenerate, logout])
@pytest.mark.parametrize("theirs", [None, *PUBLIC])
def test_a_response_that_sets_the_cookie_is_private(handler: Callable[[Session], None], theirs: str | None) -> None:
    page = visitor().visit(handler, headers=[] if theirs is None else [("Cache-Control", theirs)])
    assert list(page.cookies) == ["prism_session"]
    (value,) = page.all("Cache-Control")
    directives = value.split(", ")
    assert "private" in directives
    assert not {"public", "s-maxage=60"} & set(directives)
    assert page.all("Vary") == ["Cookie"]


def test_a_page_with_the_first_cookie_is_private() -> None:
    page = public_site().browser().visit()
    assert page.all("Cache-Control") == ["private"]


@pytest.mark.parametrize("theirs", ["private", "no-store", "private, max-age=60", "no-store, max-age=0", "NO-STORE"])
def test_an_application_that_is_stricter_is_left_alone(theirs: str) -> None:
    page = visitor().visit(regenerate, headers=[("Cache-Control", theirs)])
    assert page.all("Cache-Control") == [theirs]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (["public, max-age=60"], "max-age=60, private"),
        (["no-cache", "public"], "no-cache, private"),
        (["must-revalidate, s-maxage=5"], "must-revalidate, private"),
        (['no-cache="Set-Cookie, X-A", max-age=5'], 'no-cache="Set-Cookie, X-A", max-age=5, private'),
        (['private="X-A, X-B", max-age=5'], "max-age=5, private"),
        (['ext="A, b", public'], 'ext="A, b", private'),
    ],
)
def test_directives_of_cache_control_that_do_not_contradict_private_stay(theirs: list[str], expected: str) -> None:
    page = visitor().visit(regenerate, headers=[("Cache-Control", value) for value in theirs])
    assert page.all("Cache-Control") == [expected]


# Responses for everybody


@pytest.mark.parametrize("theirs", PUBLIC)
def test_a_publicly_cacheable_page_that_did_not_touch_the_session_gets_no_cookie(theirs: str) -> None:
    page = public_site().browser().visit(headers=[("Cache-Control", theirs)])
    assert page.all("Set-Cookie") == []
    assert page.all("Cache-Control") == [theirs]
    assert page.all("Vary") == []


@pytest.mark.parametrize(
    ("expires", "is_public"),
    [("Fri, 01 Jan 2100 00:00:00 GMT", True), ("Thu, 01 Jan 1970 00:00:00 GMT", False), ("0", False), ("", False)],
)
def test_a_page_that_only_says_when_it_expires_is_public_until_then(expires: str, is_public: bool) -> None:
    page = public_site().browser().visit(headers=[("Expires", expires)])
    assert bool(page.all("Set-Cookie")) is not is_public
    assert page.all("Cache-Control") == ([] if is_public else ["private"])


@pytest.mark.parametrize("theirs", NOT_PUBLIC)
def test_a_page_that_is_not_for_everybody_gets_one(theirs: str) -> None:
    page = public_site().browser().visit(headers=[("Cache-Control", theirs)])
    assert list(page.cookies) == ["prism_session"]


def test_a_publicly_cacheable_page_that_touched_the_session_is_made_private(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = public_site().browser().visit(read("n"), headers=[("Cache-Control", "public, max-age=60")])
    assert page.all("Cache-Control") == ["max-age=60, private"]
    assert [record.reason for record in caplog.records] == ["public_cache_overridden"]  # type: ignore[attr-defined]


def test_a_public_page_signs_no_cookie_anew_with_the_new_key() -> None:
    browser = visitor(secret="old-0123456789abcdefghijklmnopqrstuvwxyz")
    browser.site = public_site(
        store=browser.site.store,
        clock=browser.site.clock,
        secret=["new-0123456789abcdefghijklmnopqrstuvwxyz", "old-0123456789abcdefghijklmnopqrstuvwxyz"],
    )
    assert browser.visit(headers=[("Cache-Control", "public, max-age=60")]).all("Set-Cookie") == []
    assert list(browser.visit().cookies) == ["prism_session"]


# Two visitors behind one cache


class SharedCache:
    """A cache as RFC 9111 has it, and no more careful than that."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str | None, Page]] = []

    def fetch(self, browser: Browser, path: str, app: Any) -> Page:
        cookie_header = browser.cookie_header
        for kept_path, kept_cookie, page in self.kept:
            if kept_path == path and kept_cookie in (None, cookie_header):
                return page
        page = browser.request(app, path=path)
        directives = {one.strip().partition("=")[0] for one in ",".join(page.all("Cache-Control")).split(",")}
        if not directives & {"private", "no-store", "no-cache"} and page.all("Vary") != ["*"]:
            varies = "cookie" in ",".join(page.all("Vary")).lower()
            self.kept.append((path, cookie_header if varies else None, page))
        return page


PAGES: dict[str, tuple[Callable[[Session], object], list[tuple[str, str]]]] = {
    "/style.css": (lambda session: "same for all", [("Cache-Control", "public, max-age=60")]),
    "/account": (lambda session: session.get("name"), [("Cache-Control", "max-age=60")]),
    "/account2": (lambda session: session.get("name"), []),
    "/login": (lambda session: session.login("somebody"), [("Cache-Control", "public, max-age=60")]),
    "/count": (lambda session: session.update(n=session.get("n", 0) + 1), [("Cache-Control", "s-maxage=60")]),
    "/id": (lambda session: session.id, [("Cache-Control", "public, s-maxage=60")]),
    "/logout": (lambda session: session.logout(), [("Cache-Control", "public")]),
}


def test_no_visitor_is_served_anothers_cookie_or_page() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        handler, headers = PAGES[environ["PATH_INFO"]]
        body = str(handler(environ["prism.session"])).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return [body]

    site, cache = public_site(), SharedCache()
    ann, bob = site.browser(), site.browser()
    ann.visit(write(name="Ann"))
    bob.visit(write(name="Bob"))
    seen: dict[str, set[str]] = {}
    for path in [*PAGES, *PAGES]:
        for name, browser in (("Ann", ann), ("Bob", bob), ("nobody", site.browser())):
            page = cache.fetch(browser, path, app)
            other = {"Ann": b"Bob", "Bob": b"Ann"}.get(name, b"Ann")
            assert other not in page.body
            for value in page.cookies.values():
                seen.setdefault(value, set()).add(name)
            site.clock.advance(1)
    assert [path for path, _, _ in cache.kept if path == "/style.css"]
    assert all(len(names) == 1 for value, names in seen.items() if value)


# Headers that speak to shared caches alone

CDN_HEADERS = [
    ("CDN-Cache-Control", "max-age=600"),
    ("Cloudflare-CDN-Cache-Control", "public"),
    ("Surrogate-Control", 'max-age=600, content="ESI/1.0"'),
    ("X-Accel-Expires", "600"),
]


@pytest.mark.parametrize("header", CDN_HEADERS, ids=[name for name, _ in CDN_HEADERS])
def test_what_an_edge_server_may_keep_carries_no_cookie(header: tuple[str, str]) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [*TEXT, header])
        return [b"hello"]

    unused = Site(plain=True).browser().request(app)
    assert (unused.all("Set-Cookie"), unused.all(header[0])) == ([], [header[1]])
    used = Site().browser().visit(read("n"), headers=[header])
    assert used.cookies
    assert (used.all(header[0]), used.all("Cache-Control")) == ([], ["private"])


@pytest.mark.parametrize("header", [("CDN-Cache-Control", "no-store"), ("X-Accel-Expires", "0")])
def test_what_an_edge_server_must_not_keep_stays_as_it_is(header: tuple[str, str]) -> None:
    page = Site().browser().visit(read("n"), headers=[header])
    assert page.all(header[0]) == [header[1]]


# The functions themselves never change what they are given


def test_the_headers_given_are_not_changed() -> None:
    headers = [("Vary", "Accept"), ("Cache-Control", "public")]
    before = list(headers)
    for change in (vary_on_cookie, make_private):
        assert change(headers) is not headers
        assert headers == before


def test_a_page_through_the_cache_of_a_head_request_says_the_same() -> None:
    browser = visitor()
    answers = []
    for method in ("GET", "HEAD"):

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ["prism.session"].get("n")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"hello"]

        answers.append(browser.request(app, REQUEST_METHOD=method).headers)
    assert answers[0] == answers[1]
    assert new_environ()["REQUEST_METHOD"] == "GET"
