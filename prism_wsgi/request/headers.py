"""The headers of a response that used a session: pure functions over lists of WSGI header pairs.

Each returns a new list. An application may pass the same list for every request, and a middleware that changed it
would send one visitor's cookie to the next.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

Headers = list[tuple[str, str]]

# Edge servers' own headers; nginx's is a number of seconds.
_NGINX = "x-accel-expires"
_FOR_SHARED_CACHES = frozenset({"surrogate-control", "edge-control", _NGINX})

# The text between commas, except commas inside a quoted string: no-cache="Set-Cookie, ETag"
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
    """Tell whether a shared cache may store the response for a while (RFC 9111 3, RFC 9213 2)."""
    if any(_is_for_shared_caches(name) and _lets_them_store(name, value) for name, value in headers):
        return True
    directives = _cache_directives(headers)
    if not directives:
        return _expires_later(headers)
    return _is_public(directives)


def _is_public(directives: list[str]) -> bool:
    names = {_directive_name(directive) for directive in directives}
    if names & {"private", "no-store"}:
        return False
    is_stale_at_once = any(directive.lower() == "max-age=0" for directive in directives)
    return bool(names & {"public", "s-maxage"}) or ("max-age" in names and not is_stale_at_once)


def make_private(headers: Headers) -> Headers:
    """Keep shared caches from storing the response (RFC 9111 7.3), unless it says so already."""
    # Without such a header, a shared cache obeys Cache-Control.
    headers = [pair for pair in headers if not (_is_for_shared_caches(pair[0]) and _lets_them_store(*pair))]
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


def is_https_outside(environ: WSGIEnvironment) -> bool:
    """Tell whether a request over plain HTTP may have come over HTTPS to a proxy, or from this machine.

    Use it for a warning only, because anybody can send these headers.
    """
    forwarded = f"{environ.get('HTTP_X_FORWARDED_PROTO', '')} {environ.get('HTTP_FORWARDED', '')}"
    if "https" in forwarded.lower():
        return True
    host = urlsplit(f"//{environ.get('HTTP_HOST') or environ.get('SERVER_NAME', '')}").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")


def _is_for_shared_caches(name: str) -> bool:
    """Tell whether a header is for shared caches only, which prefer it to Cache-Control."""
    name = name.lower()
    return name.endswith("cdn-cache-control") or name in _FOR_SHARED_CACHES


def _lets_them_store(name: str, value: str) -> bool:
    if name.lower() == _NGINX:
        return value.strip() != "0"
    return _is_public(_split(value))


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
    return _split(value) if value else []


def _split(value: str) -> list[str]:
    return [directive.strip() for directive in _DIRECTIVE.findall(value) if directive.strip()]


def _directive_name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()
