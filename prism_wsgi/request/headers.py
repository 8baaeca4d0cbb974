"""What a session means for the response's headers: pure functions over lists of WSGI header pairs.

Each returns a new list: an application may hand the same list to every request, and a middleware that changes
it sends one visitor's cookie to the next.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Headers = list[tuple[str, str]]

# What stands between commas, but for those inside a quoted string: no-cache="Set-Cookie, ETag"
_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


def vary_on_cookie(headers: Headers) -> Headers:
    """Say that the response depends on the cookie (RFC 9110 12.5.5; CVE-2023-30861)."""
    names = [name.lower() for name, _ in headers]
    if "vary" not in names:
        return [*headers, ("Vary", "Cookie")]
    first = names.index("vary")
    fields = [field.strip().lower() for field in _values(headers, "vary").split(",")]
    if "*" in fields or "cookie" in fields:
        return headers
    name, value = headers[first]
    joined = f"{value}, Cookie" if value.strip() else "Cookie"
    return [*headers[:first], (name, joined), *headers[first + 1 :]]


def is_public(headers: Headers) -> bool:
    """Tell whether a shared cache may store the response for a while (RFC 9111 3)."""
    directives = _cache_directives(headers)
    if not directives:
        return _expires_later(headers)
    names = {_directive_name(directive) for directive in directives}
    if names & {"private", "no-store"}:
        return False
    is_stale_at_once = any(directive.lower() == "max-age=0" for directive in directives)
    return bool(names & {"public", "s-maxage"}) or ("max-age" in names and not is_stale_at_once)


def make_private(headers: Headers) -> Headers:
    """Keep shared caches from storing the response (RFC 9111 7.3), unless it says so already."""
    directives = _cache_directives(headers)
    if not directives:
        return [*headers, ("Cache-Control", "private")]
    if any(directive.lower() in ("no-store", "private") for directive in directives):
        return headers
    kept = [one for one in directives if _directive_name(one) not in ("public", "s-maxage", "private")]
    others = [(name, value) for name, value in headers if name.lower() != "cache-control"]
    return [*others, ("Cache-Control", ", ".join([*kept, "private"]))]


def set_cookies(headers: Headers, name: str, header_values: list[str]) -> Headers:
    """Set a cookie, and delete its earlier forms, in place of any other cookie of that name.

    RFC 6265bis 4.1.1 allows one cookie of a name, domain and path a response.
    """
    prefix = f"{name}="
    others = [pair for pair in headers if pair[0].lower() != "set-cookie" or not pair[1].startswith(prefix)]
    return [*others, *[("Set-Cookie", value) for value in header_values]]


def _expires_later(headers: Headers) -> bool:
    value = _values(headers, "expires")
    try:
        return bool(value) and parsedate_to_datetime(value) > datetime.now(UTC)
    except (ValueError, TypeError):  # not a date, or one without its zone: RFC 9111 5.3 takes that for the past
        return False


def _values(headers: Headers, name: str) -> str:
    return ",".join([value for key, value in headers if key.lower() == name])


def _cache_directives(headers: Headers) -> list[str]:
    value = _values(headers, "cache-control")
    if not value:
        return []
    return [directive.strip() for directive in _DIRECTIVE.findall(value) if directive.strip()]


def _directive_name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()
