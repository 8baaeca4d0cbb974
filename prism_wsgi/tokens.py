"""Secrets, session ids, and the signed tokens that carry a secret in a cookie.

Only the cookie holds the secret. Everything else sees the id, a hash of the secret, from which nobody can make a
cookie: a stolen database or log opens no session (CVE-2019-16782).
"""

import hmac
import re
import secrets
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from prism_wsgi.key_derivation import expand, extract

TIME_BYTES = 6
RANDOM_BYTES = 26  # 208 bits; ASVS 5.0, 7.2.3 asks for 128

SECRET_LENGTH = 43  # characters: 32 bytes in base64url without padding
ID_LENGTH = 64  # hex digits

_TIME_CHARACTERS = 8  # base64url turns 6 bytes into exactly 8 characters

# The base64 module takes three times as long for the same.
_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")
_FROM_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")

# One spelling per token: ASCII only, no padding, no leading zeros.
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(
    r"[A-Za-z0-9_-]{43}"
    r"\.(0|[1-9][0-9]{0,10})(\+[1-9][0-9]{0,7})?[ps]?"
    r"\.[A-Za-z0-9_-]{43}"
)
LONGEST_TOKEN = SECRET_LENGTH + 1 + 11 + 1 + 8 + 1 + 1 + 43
SHORTEST_TOKEN = SECRET_LENGTH + 1 + 1 + 1 + 43
_KEPT = {None: "", True: "p", False: "s"}
_KEPT_BACK = {"p": True, "s": False}


def new_secret(now: int) -> str:
    """Draw a secret for a session that begins at `now` (Unix milliseconds).

    The time comes first so that ids are ordered by time: PostgreSQL inserts such keys twice as fast as random ones,
    with 40 % less WAL. Raises OSError when the system has no randomness.
    """
    return _base64url(now.to_bytes(TIME_BYTES, "big") + secrets.token_bytes(RANDOM_BYTES))


def session_id(secret: str) -> str:
    """Return the id of the session that `secret` opens: its time, then SHA-256 of the secret, in hex."""
    text = secret.encode("ascii")
    return _time_bytes(text).hex() + sha256(text).hexdigest()[: 2 * RANDOM_BYTES]


def issued_at(secret: str) -> int:
    """Return when the secret was drawn, in Unix milliseconds."""
    return int.from_bytes(_time_bytes(secret.encode("ascii")), "big")


class Token(NamedTuple):
    """The content of a verified cookie.

    `refreshed` is the Unix second at which the cookie was last renewed, 0 when nothing has been stored
    for it yet. `ttl`, the session's idle lifetime in seconds, and `persistent`, whether its cookie outlives
    the browser's session, are None if the configured ones apply. `outdated_key` is True if an old key signed it.
    """

    secret: str
    refreshed: int
    ttl: int | None = None
    persistent: bool | None = None
    outdated_key: bool = False

    def __repr__(self) -> str:
        return f"<Token of session {session_id(self.secret)}>"


def is_secret(value: str) -> bool:
    """Tell whether a text has the form of a secret."""
    return _SECRET.fullmatch(value) is not None


def is_token_shaped(value: str) -> bool:
    """Tell whether a text has the form of a token; only a Signer can tell whether it is genuine."""
    return len(value) <= LONGEST_TOKEN and _TOKEN.fullmatch(value) is not None


def holds_token(text: str) -> bool:
    """Tell whether anything in a text has the form of a token."""
    return _TOKEN.search(text) is not None


class Signer:
    """The signature of tokens for one cookie name: HMAC-SHA-256, fixed in code (RFC 2104).

    The first key signs; every key verifies.
    """

    def __init__(self, secrets: Sequence[bytes], cookie_name: str) -> None:
        # "=" cannot stand in a cookie's name, so name, secret and time cannot run into each other.
        self._prefix = f"{cookie_name}=".encode("ascii")
        # Each has its key hashed in already: a copy takes half the time of a new one.
        self._macs = [hmac.new(_signing_key(secret, cookie_name), digestmod="sha256") for secret in secrets]

    def __repr__(self) -> str:
        return f"<Signer with {len(self._macs)} keys>"

    def shares_key_with(self, other: "Signer") -> bool:
        """Tell whether both signers have a key in common, for the same cookie name."""
        return not self._marks().isdisjoint(other._marks())  # noqa: SLF001, another of the same class

    def _marks(self) -> set[bytes]:
        """Return a fingerprint of each key, by which two keys can be compared."""
        return {hmac.digest(mac.digest(), self._prefix, "sha256") for mac in self._macs}

    def sign(self, secret: str, refreshed: int, ttl: int | None = None, persistent: bool | None = None) -> str:
        """Return the cookie value with this content; see Token."""
        own_ttl = "" if ttl is None else f"+{ttl}"
        claims = f"{secret}.{refreshed}{own_ttl}{_KEPT[persistent]}"
        return f"{claims}.{self._signature(self._macs[0], claims)}"

    def verify(self, value: str) -> Token | None:
        """Return the content of a cookie value, or None if none of the keys signed it.

        Nothing in the value is read before its signature is verified.
        """
        if not SHORTEST_TOKEN <= len(value) <= LONGEST_TOKEN or not value.isascii():
            return None
        claims, _, signature = value.rpartition(".")
        for mac in self._macs:
            if hmac.compare_digest(self._signature(mac, claims), signature):
                return _read_claims(claims, outdated_key=mac is not self._macs[0])
        return None

    def _signature(self, mac: hmac.HMAC, claims: str) -> str:
        signing = mac.copy()
        signing.update(self._prefix + claims.encode("ascii"))
        return _base64url(signing.digest())


def _read_claims(claims: str, *, outdated_key: bool) -> Token:
    rest = claims[SECRET_LENGTH + 1 :]
    if rest.isdigit():
        return Token(claims[:SECRET_LENGTH], int(rest), None, None, outdated_key)
    refreshed, _, ttl = rest.rstrip("ps").partition("+")
    persistent = _KEPT_BACK.get(rest[-1])
    return Token(claims[:SECRET_LENGTH], int(refreshed), int(ttl) if ttl else None, persistent, outdated_key)


def _signing_key(secret: bytes, cookie_name: str) -> bytes:
    return expand(extract(secret), b"cookie signature, version 1", cookie_name.encode("ascii"))


def _base64url(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_TO_URL_ALPHABET).rstrip(b"=").decode("ascii")


def _time_bytes(secret: bytes) -> bytes:
    return a2b_base64(secret[:_TIME_CHARACTERS].translate(_FROM_URL_ALPHABET))
