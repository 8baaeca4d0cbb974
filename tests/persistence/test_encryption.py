"""Encryption at rest: what the store holds tells nothing, opens for one session only; keys can be replaced."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from prism_wsgi import (
    ConfigError,
    MemoryStore,
    SerializationError,
    Session,
    SessionMiddleware,
    SessionStore,
    StoredSession,
)
from prism_wsgi.key_derivation import expand, extract
from prism_wsgi.persistence.encryption import COOKIE_FORMAT, SERVER_FORMAT, Cipher
from prism_wsgi.testing import ManualClock
from tests.support.keys import ENCRYPTION_KEY as KEY
from tests.support.keys import SECRET
from tests.support.plain_store import PlainStore
from tests.support.visitors import Browser, application, count, put, run_at_once

OLD_KEY = "replaced 0123456789abcdef0123456789"
TTL = 3600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "three verbs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> SessionStore:
    return MemoryStore(clock=clock) if request.param == "memory" else PlainStore(tmp_path / "plain.db", clock)


@pytest.fixture(params=["server", "cookie"])
def encryption(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture
def site(store: SessionStore, encryption: str, clock: ManualClock) -> SessionMiddleware:
    return site_over(store, encryption=encryption, clock=clock, encryption_key=KEY)


@pytest.fixture
def browser(site: SessionMiddleware) -> Browser:
    return Browser(site)


def site_over(store: SessionStore, **settings: Any) -> SessionMiddleware:
    return SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, **settings)


def copy_of(browser: Browser, site: SessionMiddleware) -> Browser:
    other = Browser(site)
    other.cookies = dict(browser.cookies)
    return other


def kept(store: SessionStore, browser: Browser) -> StoredSession:
    """What the store itself holds of a browser's session."""
    stored = store.load(browser.do(lambda session: session.id))
    assert stored is not None
    return stored


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if "reason" in record.__dict__]


# What the store holds


def test_session_comes_back_and_the_store_holds_nothing_of_it(
    browser: Browser, store: SessionStore, encryption: str
) -> None:
    browser.do(lambda session: session.update(canary="canary", number=12345))
    data = kept(store, browser).data
    assert b"canary" not in data
    assert data[:1] == (SERVER_FORMAT if encryption == "server" else COOKIE_FORMAT)
    assert browser.read() == {"canary": "canary", "number": 12345}


def test_same_data_is_never_stored_as_the_same_bytes(browser: Browser, store: SessionStore) -> None:
    stored = set()
    for _ in range(10):
        browser.do(put("x", 1))
        browser.do(put("x", 2))
        stored.add(kept(store, browser).data)
    assert len(stored) == 10


def test_unchanged_session_is_not_written(browser: Browser, store: SessionStore) -> None:
    browser.do(put("cart", [1, 2]))
    before = kept(store, browser)
    browser.do(lambda session: session["cart"])
    browser.do(put("cart", [1, 2]))
    assert kept(store, browser) == before


def test_activity_is_recorded_and_the_session_still_opens(browser: Browser, clock: ManualClock) -> None:
    browser.do(put("x", 1))
    for _ in range(4):
        clock.advance(TTL * 0.9)
        assert browser.read() == {"x": 1}


# What requests do to one session


def test_changes_of_different_keys_all_survive(browser: Browser) -> None:
    browser.do(put("before", 0))
    loaded = threading.Barrier(8)

    def change(session: Session, key: str) -> None:
        session.get("before")
        loaded.wait(30)
        session[key] = key

    def action(key: str) -> Any:
        return lambda session: change(session, key)

    browser.at_once([action(str(number)) for number in range(8)])
    assert browser.read().keys() == {"before", *map(str, range(8))}


def test_counting_in_an_encrypted_session_is_exact(browser: Browser) -> None:
    browser.do(put("n", 0))
    run_at_once([lambda: [browser.do(count) for _ in range(5)]] * 4)
    assert browser.read() == {"n": 20}


def test_data_moves_to_a_new_id_with_login_and_what_others_saved_meanwhile(
    browser: Browser, site: SessionMiddleware, store: SessionStore
) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site)

    def login(session: Session) -> None:
        session["y"] = 2
        session.login("alice")
        other.do(put("z", 3))

    old_id = browser.do(lambda session: session.id)
    browser.do(login)
    assert browser.do(lambda session: (dict(session), session.user)) == ({"x": 1, "y": 2, "z": 3}, "alice")
    marker = store.load(old_id)
    assert marker is not None
    assert (marker.superseded, marker.user) == (True, None)
    assert marker.moved_to == browser.do(lambda session: session.id)
    assert other.read() == {}


def test_first_writes_at_once_share_one_session(browser: Browser) -> None:
    browser.visit(lambda session: None)
    browser.at_once([put(str(number), number) for number in range(8)])
    assert browser.read() == {str(number): number for number in range(8)}


def test_error_drops_what_was_not_saved(browser: Browser) -> None:
    browser.do(put("x", [1]))

    def fail(session: Session) -> None:
        session["x"].append(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        browser.visit(fail)
    assert browser.read() == {"x": [1]}


# What does not open


def change(store: SessionStore, stored: StoredSession) -> None:
    """Write to the store as somebody with access to the database could."""
    store.save(stored)


def test_changed_data_counts_as_absent_and_stays(
    browser: Browser, store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(put("x", 1))
    stored = kept(store, browser)
    stored.data = stored.data[:-1] + bytes([stored.data[-1] ^ 1])
    change(store, stored)
    before = store.load(stored.id)
    assert browser.do(lambda session: (dict(session), session.id != stored.id)) == ({}, True)
    assert store.load(stored.id) == before
    assert reasons(caplog) == ["unreadable_data"]


@pytest.mark.parametrize("length", [0, 1, 5, 13, 20])
def test_cut_data_counts_as_absent(
    browser: Browser, store: SessionStore, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(put("x", 1))
    stored = kept(store, browser)
    stored.data = stored.data[:length]
    change(store, stored)
    assert browser.read() == {}
    assert reasons(caplog) == ["unreadable_data"]


def test_data_of_another_session_counts_as_absent(
    browser: Browser, site: SessionMiddleware, store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    admin = Browser(site)
    admin.do(put("role", "admin"))
    browser.do(put("role", "guest"))
    stored = kept(store, browser)
    stored.data = kept(store, admin).data
    change(store, stored)
    assert browser.read() == {}
    assert reasons(caplog) == ["unreadable_data"]


def test_session_made_over_to_another_user_counts_as_absent(
    browser: Browser, store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(lambda session: session.login("mallory"))
    stored = kept(store, browser)
    stored.user = "alice"
    change(store, stored)
    assert browser.do(lambda session: (dict(session), session.user)) == ({}, None)
    assert reasons(caplog) == ["unreadable_data"]


def test_wrong_key_opens_nothing_and_a_new_session_can_begin(
    browser: Browser, store: SessionStore, encryption: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site_over(store, encryption=encryption, clock=clock, encryption_key=OLD_KEY))
    other.do(put("y", 2))
    assert other.read() == {"y": 2}
    assert reasons(caplog) == ["unreadable_data"]
    assert browser.read() == {"x": 1}


def test_without_a_key_encrypted_sessions_count_as_absent(
    browser: Browser, store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(put("x", 1))
    assert copy_of(browser, site_over(store, clock=clock)).read() == {}
    assert reasons(caplog) == ["unreadable_data"]
    assert "encryption_key is not set" in caplog.text


def test_neither_the_store_nor_the_key_nor_both_read_a_session_encrypted_with_its_cookie(
    store: SessionStore, clock: ManualClock
) -> None:
    site = site_over(store, encryption="cookie", clock=clock, encryption_key=KEY)
    browser = Browser(site)
    browser.do(put("x", 1))
    stored = kept(store, browser)
    cipher = Cipher([KEY.encode()], with_cookie=True, reads_unencrypted=True)
    for secret in (None, stored.id, "A" * 43):
        with pytest.raises(ValueError, match="encrypted"):
            cipher.open(stored, secret)
    cookie = next(iter(browser.cookies.values()))
    assert b"x" in cipher.open(stored, cookie.split(".")[0])


# Replacing keys, and changing over


def test_old_keys_read_and_the_first_key_writes(store: SessionStore, encryption: str, clock: ManualClock) -> None:
    old = Browser(site_over(store, encryption=encryption, clock=clock, encryption_key=OLD_KEY))
    old.do(put("x", 1))
    both = copy_of(old, site_over(store, encryption=encryption, clock=clock, encryption_key=[KEY, OLD_KEY]))
    assert both.read() == {"x": 1}
    before = kept(store, old)
    both.do(put("y", 2))
    assert kept(store, both) != before
    new = copy_of(old, site_over(store, encryption=encryption, clock=clock, encryption_key=[KEY]))
    assert new.read() == {"x": 1, "y": 2}


def test_change_of_mode_ends_no_session(store: SessionStore, clock: ManualClock) -> None:
    sites = {
        mode: site_over(store, encryption=mode, clock=clock, encryption_key=KEY) for mode in ("server", "cookie")
    }
    browser = Browser(sites["server"])
    browser.do(put("x", 1))
    browser = copy_of(browser, sites["cookie"])
    browser.do(put("y", 2))
    assert kept(store, browser).data[:1] == COOKIE_FORMAT
    browser = copy_of(browser, sites["server"])
    browser.do(put("z", 3))
    assert kept(store, browser).data[:1] == SERVER_FORMAT
    assert browser.read() == {"x": 1, "y": 2, "z": 3}


def test_unencrypted_sessions_are_not_read_unless_asked_for(
    store: SessionStore, encryption: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Browser(site_over(store, clock=clock))
    plain.do(put("x", 1))
    strict = copy_of(plain, site_over(store, encryption=encryption, clock=clock, encryption_key=KEY))
    assert strict.read() == {}
    assert reasons(caplog) == ["unreadable_data"]
    moving = site_over(store, encryption=encryption, clock=clock, encryption_key=KEY, read_unencrypted=True)
    assert copy_of(plain, moving).read() == {"x": 1}


def test_unencrypted_sessions_are_encrypted_when_they_are_next_written(
    store: SessionStore, encryption: str, clock: ManualClock
) -> None:
    browser = Browser(site_over(store, clock=clock))
    browser.do(put("x", 1))
    settings = {"encryption": encryption, "clock": clock, "encryption_key": KEY}
    browser = copy_of(browser, site_over(store, read_unencrypted=True, **settings))
    browser.do(put("y", 2))
    assert copy_of(browser, site_over(store, **settings)).read() == {"x": 1, "y": 2}


# Settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"encryption_key": ""}, "encryption_key must not be empty"),
        ({"encryption_key": []}, "encryption_key must not be an empty list"),
        ({"encryption_key": 5}, "encryption_key must be str or bytes, or a list of them, not int"),
        ({"encryption_key": [KEY, None]}, "encryption_key must be str or bytes, or a list of them, not NoneType"),
        ({"encryption_key": "short"}, "encryption_key has 5 bytes, fewer than 32"),
        ({"encryption_key": "change-me" * 5}, "encryption_key is a placeholder"),
        ({"encryption_key": "a" * 32}, "encryption_key repeats fewer than 8 different characters"),
        ({"encryption_key": KEY, "encryption": "both"}, 'encryption must be "server" or "cookie", not \'both\''),
        ({"encryption_key": KEY, "read_unencrypted": 1}, "read_unencrypted must be True or False, not 1"),
        ({"encryption": "cookie"}, 'encryption_key must be set for encryption="cookie" and read_unencrypted=True'),
        ({"read_unencrypted": True}, 'encryption_key must be set for encryption="cookie" and read_unencrypted=True'),
    ],
)
def test_settings_that_would_not_protect_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        site_over(MemoryStore(), **settings)


@pytest.mark.whole
def test_without_cryptography_the_error_says_what_to_install() -> None:
    program = f"""
import sys
sys.modules["cryptography"] = None
from prism_wsgi import ConfigError, SessionMiddleware
try:
    SessionMiddleware(None, secret="{SECRET}", encryption_key="{KEY}")
except ConfigError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == (
        'encryption_key needs the package cryptography; install it: pip install "prism_wsgi[encryption]"\n'
    )


@pytest.mark.whole
def test_without_a_key_cryptography_is_not_imported() -> None:
    program = f"""
import sys
from prism_wsgi import SessionMiddleware
SessionMiddleware(None, secret="{SECRET}")
print("cryptography" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_data_encrypted_with_its_cookie_says_what_is_missing_to_read_it() -> None:
    cipher = Cipher([KEY.encode()], with_cookie=True, reads_unencrypted=False)
    row = StoredSession("0" * 64, b"data", 0, 0, 0)
    row.data = cipher.seal(row, "the cookie's secret")
    with pytest.raises(SerializationError, match="brings the cookie"):
        cipher.open(row, None)


def test_repr_shows_no_key() -> None:
    cipher = Cipher([KEY.encode()], with_cookie=False, reads_unencrypted=False)
    assert repr(cipher) == "<Cipher with 1 keys>"


# What the seal binds

RIGHTS = {
    "user": "mallory",
    "created_at": 2_000_000_000_000,
    "authenticated_at": 2_000_000_000_000,
    "auth_method": "hwk",
    "actor": "administrator",
    "device_key": b"another",
}


@pytest.mark.parametrize("column", RIGHTS)
def test_a_column_that_decides_rights_cannot_be_changed_behind_the_seal(column: str) -> None:
    cipher = Cipher([KEY.encode()], with_cookie=False, reads_unencrypted=False)
    row = StoredSession("0" * 64, b"data", 1, 5, 10, "ada", authenticated_at=7, auth_method="pwd", device_key=b"key")
    row.data = cipher.seal(row, None)
    assert cipher.open(replace(row, last_seen_at=8, expires_at=20, version=2, user_agent="Phone"), None) == b"data"
    with pytest.raises(SerializationError, match="cannot be decrypted"):
        cipher.open(replace(row, **{column: RIGHTS[column]}), None)  # type: ignore[arg-type]


def sealed_earlier(row: StoredSession, secret: str | None) -> bytes:
    """Encrypt a session's data as earlier releases did: they bound nothing but its id and its user."""
    form = b"\x10" if secret is None else b"\x11"
    purpose = (
        [b"session encryption, version 1", row.id.encode()]
        if secret is None
        else [b"session encryption with the cookie, version 1", row.id.encode(), secret.encode()]
    )
    bound = form + row.id.encode() + (b"" if row.user is None else b"=" + row.user.encode())
    nonce = bytes(12)
    return form + nonce + AESGCM(expand(extract(KEY.encode()), *purpose)).encrypt(nonce, row.data, bound)


@pytest.mark.parametrize("user", [None, "ada"])
@pytest.mark.parametrize("secret", [None, "the cookie's secret"])
def test_what_an_earlier_release_has_sealed_is_opened_unless_a_login_was_written_beside_it(
    secret: str | None, user: str | None
) -> None:
    cipher = Cipher([KEY.encode()], with_cookie=secret is not None, reads_unencrypted=False)
    row = StoredSession("0" * 64, b"data", 1, 5, 10, user)
    row.data = sealed_earlier(row, secret)
    assert cipher.open(row, secret) == b"data"
    for column in ("authenticated_at", "auth_method", "actor", "device_key"):
        with pytest.raises(SerializationError):
            cipher.open(replace(row, **{column: RIGHTS[column]}), secret)  # type: ignore[arg-type]
