"""The checks of `prism-wsgi doctor --visit`: the session cookie that a browser gets."""

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from prism_wsgi.cli.doctor.findings import Finding, Level
from prism_wsgi.cli.text import one_line
from prism_wsgi.tokens import is_token_shaped

SECONDS = 10


def check_cookie(address: str) -> Iterator[Finding]:
    """Visit an address of the application as a new browser does, and check the cookie in the response."""
    try:
        cookies = _visit(address)
    except (OSError, HTTPException, ValueError) as error:
        yield Finding(
            "cookie",
            Level.FAIL,
            f"{address} cannot be visited: {one_line(str(error))}",
            "start it, or correct --visit",
        )
        return
    found = [cookie for cookie in map(_split, cookies) if is_token_shaped(cookie[1])]
    if not found:
        yield Finding(
            "cookie",
            Level.WARN,
            f"{address} sent no session cookie",
            'visit a page that no cache answers and, with cookie_on="write", one that writes to the session',
        )
    for name, _, attributes in found:
        yield from _judge(name, attributes)


def _visit(address: str) -> list[str]:
    place = urlsplit(address)
    if place.scheme not in ("http", "https") or place.hostname is None:
        raise ValueError("it must begin with http:// or https://")
    # Not urllib.request: it follows redirections, and the cookie of the first answer would be lost.
    kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
    connection = kind(place.hostname, place.port, timeout=SECONDS)
    try:
        target = (place.path or "/") + (f"?{place.query}" if place.query else "")
        connection.request("GET", target, headers={"User-Agent": "prism-wsgi doctor"})
        return connection.getresponse().headers.get_all("Set-Cookie") or []
    finally:
        connection.close()


def _split(header: str) -> tuple[str, str, dict[str, str]]:
    pair, *attributes = header.split(";")
    name, _, value = pair.partition("=")
    named = (attribute.partition("=") for attribute in attributes)
    return name.strip(), value.strip(), {key.strip().lower(): text.strip() for key, _, text in named}


def _judge(name: str, attributes: dict[str, str]) -> Iterator[Finding]:
    problems = []
    if "secure" not in attributes:
        message = f"{name} is also sent over plain HTTP, where others can read it"
        problems.append(Finding("cookie", Level.FAIL, message, "set secure=True"))
    if "httponly" not in attributes:
        message = f"{name} can be read by scripts, also by injected ones"
        problems.append(Finding("cookie", Level.FAIL, message, "set httponly=True"))
    if attributes.get("samesite", "").lower() not in ("lax", "strict"):
        message = f"{name} is sent with requests that other sites start"
        problems.append(Finding("cookie", Level.WARN, message, 'set samesite="lax", unless other sites embed yours'))
    if attributes.get("domain"):
        message = f"{name} is sent to every host under {one_line(attributes['domain'])}"
        problems.append(Finding("cookie", Level.WARN, message, "set domain=None, unless they share the sessions"))
    yield from problems
    if not problems:
        yield Finding("cookie", Level.OK, f"{name} is Secure, HttpOnly and SameSite={attributes['samesite']}")
