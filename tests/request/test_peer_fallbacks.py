"""Visitors go on with imported sessions by their old cookies: once, all requests at once, and nobody else."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID
from wsgiref.types import StartResponse, WSGIEnvironment

import flask
import pyramid.request
import pyramid.response
import pytest
from markupsafe import Markup
from pyramid.session import SignedCookieSessionFactory

from prism_wsgi import (
    ConfigError,
    MemoryStore,
    RedisStore,
    Session,
    SessionMiddleware,
    SessionStore,
    SQLAlchemyStore,
    StoredSession,
    StoreUnavailable,
    migrate,
)
from prism_wsgi.compat import beaker
from prism_wsgi.cookie_fallbacks import (
    AnyCookie,
    BeakerCookie,
    DjangoCookie,
    FlaskCookie,
    FlaskSessionCookie,
    PeerCookie,
    PyramidCookie,
)
from prism_wsgi.persistence.document import Codec, Document
from prism_wsgi.persistence.imported_ids import earlier_imported_id, imported_id
from prism_wsgi.request.adoption import JOIN_MS
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.stores.base import IndexedStore
from tests.support import databases
from tests.support.keys import SECRET
from tests.support.plain_store import PlainStore
from tests.support.visitors import Browser, application, put, run_at_once

KEY = "0d1c8e5d9a6e3b2f0c4d5e6f7a8b9c0d"
DAY = 24 * 3600
VALUES = {"cart": ["apple"], "name": "Ada"}


class Clock:
    """Stands still, or goes on by a millisecond each time it is looked at."""

    def __init__(self, *, ticks: bool = False) -> None:
        self.now = time.time()
        self._ticks = ticks

    def __call__(self) -> float:
        if self._ticks:
            self.now += 0.001
        return self.now


def keep_imported(store: SessionStore, clock: Clock, cookie: PeerCookie | None = None, key: str = KEY) -> None:
    """Store a session as an import does."""
    data = Codec(TypedSerializer(), 65536).encode(Document(VALUES))
    now = int(clock() * 1000)
    origin = (cookie or DjangoCookie()).origin
    store.save(StoredSession(imported_id(origin, key), data, 0, now - 1000, now + DAY * 1000, "ada"))


def test_a_session_that_an_earlier_checkout_imported_goes_on() -> None:
    clock = Clock()
    store = MemoryStore(ttl=2 * DAY, clock=clock)
    keep_imported(store, clock)
    (row,) = store.find_all()
    store.destroy(row.id)
    store.save(replace(row, id=earlier_imported_id("django", KEY), version=0))
    browser = browser_of(site_of(store, clock))
    assert browser.do(who) == (VALUES, "ada")
    assert browser.do(who) == (VALUES, "ada")
    assert [one.user for one in store.find_all()] == ["ada"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    store = MemoryStore(ttl=2 * DAY, clock=clock)
    keep_imported(store, clock)
    return store


def site_of(
    store: SessionStore,
    clock: Clock,
    app: Any = application,
    cookie: PeerCookie | None = None,
    **settings: Any,
) -> SessionMiddleware:
    fallbacks = [cookie or DjangoCookie()]
    return SessionMiddleware(app, store=store, secret=SECRET, clock=clock, cookie_fallbacks=fallbacks, **settings)


def browser_of(site: Any, **cookies: str) -> Browser:
    browser = Browser(site)
    browser.cookies.update(cookies or {"sessionid": KEY})
    return browser


def who(session: Session) -> tuple[dict[str, Any], str | None]:
    return dict(session), session.user


def test_the_visitor_goes_on_with_a_cookie_of_ours_alone(store: MemoryStore, clock: Clock) -> None:
    browser = browser_of(site_of(store, clock))
    visit = browser.visit(who)
    assert visit.answer == (VALUES, "ada")
    assert list(browser.cookies) == ["prism_session"]
    assert "; Max-Age=3600; " in visit.set_cookies[0]
    browser.do(put("size", "small"))
    assert browser.do(who) == ({**VALUES, "size": "small"}, "ada")


def test_an_answer_that_got_lost_can_be_had_again(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    browser_of(site).do(put("size", "small"))
    clock.now += JOIN_MS / 1000 - 1
    assert browser_of(site).read() == {**VALUES, "size": "small"}


def test_five_minutes_later_the_old_cookie_opens_nothing(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    browser = browser_of(site)
    browser.read()
    clock.now += JOIN_MS / 1000
    assert browser_of(site).read() == {}
    assert browser.read() == VALUES


def test_the_old_cookie_opens_nothing_after_logout(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    browser = browser_of(site)
    browser.do(lambda session: session.logout())
    assert browser.cookies == {}
    assert browser_of(site).read() == {}


def test_to_import_again_brings_no_session_back(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    browser_of(site).do(lambda session: session.logout())
    clock.now += JOIN_MS / 1000
    with pytest.raises(Exception, match="already"):
        keep_imported(store, clock)
    assert browser_of(site).read() == {}


def test_a_login_at_the_first_visit_retires_what_the_old_cookie_led_to(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    browser = browser_of(site)
    browser.do(lambda session: session.login("ada"))
    assert browser.do(who) == (VALUES, "ada")
    assert browser_of(site).read() == {}


def test_a_visitor_with_a_session_of_ours_keeps_it(store: MemoryStore, clock: Clock) -> None:
    browser = Browser(site_of(store, clock))
    browser.do(put("mine", 1))
    browser.cookies["sessionid"] = KEY
    assert browser.read() == {"mine": 1}


def test_a_cookie_of_ours_with_nothing_stored_does_not_keep_the_old_one_from_being_exchanged(
    store: MemoryStore, clock: Clock
) -> None:
    browser = Browser(site_of(store, clock))
    browser.read()
    assert list(browser.cookies) == ["prism_session"]
    browser.cookies["sessionid"] = KEY
    assert browser.read() == VALUES


def test_of_two_old_cookies_neither_is_used(store: MemoryStore, clock: Clock) -> None:
    browser = browser_of(site_of(store, clock), sessionid=f"{KEY}; sessionid={'1' * 32}")
    assert browser.read() == {}


def test_an_unknown_or_expired_key_begins_a_new_session(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock)
    stranger = browser_of(site, sessionid="1" * 32)
    assert stranger.read() == {}
    assert stranger.cookies["sessionid"] == "1" * 32
    clock.now += 2 * DAY
    assert browser_of(site).read() == {}


@pytest.mark.parametrize(
    ("cookie", "value"),
    [
        (BeakerCookie(secret=SECRET), KEY),
        (BeakerCookie(secret=SECRET), "0" * 40 + KEY),
        (BeakerCookie(), "not-hex"),
        (FlaskSessionCookie(secret=SECRET), KEY),
        (FlaskSessionCookie(secret=SECRET), f"{KEY}.{'A' * 27}"),
        (FlaskSessionCookie(), "short"),
        (DjangoCookie(), "A" * 32),
    ],
)
def test_a_cookie_that_the_package_did_not_make_costs_no_store_call(
    cookie: PeerCookie, value: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    asked: list[str] = []
    monkeypatch.setattr(store, "load", asked.append)
    browser_of(site_of(store, clock, cookie=cookie), **{cookie.name: value}).visit(lambda session: None)
    assert asked == []


def test_a_signature_by_an_older_secret_is_good(clock: Clock) -> None:
    # By SESSION_USE_SIGNER, that is itsdangerous.Signer(secret, "flask-session", key_derivation="hmac")
    secret = "b7a0f4cf1d1c8e5d9a6e3b2f0c4d5e6f7a8b9c0d"
    signed = "zGc0BedCLQfVH3XtaEhKZzkqjLrdbs16lfRGPGkEbTU.6pZCp_m58Icm677s_bECksoYF7E"
    assert FlaskSessionCookie(secret=["another", secret]).key_in(signed) == signed.partition(".")[0]
    assert FlaskSessionCookie(secret="another").key_in(signed) is None


def test_flasks_cookie_keeps_its_name(clock: Clock) -> None:
    cookie = FlaskSessionCookie()
    store = MemoryStore(clock=clock)
    keep_imported(store, clock, cookie)
    browser = browser_of(site_of(store, clock, cookie=cookie, cookie_name="session"), session=KEY)
    assert browser.read() == VALUES
    assert browser.cookies["session"] != KEY
    assert browser.read() == VALUES


def test_beakers_own_visitors_go_on_with_its_stand_in(clock: Clock) -> None:
    import hmac

    signed = hmac.new(SECRET.encode(), KEY.encode(), "sha1").hexdigest() + KEY
    store = MemoryStore(clock=clock)
    keep_imported(store, clock, BeakerCookie())
    site = beaker.SessionMiddleware(application, secret=SECRET, store=store, clock=clock)
    browser = browser_of(site, **{"beaker.session.id": signed})
    assert browser.do(who) == (VALUES, "ada")
    assert browser.read() == VALUES


@pytest.mark.parametrize("looks", [True, False])
def test_a_response_for_shared_caches_becomes_private_where_the_session_is_used(
    store: MemoryStore, clock: Clock, looks: bool
) -> None:
    def public(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if looks:
            environ["prism.session"].get("cart")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "public, max-age=60")])
        return [b"news"]

    headers: list[tuple[str, str]] = []
    site = site_of(store, clock, public)
    environ = {"HTTP_COOKIE": f"theme=dark; sessionid={KEY}"}
    site(environ, lambda status, sent, exc_info=None, /: headers.extend(sent) or (lambda data: None))  # type: ignore[func-returns-value]
    found = dict(headers)
    assert found["Cache-Control"] == ("max-age=60, private" if looks else "public, max-age=60")
    assert found.get("Vary") == ("Cookie" if looks else None)
    assert bool([value for name, value in headers if value.startswith("prism_session=")]) is looks
    assert store.stats().superseded == looks
    assert environ["HTTP_COOKIE"].startswith("theme=dark; sessionid=")


def test_after_an_error_the_old_cookie_still_works(store: MemoryStore, clock: Clock) -> None:
    def fail(session: Session) -> None:
        raise LookupError("a bug")

    browser = browser_of(site_of(store, clock))
    with pytest.raises(LookupError):
        browser.visit(fail)
    assert browser.cookies == {"sessionid": KEY}
    assert browser.read() == VALUES


def test_a_store_that_fails_is_answered_503_and_costs_no_cookie(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("down")

    for verb in ("load", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(store, verb, fail)
            visit = browser_of(site_of(store, clock)).visit(who)
            assert (visit.status, visit.set_cookies) == ("503 Service Unavailable", [])
            with pytest.raises(StoreUnavailable):
                browser_of(site_of(store, clock, on_store_error="raise")).visit(who)
    assert browser_of(site_of(store, clock)).read() == VALUES


def test_sessions_are_encrypted_when_they_are_next_written(store: MemoryStore, clock: Clock) -> None:
    site = site_of(store, clock, encryption_key="k" * 8 + SECRET, read_unencrypted=True, encryption="cookie")
    browser = browser_of(site)
    browser.do(put("size", "small"))
    assert browser.read() == {**VALUES, "size": "small"}
    (stored,) = store.find(user="ada")
    assert b"apple" not in stored.data


def test_without_read_unencrypted_the_log_says_what_to_set(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    site = site_of(store, clock, encryption_key="k" * 8 + SECRET)
    assert browser_of(site).read() == {}
    assert "set read_unencrypted" in caplog.text


def test_the_absolute_lifetime_counts_from_the_beginning(store: MemoryStore, clock: Clock) -> None:
    browser = browser_of(site_of(store, clock, max_lifetime=100, ttl=60))
    assert browser.read() == VALUES
    clock.now += 50
    browser.read()
    clock.now += 50
    assert browser.read() == {}


def test_the_old_key_stands_nowhere_in_the_database(empty_sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, clock=clock)
    keep_imported(store, clock)
    browser_of(site_of(store, clock)).do(put("size", "small"))
    store.close()
    contents = b"".join(path.read_bytes() for path in tmp_path.glob("sessions.db*"))
    assert KEY.encode() not in contents
    assert bytes.fromhex(KEY) not in contents


def test_a_fallback_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a list of names or cookies"):
        SessionMiddleware(application, secret=SECRET, cookie_fallbacks=DjangoCookie())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="secret must not be empty"):
        BeakerCookie(secret="")


# Requests at once


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis", "plain"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    kind: str = request.param
    if kind == "memory":
        yield MemoryStore()
    elif kind == "plain":
        yield PlainStore(tmp_path / "plain.db")
    elif kind == "redis":
        yield RedisStore(databases.REDIS, prefix=request.getfixturevalue("redis_prefix"))
    else:
        url = request.getfixturevalue(f"{kind}_url")
        migrate.upgrade(url)
        store = SQLAlchemyStore(url)
        yield store
        store.close()


def looking_together(store: SessionStore, parties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first requests go on only when all have found the imported session where it waits."""
    found = threading.Barrier(parties)
    load, waiting = store.load, imported_id("django", KEY)
    left = [parties]

    def load_together(session_id: str) -> StoredSession | None:
        row = load(session_id)
        if session_id == waiting and left[0] > 0:
            left[0] -= 1
            found.wait(timeout=30)
        return row

    monkeypatch.setattr(store, "load", load_together, raising=False)


@pytest.mark.parametrize("ticks", [True, False], ids=["one after the other", "in the same millisecond"])
def test_of_first_requests_at_once_all_find_the_session_and_keep_their_changes(
    ticks: bool, any_store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(ticks=ticks)
    keep_imported(any_store, clock)
    site = site_of(any_store, clock)
    looking_together(any_store, 4, monkeypatch)
    browsers = [browser_of(site) for _ in range(4)]

    def write(number: int) -> Callable[[Session], object]:
        def action(session: Session) -> object:
            session[f"from {number}"] = number
            return who(session)

        return action

    visits = run_at_once([partial(browser.visit, write(number)) for number, browser in enumerate(browsers)])
    assert [visit.status for visit in visits] == ["200 OK"] * 4
    assert all(visit.answer[0].items() >= VALUES.items() for visit in visits)
    assert {visit.answer[1] for visit in visits} == {"ada"}
    expected = {**VALUES, **{f"from {number}": number for number in range(4)}}
    assert [browser.read() for browser in browsers] == [expected] * 4
    assert len({browser.do(lambda session: session.id) for browser in browsers}) == 1
    if isinstance(any_store, IndexedStore):
        assert len(list(any_store.find(user="ada"))) == 1


def test_many_rounds_of_requests_at_once_log_nobody_out(clock: Clock) -> None:
    store = MemoryStore()
    site = site_of(store, clock)
    for number in range(100):
        key = f"{number:032x}"
        keep_imported(store, clock, key=key)
        browser = browser_of(site, sessionid=key)
        visits = browser.at_once([put(name, 1) for name in "abc"])
        assert [visit.status for visit in visits] == ["200 OK"] * 3
        assert browser.do(who) == ({**VALUES, "a": 1, "b": 1, "c": 1}, "ada")


# Cookies that hold the session itself

FLASK_VALUES = {
    "cart": ["apple", ("n", 2)],
    "html": Markup("<b>"),
    "raw": b"\0\1",
    "id": UUID(int=5),
    "at": datetime(2026, 11, 27, 12, tzinfo=UTC),
    "tagged": {" t": 1},
    "long": "x" * 2000,
}


def flask_cookie(values: dict[str, Any], secret: str = SECRET) -> str:
    app = flask.Flask("old")
    app.secret_key = secret
    app.add_url_rule("/", view_func=lambda: flask.session.update(values) or "")
    header = app.test_client().get("/").headers["Set-Cookie"]
    return header.partition(";")[0].removeprefix("session=")


def pyramid_cookie(values: dict[str, Any], secret: str = SECRET) -> str:
    request = pyramid.request.Request.blank("/")
    session = SignedCookieSessionFactory(secret)(request)
    session.update(values)
    response = pyramid.response.Response()
    session._set_cookie(response)
    return str(response.headers["Set-Cookie"].partition(";")[0].removeprefix("session="))


def data_site(cookie: AnyCookie, **settings: Any) -> tuple[SessionMiddleware, MemoryStore]:
    store = MemoryStore()
    return SessionMiddleware(application, store=store, secret=SECRET, cookie_fallbacks=[cookie], **settings), store


@pytest.mark.parametrize(
    ("cookie", "value", "expected"),
    [
        (FlaskCookie(SECRET), partial(flask_cookie, FLASK_VALUES), FLASK_VALUES),
        (FlaskCookie(["new" * 20, SECRET]), partial(flask_cookie, {"n": 1}), {"n": 1}),
        (PyramidCookie(SECRET), partial(pyramid_cookie, {"n": [1, "é"]}), {"n": [1, "é"]}),
    ],
    ids=["flask", "flask, an older key", "pyramid"],
)
def test_a_session_that_was_in_its_cookie_goes_on_in_the_store(
    cookie: AnyCookie, value: Callable[[], str], expected: dict[str, Any]
) -> None:
    site, store = data_site(cookie)
    browser = Browser(site)
    browser.cookies["session"] = value()
    assert browser.read() == expected
    assert list(browser.cookies) == ["prism_session"]
    assert len(store) == 1
    assert browser.read() == expected
    browser.do(lambda session: session.logout())
    assert (browser.cookies, len(store)) == ({}, 0)


FORGED: dict[str, tuple[AnyCookie, Callable[[], str]]] = {
    "flask, another key": (FlaskCookie(SECRET), lambda: flask_cookie({"n": 1}, "another" * 9)),
    "flask, changed": (FlaskCookie(SECRET), lambda: "e" + flask_cookie({"n": 1})),
    "flask, too old": (FlaskCookie(SECRET, max_age=-1), lambda: flask_cookie({"n": 1})),
    "flask, nothing": (FlaskCookie(SECRET), lambda: "a.b.c"),
    "pyramid, another key": (PyramidCookie(SECRET), lambda: pyramid_cookie({"n": 1}, "another" * 9)),
    "pyramid, changed": (PyramidCookie(SECRET), lambda: pyramid_cookie({"n": 1})[:-2]),
    "pyramid, too old": (PyramidCookie(SECRET, timeout=-1), lambda: pyramid_cookie({"n": 1})),
    "pyramid, nothing": (PyramidCookie(SECRET), lambda: "é" * 3),
}


def test_the_store_knows_who_was_logged_in_by_a_session_that_was_in_its_cookie() -> None:
    site, store = data_site(FlaskCookie(SECRET), user_id_key="_user_id")
    browser = Browser(site)
    browser.cookies["session"] = flask_cookie({"_user_id": "7"})
    assert browser.read() == {"_user_id": "7"}
    (row,) = store.find(user="7")
    assert row.authenticated_at is None


def test_a_name_that_no_user_can_have_in_a_cookie_logs_nobody_in() -> None:
    site, store = data_site(FlaskCookie(SECRET), user_id_key="_user_id")
    browser = Browser(site)
    browser.cookies["session"] = flask_cookie({"_user_id": "x" * 300})
    browser.read()
    (row,) = store.find_all()
    assert row.user is None


@pytest.mark.parametrize(("cookie", "value"), FORGED.values(), ids=FORGED)
def test_a_cookie_that_is_not_genuine_or_too_old_opens_nothing(cookie: AnyCookie, value: Callable[[], str]) -> None:
    site, store = data_site(cookie)
    browser = Browser(site)
    browser.cookies["session"] = value().encode().decode("latin-1")
    assert (browser.read(), len(store)) == ({}, 0)


def test_a_visitor_of_ours_is_not_asked_for_an_older_cookie() -> None:
    site, _ = data_site(FlaskCookie(SECRET))
    browser = Browser(site)
    browser.do(put("mine", 1))
    browser.cookies["session"] = flask_cookie({"n": 1})
    assert browser.read() == {"mine": 1}


def test_a_cookie_without_a_secret_is_refused() -> None:
    for cookie in (FlaskCookie, PyramidCookie):
        with pytest.raises(ConfigError, match="secret must"):
            cookie("")
