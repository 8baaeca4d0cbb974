"""Whatever stands in a row, it is read or skipped: nothing else is raised, so that an import never stops halfway."""

import hashlib
import hmac
import json
import pickle
import zlib
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism_wsgi import MemoryStore
from prism_wsgi.compat.importing.beaker import BeakerPeer
from prism_wsgi.compat.importing.django import SALT, DjangoPeer
from prism_wsgi.compat.importing.flask_session import FlaskSessionPeer
from prism_wsgi.compat.importing.importing import ImportResult, import_sessions
from prism_wsgi.compat.importing.peer import Peer, Skip

NEVER = "2999-01-01 00:00:00"
KEY = "0" * 32

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_data = json_values.map(lambda value: json.dumps(value).encode())
any_data = st.binary() | json_data | json_values.map(pickle.dumps)
moments = st.sampled_from([NEVER, "2999-01-01T00:00:00+00:00", "0000-00-00", "soon", "", None, 5, b"x"])


def result_of(peer: Peer, row: dict[str, Any]) -> ImportResult:
    return import_sessions(peer, [row], MemoryStore(), user_key="user", max_size=10_000)


def signed(data: bytes) -> str:
    """Sign data as Django does."""
    value = f"{urlsafe_b64encode(data).rstrip(b'=').decode()}:1abcde"
    key = hashlib.sha256(f"{SALT}signerkey".encode()).digest()
    signature = urlsafe_b64encode(hmac.digest(key, value.encode(), "sha256")).rstrip(b"=").decode()
    return f"{value}:{signature}"


@given(any_data | any_data.map(zlib.compress), moments)
@example(b"[" * 100_000, NEVER)
@example(b'{"n": ' * 100 + b"1" + b"}" * 100, NEVER)
@example(b'{"n": ' + b"9" * 5000 + b"}", NEVER)
@example(b'{"n": "\\ud800"}', NEVER)
@example(b'{"user": "' + b"x" * 20_000 + b'"}', NEVER)
def test_any_bytes_signed_by_django_are_read_without_an_error(data: bytes, moment: object) -> None:
    row = {"session_key": KEY, "session_data": signed(data), "expire_date": moment}
    assert result_of(DjangoPeer(["key"]), row).read == 1


@given(st.text())
@example(":")
@example("::")
def test_any_text_that_django_has_not_signed_is_skipped(text: str) -> None:
    row = {"session_key": KEY, "session_data": text, "expire_date": NEVER}
    assert result_of(DjangoPeer(["key"]), row).skipped == {Skip.BAD_SIGNATURE: 1}


@given(any_data | json_values.map(msgpack.packb) | st.none(), moments)
@example(b"\x81\x91\x01\x01", NEVER)  # a list as a key
@example(b"\x81\xa1n\xd7\xff" + b"\xff" * 8, NEVER)  # a moment that is none
@example(b"\x81\xa1n\xc1", NEVER)  # the one byte that has no meaning
@example(b"\x81\xa1n\xd4\x05\x00", NEVER)  # somebody's own type
@example(b"\x91" * 2000, NEVER)
@example(b"\x81\xa1n" * 500 + b"\x01", NEVER)
def test_any_bytes_of_flask_session_are_read_without_an_error(data: bytes | None, moment: object) -> None:
    row = {"id": 1, "session_id": f"session:{KEY}", "data": data, "expiry": moment}
    assert result_of(FlaskSessionPeer("session:"), row).read == 1


@given(any_data | (any_data | json_data.map(zlib.compress)).map(lambda data: pickle.dumps({"session": data})))
def test_any_bytes_in_a_pickle_of_beakers_are_read_without_an_error(data: bytes) -> None:
    assert result_of(BeakerPeer(60), {"namespace": KEY, "data": data}).read == 1


@given(st.dictionaries(st.sampled_from(["_accessed_time", "_creation_time", "user", "n"]), json_values))
@example({"_accessed_time": 10**400, "n": 1})
@example({"_creation_time": 1e308, "n": 1})
@example({"user": True})
def test_any_values_of_beakers_are_read_without_an_error(values: dict[str, object]) -> None:
    text = b64encode(zlib.compress(json.dumps(values).encode())).decode()
    assert result_of(BeakerPeer(60), {"namespace": KEY, "data": pickle.dumps({"session": text})}).read == 1


@pytest.mark.parametrize(
    ("user", "imported_as"), [("ada", "ada"), (7, "7"), (None, None), ("", Skip.BAD_USER), ([1], Skip.BAD_USER)]
)
def test_a_user_is_text_or_a_number(user: object, imported_as: str | None) -> None:
    text = b64encode(zlib.compress(json.dumps({"user": user}).encode())).decode()
    store = MemoryStore()
    row = {"namespace": KEY, "data": pickle.dumps({"session": text})}
    result = import_sessions(BeakerPeer(None), [row], store, user_key="user", max_size=10_000)
    if imported_as is Skip.BAD_USER:
        assert result.skipped == {Skip.BAD_USER: 1}
    else:
        (stored,) = store.find_all()
        assert stored.user == imported_as


odd: object
ODD_ROWS: dict[str, tuple[Peer, dict[str, Any], Skip]] = {}
for odd in (None, 5, 0.5, b"\xff" * 32, b"x:y:z"):
    ODD_ROWS[f"django key {odd!r}"] = (
        DjangoPeer(["k"]),
        {"session_key": odd, "session_data": "x:y:z", "expire_date": NEVER},
        Skip.WEAK_KEY,
    )
    ODD_ROWS[f"django data {odd!r}"] = (
        DjangoPeer(["k"]),
        {"session_key": KEY, "session_data": odd, "expire_date": NEVER},
        Skip.UNREADABLE,
    )
    ODD_ROWS[f"flask-session key {odd!r}"] = (
        FlaskSessionPeer("session:"),
        {"id": 1, "session_id": odd, "data": b"\x80", "expiry": NEVER},
        Skip.WEAK_KEY,
    )
    ODD_ROWS[f"beaker key {odd!r}"] = (BeakerPeer(None), {"namespace": odd, "data": b"x"}, Skip.NO_SESSION)
for data in (None, 5, 0.5, "text"):
    ODD_ROWS[f"flask-session data {data!r}"] = (
        FlaskSessionPeer("session:"),
        {"id": 1, "session_id": "session:" + "A" * 43, "data": data, "expiry": NEVER},
        Skip.UNREADABLE,
    )
    ODD_ROWS[f"beaker data {data!r}"] = (BeakerPeer(None), {"namespace": KEY, "data": data}, Skip.UNREADABLE)


@pytest.mark.parametrize(("peer", "row", "reason"), ODD_ROWS.values(), ids=ODD_ROWS)
def test_a_value_of_another_type_than_the_package_writes_is_counted_and_left(
    peer: Peer, row: dict[str, Any], reason: Skip
) -> None:
    assert result_of(peer, row).skipped == {reason: 1}


PASSWORDS = {"7": "pbkdf2_sha256$1$salt$hash", "8": "!unusable"}


def login_hash(password: str, secret: str = "key") -> str:
    """Return what `AbstractBaseUser.get_session_auth_hash()` does."""
    key = hashlib.sha256(f"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash{secret}".encode())
    return hmac.new(key.digest(), password.encode(), "sha256").hexdigest()


LOGINS: dict[str, tuple[DjangoPeer, dict[str, Any], Skip | None]] = {
    "verified": (DjangoPeer(["key"], PASSWORDS), {"_auth_user_hash": login_hash(PASSWORDS["7"])}, None),
    "by a fallback": (DjangoPeer(["new", "key"], PASSWORDS), {"_auth_user_hash": login_hash(PASSWORDS["7"])}, None),
    "changed": (DjangoPeer(["key"], PASSWORDS), {"_auth_user_hash": login_hash("before")}, Skip.ENDED_LOGIN),
    "without": (DjangoPeer(["key"], PASSWORDS), {}, Skip.ENDED_LOGIN),
    "no text": (DjangoPeer(["key"], PASSWORDS), {"_auth_user_hash": 5}, Skip.ENDED_LOGIN),
    "gone": (DjangoPeer(["key"], {}), {"_auth_user_hash": login_hash(PASSWORDS["7"])}, Skip.ENDED_LOGIN),
    "no users": (DjangoPeer(["key"]), {"_auth_user_hash": login_hash(PASSWORDS["7"])}, Skip.UNVERIFIED_LOGIN),
    "trusted": (DjangoPeer(["key"], trusts_logins=True), {}, None),
}


@pytest.mark.parametrize(("peer", "values", "reason"), LOGINS.values(), ids=LOGINS)
def test_a_login_of_django_is_imported_where_django_would_take_it(
    peer: DjangoPeer, values: dict[str, Any], reason: Skip | None
) -> None:
    data = json.dumps({"_auth_user_id": "7", **values}).encode()
    result = result_of(peer, {"session_key": KEY, "session_data": signed(data), "expire_date": NEVER})
    assert (result.imported, result.skipped) == ((1, {}) if reason is None else (0, {reason: 1}))
