"""What a signature proves: who made the cookie, for which name, and that nobody has changed it since."""

import hashlib
import io
import logging
import pprint
import string
import traceback
import warnings
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_wsgi import PrismError, Session, StoreUnavailable
from prism_wsgi.tokens import Signer, is_token_shaped, issued_at, new_secret, session_id
from tests.support.browsing import Browser, Site, ThreeVerbStore, read, write
from tests.support.keys import OTHER_SECRET, SECRET

pytest_plugins = ["tests.support.site_fixtures"]

NEW, OLD, OLDEST = SECRET, OTHER_SECRET, "oldest-qwertyuiopasdfghjklzxcvbnm-5555"


def visitor(site: Site) -> Browser:
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    return browser


def accepted(site: Site, cookie_header: str) -> bool:
    return bool(site.browser().visit(read("n"), HTTP_COOKIE=cookie_header).result == 1)


def same_sessions(browser: Browser, **settings: Any) -> Site:
    """Return a site with other settings over the store that the browser's site uses."""
    return Site(browser.site.store, browser.site.clock, **settings)


# Nothing but the original


def test_one_changed_character_anywhere_is_refused_without_a_store_call(site: Site) -> None:
    browser = visitor(site)
    token = browser.token
    alphabet = string.ascii_letters + string.digits + "-_.+"
    for position, original in enumerate(token):
        for character in {alphabet[(alphabet.index(original) + step) % len(alphabet)] for step in (1, 2, 16, 33)}:
            changed = token[:position] + character + token[position + 1 :]
            assert not accepted(site, f"prism_session={changed}")
    assert site.calls == []


def test_only_one_spelling_is_valid(site: Site) -> None:
    """The last character of 43 holds two unused bits: a lax decoder takes four spellings of it."""
    browser = visitor(site)
    token = browser.token
    others = [
        *(token[:-1] + last for last in string.ascii_letters + string.digits + "-_" if last != token[-1]),
        *(token[:42] + last + token[43:] for last in string.ascii_letters if last != token[42]),
        token + "=",
        token + "==",
        token + ".",
        "." + token,
        token.replace("-", "+").replace("_", "/") if set("-_") & set(token) else token + "+",
        token.upper(),
        token[:-1],
        token[: token.rindex(".")],
        token[: token.rindex(".") + 1],
        token.replace(".", "..", 1),
        f"{token}%",
    ]
    assert not any(accepted(site, f"prism_session={other}") for other in others)
    assert site.calls == []
    assert accepted(site, f"prism_session={token}")


def test_signatures_cannot_be_swapped(site: Site) -> None:
    ann, bob = visitor(site), visitor(site)
    swapped = ann.token.rpartition(".")[0] + "." + bob.token.rpartition(".")[2]
    assert not accepted(site, f"prism_session={swapped}")


def test_a_later_renewal_cannot_be_written_into_a_token(site: Site) -> None:
    browser = visitor(site)
    secret, refreshed, signature = browser.token.split(".")
    for claim in (str(int(refreshed) + 1), "0", f"{refreshed}+99999", f"{refreshed}p"):
        assert not accepted(site, f"prism_session={secret}.{claim}.{signature}")


def test_a_cookie_opens_nothing_under_another_key(site: Site) -> None:
    browser = visitor(site)
    assert not accepted(same_sessions(browser, secret=OTHER_SECRET), browser.cookie_header)
    assert site.calls == []


def test_the_same_secret_under_another_cookie_name_opens_nothing(site: Site) -> None:
    browser = visitor(site)
    other = same_sessions(browser, cookie_name="admin_session")
    assert not accepted(other, f"admin_session={browser.token}")
    assert site.calls == []


def test_the_id_opens_nothing(site: Site) -> None:
    browser = visitor(site)
    session_id = browser.visit(lambda session: session.id).result
    site.calls.clear()
    for value in (session_id, f"{session_id}.0.{session_id}", session_id[:43] + browser.token[43:]):
        assert not accepted(site, f"prism_session={value}")
    assert site.calls == []


def test_there_is_no_algorithm_to_choose() -> None:
    token = Signer([SECRET.encode()], "sid").sign(new_secret(1), 0)
    assert len(token.split(".")) == 3
    for prefix in ("none.", "HS256.", "v1.", "1."):
        assert Signer([SECRET.encode()], "sid").verify(prefix + token) is None


def test_the_signature_is_the_documented_one() -> None:
    """A known answer: a release that signs differently ends every session there is."""
    signer = Signer([b"0123456789abcdef0123456789ABCDEF"], "prism_session")
    secret = "AaIIkOzRxXXgsljAT5lek5BGAbemMUqseX0t85C-dys"
    assert signer.sign(secret, 1795440045) == f"{secret}.1795440045.{KNOWN_SIGNATURE}"
    assert session_id(secret).startswith(f"{issued_at(secret):012x}")


KNOWN_SIGNATURE = "zkv7d0ESbH51v0qw-MHXBCPfXBRgXATbwSo-qa05VGU"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"k" * 40, "ab"), (b"k" * 40, "a")),
        ((b"k", "sid"), (b"k\0", "sid")),
        ((b"k" * 100, "sid"), (hashlib.sha256(b"k" * 100).digest(), "sid")),
        ((b"ab", "c"), (b"a", "bc")),
        ((b"K" * 40, "sid"), (b"k" * 40, "sid")),
    ],
)
def test_keys_are_derived_without_ambiguity(one: tuple[bytes, str], other: tuple[bytes, str]) -> None:
    (first_secret, first_name), (second_secret, second_name) = one, other
    token = Signer([first_secret], first_name).sign(new_secret(1), 0)
    assert Signer([first_secret], first_name).verify(token) is not None
    assert Signer([second_secret], second_name).verify(token) is None


@given(
    refreshed=st.integers(0, 10**11 - 1),
    ttl=st.one_of(st.none(), st.integers(1, 34_560_000)),
    persistent=st.sampled_from([None, True, False]),
)
def test_a_token_says_what_was_signed(refreshed: int, ttl: int | None, persistent: bool | None) -> None:
    signer = Signer([SECRET.encode()], "sid")
    secret = new_secret(1)
    token = signer.verify(signer.sign(secret, refreshed, ttl, persistent))
    assert token is not None
    assert (token.secret, token.refreshed, token.ttl, token.persistent) == (secret, refreshed, ttl, persistent)


# Rotation

RINGS: dict[str, Any] = {
    "before": OLD,
    "accepting": [OLD, NEW],
    "signing": [NEW, OLD],
    "after": NEW,
    "longer": [NEW, OLDEST, OLD],
    "reversed": [OLDEST, NEW],
}


@pytest.mark.parametrize("issuer", RINGS)
@pytest.mark.parametrize("receiver", RINGS)
def test_a_cookie_is_taken_by_every_process_that_holds_its_key(
    store: ThreeVerbStore, issuer: str, receiver: str
) -> None:
    browser = visitor(Site(store, secret=RINGS[issuer]))
    keys = [RINGS[name] if isinstance(RINGS[name], list) else [RINGS[name]] for name in (issuer, receiver)]
    taken = accepted(same_sessions(browser, secret=RINGS[receiver]), browser.cookie_header)
    assert taken == (keys[0][0] in keys[1])


def test_a_cookie_signed_by_an_old_key_is_issued_anew_under_the_first(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=OLD))
    browser.site = same_sessions(browser, secret=[NEW, OLD])
    page = browser.visit()
    assert list(page.cookies) == ["prism_session"]
    assert store.calls == []
    assert browser.visit().all("Set-Cookie") == []
    browser.site = same_sessions(browser, secret=NEW)
    assert browser.visit(read("n")).result == 1


@pytest.mark.parametrize("touched", [False, True])
def test_issuing_anew_keeps_a_lifetime_of_the_sessions_own(store: ThreeVerbStore, touched: bool) -> None:
    site = Site(store, secret=OLD)
    browser = site.browser()

    def remember(session: Session) -> None:
        session["n"] = 1
        session.ttl = 1_000_000
        session.persistent = False

    browser.visit(remember)
    browser.site = same_sessions(browser, secret=[NEW, OLD])
    page = browser.visit(read("n")) if touched else browser.visit()
    assert list(page.cookies) == ["prism_session"]
    assert "max-age" not in page.attributes()
    site.clock.advance(900_000)
    assert browser.visit(read("n")).result == 1


def test_issuing_anew_does_not_lengthen_the_idle_lifetime(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=OLD))
    browser.site = same_sessions(browser, secret=[NEW, OLD])
    browser.site.clock.advance(3000)
    assert browser.visit().attributes()["max-age"] == "600"
    browser.site.clock.advance(700)
    assert browser.visit(read("n")).result is None


def test_a_retired_id_is_not_issued_anew(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=OLD))
    old = browser.cookie_header
    browser.visit(lambda session: session.regenerate())
    rotated = same_sessions(browser, secret=[NEW, OLD])
    assert rotated.browser().visit(read("n"), HTTP_COOKIE=old).all("Set-Cookie") == []


def test_a_session_that_ended_during_a_request_that_fails_is_not_issued_anew(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=OLD))
    browser.site = same_sessions(browser, secret=[NEW, OLD])

    def count_too_late(session: Session) -> None:
        session["n"] += 1
        store.store.destroy(session.id)
        with session.atomic():
            session["n"] = 0

    assert browser.visit(count_too_late, status="500 Oops").all("Set-Cookie") == []


def test_nothing_is_issued_anew_while_the_store_fails(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=OLD))
    rotated = same_sessions(browser, secret=[NEW, OLD])
    store.failing = {"load"}

    def shrug(session: Session) -> None:
        with pytest.raises(StoreUnavailable):
            session.get("n")

    page = rotated.browser().visit(shrug, HTTP_COOKIE=browser.cookie_header)
    assert (page.status, page.all("Set-Cookie")) == (200, [])


def test_a_removed_key_is_refused_at_once(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=[OLD, NEW]))
    assert accepted(same_sessions(browser, secret=OLD), browser.cookie_header)
    assert not accepted(same_sessions(browser, secret=NEW), browser.cookie_header)


def test_a_secret_is_the_same_as_text_and_as_bytes(store: ThreeVerbStore) -> None:
    browser = visitor(Site(store, secret=SECRET))
    assert accepted(same_sessions(browser, secret=SECRET.encode()), browser.cookie_header)


# Nothing shows the keys, the secret of a session, or its data

CANARY_KEY = "canary-key-Zx81Zx81-0123456789-abcdef"
CANARY_DATA = "canary-data-Qw42Qw42"


def walk(value: object, depth: int = 0) -> str:
    """Return every way in which a value prints itself, and its attributes, three levels down."""
    texts = [repr(value), str(value), f"{value}"]
    if depth < 3:
        if isinstance(value, dict):
            texts += [walk(one, depth + 1) for one in value.values()]
        elif type(value) in (list, tuple):
            texts += [walk(one, depth + 1) for one in cast(list[object], value)]
    return "\n".join(texts)


def test_what_prints_itself_shows_neither_keys_nor_secrets_nor_data(store: ThreeVerbStore) -> None:
    site = Site(store, secret=[CANARY_KEY, OTHER_SECRET])
    browser = site.browser()
    seen: dict[str, Any] = {}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        session = environ["prism.session"]
        session["key"] = CANARY_DATA
        seen.update(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    browser.request(app)
    middleware, session = site.middleware, seen["prism.session"]
    objects = [
        seen,
        session,
        middleware,
        middleware.site.cookies.signer,
        middleware.site.cookies.received(seen | {"HTTP_COOKIE": browser.cookie_header}),
        pprint.pformat(seen),
    ]
    shown = "\n".join(walk(one) for one in objects)
    secret = browser.token.partition(".")[0]
    for hidden in (CANARY_KEY, CANARY_DATA, secret):
        assert hidden not in shown
    assert session.id in repr(session)


@pytest.mark.parametrize(
    "secret", [[CANARY_KEY, ""], [CANARY_KEY, 5], CANARY_KEY[:10], CANARY_KEY[:6] * 6, "change-me-" + CANARY_KEY]
)
def test_no_error_or_warning_about_a_secret_shows_it(secret: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            Site(secret=secret)
            shown = ""
        except ValueError as error:
            shown = "".join(traceback.format_exception(error))
    shown += "".join(str(warning.message) for warning in caught)
    assert shown
    assert CANARY_KEY[:10] not in shown.replace("CANARY_KEY", "")


def test_failures_show_neither_keys_nor_secrets_nor_data(
    store: ThreeVerbStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site = Site(store, secret=CANARY_KEY, on_store_error="raise", max_size=400)
    browser = site.browser()
    browser.visit(write(key=CANARY_DATA))
    shown = io.StringIO()

    def fail(handler: Any) -> None:
        try:
            browser.visit(handler)
        except PrismError as error:
            traceback.print_exception(error, file=shown)

    fail(write(key=CANARY_DATA * 100))
    fail(write(key=[CANARY_DATA, object()]))
    for verb in ("load", "save", "destroy"):
        store.failing = {verb}
        fail(write(key=CANARY_DATA + "!"))
        fail(Session.logout)
    store.failing = set()
    forged = browser.token[:-1]
    browser.visit(read("key"), HTTP_COOKIE=f"prism_session={forged}")
    text = shown.getvalue() + caplog.text + str([record.__dict__ for record in caplog.records])
    assert "StoreUnavailable" in text
    for hidden in (CANARY_KEY, CANARY_DATA, browser.token.partition(".")[0], forged):
        assert hidden not in text


@pytest.mark.parametrize("claims", [(0, None, None), (99_999_999_999, 99_999_999, True)], ids=["shortest", "longest"])
def test_the_shortest_and_the_longest_token_are_taken(claims: tuple[int, int | None, bool | None]) -> None:
    signer = Signer([SECRET.encode()], "id")
    secret = new_secret(1_800_000_000_000)
    value = signer.sign(secret, *claims)
    assert is_token_shaped(value)
    assert signer.verify(value) == (secret, *claims, False)
    assert not is_token_shaped(value + "A")
    assert signer.verify(value[1:]) is None


LONGEST, SHORTEST = (99_999_999_999, 99_999_999, True), (0, None, None)


@pytest.mark.parametrize("change", ["one character less", "one more", "one beyond ASCII", None], ids=str)
@pytest.mark.parametrize("claims", [SHORTEST, LONGEST], ids=["shortest", "longest"])
def test_a_value_that_can_be_no_token_costs_no_signature(
    claims: tuple[int, int | None, bool | None], change: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer([SECRET.encode()], "id")
    token = signer.sign(new_secret(1_800_000_000_000), *claims)
    value = {
        "one character less": token[1:],
        "one more": "A" + token,
        "one beyond ASCII": "\xe9" + token[1:],
    }.get(str(change), token)
    signed: list[str] = []

    def sign(self: Signer, mac: object, claims: str) -> str:
        signed.append(claims)
        return ""

    monkeypatch.setattr(Signer, "_signature", sign)
    assert signer.verify(value) is None
    could_be_another_token = (claims, change) in ((SHORTEST, "one more"), (LONGEST, "one character less"))
    assert len(signed) == (change is None or could_be_another_token)
