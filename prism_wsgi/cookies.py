"""Cookie syntax (RFC 6265bis): the Cookie value, and a strict reader of the Cookie header."""

import re
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from prism_wsgi.errors import InvalidCookie

MAX_PAIR_BYTES = 4096  # RFC 6265bis 5.6: browsers ignore a larger name and value
MAX_ATTRIBUTE_BYTES = 1024  # and a longer attribute value
MAX_CANDIDATES = 4
"""The largest number of cookies of one name that are verified in a request, since each costs an HMAC."""
MAX_AGE_LIMIT = 400 * 24 * 3600  # seconds; RFC 6265bis 5.5: browsers shorten a longer one

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAME_CHARACTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 5.6.2
_NAME = re.compile(f"{_NAME_CHARACTER}+")
_VALUE = re.compile(r"[\x21\x23-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]*")  # cookie-octets, RFC 6265bis 4.1.1
_PATH = re.compile(r"/[\x20-\x3A\x3C-\x7E]*")
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")

_PREFIXES = ("__Secure-", "__Host-Http-", "__Host-", "__Http-")


class SameSite(StrEnum):
    """The rule by which a browser sends a cookie with requests that another site started."""

    STRICT = "Strict"
    """Never."""
    LAX = "Lax"
    """With top-level navigation (a followed link), but not with embeds or forms that post."""
    NONE = "None"
    """Always; needs `secure`."""

    @classmethod
    def _missing_(cls, value: object) -> "SameSite | None":
        text = value.capitalize() if isinstance(value, str) else value
        return next((member for member in cls if member.value == text), None)


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie to be set, checked when it is built.

    A leading dot of `domain` is stripped: it has no meaning since RFC 6265, but frameworks still write it.
    `max_age` is in seconds, 0 to 400 days; `expires` an aware datetime; without both the cookie ends with
    the browser's session. `samesite` takes a SameSite or its name. `partitioned` keeps the cookie apart
    for each top-level site (CHIPS).

    Raises InvalidCookie for a cookie that browsers would drop, cut or misread (RFC 6265bis, 4.1 and 5.7).
    """

    name: str
    value: str
    _: KW_ONLY
    path: str = "/"
    domain: str | None = None
    max_age: int | None = None
    expires: datetime | None = None
    secure: bool = True
    httponly: bool = True
    samesite: SameSite | str = SameSite.LAX
    partitioned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "samesite", _same_site(self.samesite))
        if isinstance(self.domain, str):
            object.__setattr__(self, "domain", self.domain.removeprefix("."))
        _check_pair(self.name, self.value)
        _check_attributes(self)
        _check_prefix(self)

    @property
    def header_value(self) -> str:
        """The value of the `Set-Cookie` header."""
        max_age = "" if self.max_age is None else f"; Max-Age={self.max_age}"
        return f"{self.name}={self.value}{max_age}{self.attributes}"

    @property
    def attributes(self) -> str:
        """All attributes but `Max-Age`, as they stand in the header, each behind a semicolon."""
        parts = [f"; Path={self.path}"]
        if self.domain is not None:
            parts.append(f"; Domain={self.domain}")
        if self.expires is not None:
            parts.append(f"; Expires={format_datetime(self.expires.astimezone(UTC), usegmt=True)}")
        if self.secure:
            parts.append("; Secure")
        if self.httponly:
            parts.append("; HttpOnly")
        parts.append(f"; SameSite={self.samesite}")
        if self.partitioned:
            parts.append("; Partitioned")
        return "".join(parts)

    def deletion(self) -> "Cookie":
        """Return the cookie that deletes this one.

        It repeats every attribute: a browser ignores a deletion of a `__Host-` cookie that is not `Secure`.
        """
        return replace(self, value="", max_age=0, expires=_EPOCH)


def read_cookie(header: str, name: str) -> list[str]:
    """Return each distinct value of the cookie `name` in a Cookie header, in order, without empty ones.

    Splits at `;`, trims space and tab around pair and value, compares the name byte for byte, and does nothing
    else. An attacker can make a parser that also splits at commas or spaces, unquotes, or trims other white space
    see a cookie that the browser never set (CVE-2020-8184, CVE-2023-23934). A parser that stops at a malformed pair
    misses the cookies behind it.
    """
    wanted = f"{name}="
    if wanted not in header:
        return []
    values = []
    for pair in header.split(";"):
        pair = pair.strip(" \t")
        if pair.startswith(wanted) and (value := pair[len(wanted) :].lstrip(" \t")):
            values.append(value)
    return values if len(values) < 2 else list(dict.fromkeys(values))


def must_be_secure(name: str) -> bool:
    """Tell whether browsers take a cookie of this name, or its deletion, only if it is `Secure`: by its prefix."""
    return name.lower().startswith(tuple(prefix.lower() for prefix in _PREFIXES))


def naming(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds one of these names and its "=" anywhere in a text, but not the end of a longer name."""
    return re.compile(f"(?<!{_NAME_CHARACTER})(?:{'|'.join(map(re.escape, names))})=")


def _same_site(value: SameSite | str) -> SameSite:
    try:
        return SameSite(value)
    except ValueError:
        raise InvalidCookie('samesite must be "strict", "lax" or "none"') from None


def _check_pair(name: str, value: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidCookie(f"A cookie's name must be one or more of A-Z a-z 0-9 !#$%&'*+-.^_`|~, not {name!r}")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise InvalidCookie(
            f"The value of cookie {name!r} must be printable ASCII without space, quote, comma, semicolon or "
            "backslash; encode it first, for example with urllib.parse.quote(value)"
        )
    if len(name) + len(value) > MAX_PAIR_BYTES:
        raise InvalidCookie(f"Cookie {name!r} is larger than {MAX_PAIR_BYTES} bytes, and browsers would drop it")


def _check_attributes(cookie: Cookie) -> None:
    if not isinstance(cookie.path, str) or not _PATH.fullmatch(cookie.path):
        raise InvalidCookie(f"path must begin with / and be printable ASCII without semicolon, not {cookie.path!r}")
    if cookie.domain is not None and (not isinstance(cookie.domain, str) or not _DOMAIN.fullmatch(cookie.domain)):
        raise InvalidCookie(
            f"domain must be a plain host name such as example.com (no scheme or port), not {cookie.domain!r}"
        )
    if max(len(cookie.path), len(cookie.domain or "")) > MAX_ATTRIBUTE_BYTES:
        raise InvalidCookie(f"path and domain must not be longer than {MAX_ATTRIBUTE_BYTES} bytes")
    if cookie.max_age is not None and (type(cookie.max_age) is not int or not 0 <= cookie.max_age <= MAX_AGE_LIMIT):
        raise InvalidCookie(f"max_age must be whole seconds from 0 to {MAX_AGE_LIMIT} (400 days)")
    if cookie.expires is not None and (not isinstance(cookie.expires, datetime) or cookie.expires.tzinfo is None):
        raise InvalidCookie("expires must be an aware datetime, for example datetime.now(UTC) + timedelta(days=1)")
    if cookie.samesite is SameSite.NONE and not cookie.secure:
        raise InvalidCookie('samesite="none" needs secure=True: browsers refuse the cookie without it')
    if cookie.partitioned and not cookie.secure:
        raise InvalidCookie("partitioned=True needs secure=True: browsers refuse the cookie without it")


def _check_prefix(cookie: Cookie) -> None:
    lowered = cookie.name.lower()
    prefix = next((prefix for prefix in _PREFIXES if lowered.startswith(prefix.lower())), None)
    if prefix is None:
        return
    if not cookie.name.startswith(prefix):
        # Browsers that compare without case enforce the rules, others do not: RFC 6265bis 5.4.
        raise InvalidCookie(f"Cookie {cookie.name!r} must spell its prefix {prefix}")
    if not cookie.secure:
        raise InvalidCookie(f"A {prefix} cookie needs secure=True")
    if prefix.startswith("__Host-") and (cookie.domain is not None or cookie.path != "/"):
        raise InvalidCookie(f'A {prefix} cookie needs path="/" and no domain')
    if prefix.endswith("Http-") and not cookie.httponly:
        raise InvalidCookie(f"A {prefix} cookie needs httponly=True")
