"""The session cookies of other packages, as their visitors hold them: which key one carries, if it is genuine."""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Protocol

from prism_wsgi.errors import ConfigError
from prism_wsgi.settings import Secret

DJANGO_KEY = re.compile(r"[0-9a-z]{32}")
FLASK_SESSION_KEY = re.compile(r"[0-9A-Za-z_-]{22,}")  # of 16 random bytes or more, 32 by default
BEAKER_KEY = re.compile(r"[0-9a-f]{32}")

_HEX_SHA1 = 40


class PeerCookie(Protocol):
    """Another package's session cookie. `origin` is the name that the import command has for the package."""

    @property
    def origin(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def domain(self) -> str | None: ...

    def key_in(self, value: str) -> str | None:
        """Return the key of the session that a cookie's value names, None for what the package never made."""
        ...


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
    """What a cookie has that its package may sign."""

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

    `secret` is the SECRET_KEY where SESSION_USE_SIGNER was on, or a list of keys; a cookie must then be signed.
    """

    origin: ClassVar[str] = "flask-session"

    name: str = "session"

    def key_in(self, value: str) -> str | None:
        """Return the session id, without the signature that itsdangerous puts behind it."""
        if keys := _secrets(self.secret):
            value, _, signature = value.rpartition(".")
            if not any(_matches(_itsdangerous_signature(key, value), signature) for key in keys):
                return None
        return value if FLASK_SESSION_KEY.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class BeakerCookie(_SignedCookie):
    """The cookie of Beaker: `session.key`, `session.cookie_path` and `session.cookie_domain`.

    `secret` is `session.secret`, where there was one, or a list; a cookie must then be signed.
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


def _itsdangerous_signature(secret: bytes, value: str) -> str:
    key = hmac.digest(secret, b"flask-session", "sha1")  # key_derivation="hmac"
    return urlsafe_b64encode(hmac.digest(key, value.encode(), "sha1")).rstrip(b"=").decode("ascii")


def _matches(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode())


def _secrets(given: Secret | Sequence[Secret]) -> list[bytes]:
    """Return the keys, none where the cookie was not signed. Raises ConfigError for an empty one."""
    several = [given] if isinstance(given, str | bytes) else given
    keys = [one.encode() if isinstance(one, str) else one for one in several]
    if not all(keys):
        raise ConfigError("secret must not be empty; leave it out where the cookie was not signed")
    return keys
