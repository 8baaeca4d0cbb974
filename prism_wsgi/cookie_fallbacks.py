"""Readers of other packages' session cookies: each verifies a cookie and returns the session in it, or its key.

`SessionMiddleware(..., cookie_fallbacks=[DjangoCookie()])` uses them, so that visitors keep their sessions.
"""

import hashlib
import hmac
import json
import re
import zlib
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Protocol, runtime_checkable
from uuid import UUID

from prism_wsgi.errors import ConfigError

Secret = str | bytes
"""A key as it is configured."""

MAX_COOKIE_DATA = 1024 * 1024  # bytes; a compressed cookie of 4 KiB can expand to 4 MiB

DJANGO_KEY = re.compile(r"[0-9a-z]{32}")
FLASK_SESSION_KEY = re.compile(r"[0-9A-Za-z_-]{22,}")  # of 16 random bytes or more, 32 by default
BEAKER_KEY = re.compile(r"[0-9a-f]{32}")

_HEX_SHA1 = 40


class _NamedCookie(Protocol):
    """A cookie's name, path and domain, by which a browser tells it from others."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def domain(self) -> str | None: ...


@runtime_checkable
class PeerCookie(_NamedCookie, Protocol):
    """Another package's session cookie, which names a session in that package's store.

    `origin` is the import command's name for the package.
    """

    @property
    def origin(self) -> str: ...

    def key_in(self, value: str) -> str | None:
        """Return the key of the session that a cookie's value names, None if the package did not make the value."""
        ...


@runtime_checkable
class DataCookie(_NamedCookie, Protocol):
    """Another package's session cookie, which holds the session itself."""

    def values_in(self, value: str, now: int) -> dict[str, Any] | None:
        """Return the session in a cookie's value, None if it is not genuine or has ended at `now` (Unix ms)."""
        ...


AnyCookie = PeerCookie | DataCookie


@dataclass(frozen=True, slots=True)
class DjangoCookie:
    """The cookie of `django.contrib.sessions`: SESSION_COOKIE_NAME, _PATH and _DOMAIN. Django does not sign it."""

    origin: ClassVar[str] = "django"

    name: str = "sessionid"
    _: KW_ONLY
    path: str = "/"
    domain: str | None = None

    def key_in(self, value: str) -> str | None:
        """Return the session key, 32 letters and digits."""
        return value if DJANGO_KEY.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class _SignedCookie:
    """The fields of a cookie that its package may sign."""

    name: str
    _: KW_ONLY
    secret: Secret | Sequence[Secret] = field(default=(), repr=False)
    path: str = "/"
    domain: str | None = None

    def __post_init__(self) -> None:
        _secrets(self.secret)


@dataclass(frozen=True, slots=True)
class FlaskSessionCookie(_SignedCookie):
    """The cookie of Flask-Session: SESSION_COOKIE_NAME, _PATH and _DOMAIN.

    If SESSION_USE_SIGNER was on, `secret` is the SECRET_KEY or a list of keys, and unsigned cookies are refused.
    """

    origin: ClassVar[str] = "flask-session"

    name: str = "session"

    def key_in(self, value: str) -> str | None:
        """Return the session id, without the signature that itsdangerous puts behind it."""
        if keys := _secrets(self.secret):
            value, _, signature = value.rpartition(".")
            if not any(_matches(_itsdangerous_signature(key, value, b"flask-session"), signature) for key in keys):
                return None
        return value if FLASK_SESSION_KEY.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class BeakerCookie(_SignedCookie):
    """The cookie of Beaker: `session.key`, `session.cookie_path` and `session.cookie_domain`.

    If `session.secret` was set, `secret` is that secret or a list of secrets, and unsigned cookies are refused.
    """

    origin: ClassVar[str] = "beaker"

    name: str = "beaker.session.id"

    def key_in(self, value: str) -> str | None:
        """Return the session id, without the HMAC-SHA-1 that stands before it."""
        if keys := _secrets(self.secret):
            signature, value = value[:_HEX_SHA1], value[_HEX_SHA1:]
            if not any(_matches(hmac.new(key, value.encode(), "sha1").hexdigest(), signature) for key in keys):
                return None
        return value if BEAKER_KEY.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class FlaskCookie:
    """The cookie in which Flask itself keeps a session: SESSION_COOKIE_NAME, _PATH and _DOMAIN.

    `secret` is the SECRET_KEY, or a list of keys; `max_age` is PERMANENT_SESSION_LIFETIME in seconds.
    """

    secret: Secret | Sequence[Secret] = field(repr=False)
    name: str = "session"
    _: KW_ONLY
    path: str = "/"
    domain: str | None = None
    max_age: int = 31 * 24 * 3600

    def __post_init__(self) -> None:
        if not _secrets(self.secret):
            raise ConfigError("secret must be Flask's SECRET_KEY")

    def values_in(self, value: str, now: int) -> dict[str, Any] | None:
        """Return the session that itsdangerous has signed as `payload.moment.signature`."""
        signed, _, signature = value.rpartition(".")
        payload, _, moment = signed.rpartition(".")
        keys = _secrets(self.secret)
        if not any(_matches(_itsdangerous_signature(key, signed, b"cookie-session"), signature) for key in keys):
            return None
        signed_at = int.from_bytes(_from_base64(moment), "big")
        if now // 1000 - signed_at > self.max_age:
            return None
        data = _from_base64(payload.removeprefix("."))
        found = _untagged(_from_json(_decompressed(data) if payload.startswith(".") else data))
        if not isinstance(found, dict):
            return None
        found.pop("_permanent", None)
        return found


@dataclass(frozen=True, slots=True)
class PyramidCookie:
    """The cookie of Pyramid's SignedCookieSessionFactory with its JSON serializer.

    `secret`, `salt`, `hashalg` and `timeout` (seconds, or None) are the factory's.
    """

    secret: Secret = field(repr=False)
    name: str = "session"
    _: KW_ONLY
    path: str = "/"
    domain: str | None = None
    salt: str = "pyramid.session."
    hashalg: str = "sha512"
    timeout: int | None = 1200

    def __post_init__(self) -> None:
        if not _secrets(self.secret):
            raise ConfigError("secret must be the secret of SignedCookieSessionFactory")

    def values_in(self, value: str, now: int) -> dict[str, Any] | None:
        """Return the session in a cookie's value, which begins with the signature."""
        data = _from_base64(value)
        size = hashlib.new(self.hashalg).digest_size
        signature, content = data[:size], data[size:]
        [key] = _secrets([self.secret])
        if not hmac.compare_digest(hmac.digest(self.salt.encode() + key, content, self.hashalg), signature):
            return None
        found = _from_json(content)
        if not isinstance(found, list) or len(found) != 3 or not isinstance(found[2], dict):
            return None
        renewed = found[0]
        if not isinstance(renewed, int | float) or (self.timeout is not None and now / 1000 - renewed > self.timeout):
            return None
        return found[2]


def _itsdangerous_signature(secret: bytes, value: str, salt: bytes) -> str:
    key = hmac.digest(secret, salt, "sha1")  # key_derivation="hmac"
    return urlsafe_b64encode(hmac.digest(key, value.encode(), "sha1")).rstrip(b"=").decode("ascii")


def _from_base64(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


def _decompressed(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        return reader.decompress(data, MAX_COOKIE_DATA)
    except zlib.error:
        return b""


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _untagged(value: Any) -> Any:
    """Return the value that Flask's TaggedJSONSerializer wrote as tagged JSON."""
    if isinstance(value, list):
        return [_untagged(one) for one in value]
    if not isinstance(value, dict):
        return value
    values = {key: _untagged(one) for key, one in value.items()}
    if len(values) != 1:
        return values
    [(tag, content)] = values.items()
    return _TAGS[tag](content) if tag in _TAGS else values


def _tagged_dict(content: dict[str, Any]) -> dict[str, Any]:
    # Flask appends two underscores to a dict's only key if that key looks like a tag.
    [(key, value)] = content.items()
    return {key.removesuffix("__"): value}


_TAGS: dict[str, Any] = {
    " di": _tagged_dict,
    " t": tuple,
    " b": b64decode,
    " m": lambda content: _Html(content),
    " u": lambda content: UUID(hex=content),
    " d": parsedate_to_datetime,
}


class _Html(str):
    """HTML text, which the serializer stores as Markup."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _matches(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode())


def _secrets(given: Secret | Sequence[Secret]) -> list[bytes]:
    """Return the keys, an empty list if the cookie was not signed. Raises ConfigError for an empty key."""
    several = [given] if isinstance(given, str | bytes) else given
    keys = [one.encode() if isinstance(one, str) else one for one in several]
    if not all(keys):
        raise ConfigError("secret must not be empty; leave it out if the cookie was not signed")
    return keys
