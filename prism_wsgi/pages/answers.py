"""The pages' responses in plain WSGI, with the headers that all of them have, and their forms."""

import json
from collections.abc import Mapping
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi.http import Request

MAX_FORM = 16 * 1024  # bytes
CSRF_FIELD = "csrf_token"  # the name that Pyramid's CSRF protection reads too

# The stylesheet and the script are files of the same origin, so that a site with a strict policy can use them too.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Refused(Exception):
    """A request that is refused; `status` says why."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def send(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    body: bytes,
    content_type: str,
    *headers: tuple[str, str],
    status: str = "200 OK",
    cache_control: str = "no-store",
) -> list[bytes]:
    """Begin a response and return its body."""
    start_response(
        status,
        [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", cache_control),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            *headers,
        ],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def send_json(
    environ: WSGIEnvironment, start_response: StartResponse, data: Mapping[str, Any], *, status: str = "200 OK"
) -> list[bytes]:
    """Answer with JSON."""
    return send(environ, start_response, json.dumps(data).encode(), "application/json", status=status)


def refuse(environ: WSGIEnvironment, start_response: StartResponse, refused: Refused) -> list[bytes]:
    """Answer a refused request with its status."""
    allow = [("Allow", "GET, HEAD, POST")] if refused.status.startswith("405") else []
    return send(environ, start_response, f"{refused.status}\n".encode(), "text/plain", *allow, status=refused.status)


def redirect(environ: WSGIEnvironment, start_response: StartResponse, location: str) -> list[bytes]:
    """Let the browser fetch another page by GET; a relative location works under any prefix."""
    return send(environ, start_response, b"", "text/plain", ("Location", location), status="303 See Other")


def only_get(environ: WSGIEnvironment) -> None:
    """Raise Refused for a request that is neither GET nor HEAD."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        raise Refused("405 Method Not Allowed")


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a request's form. Raises Refused for a large or wrong form."""
    if (request.content_length or 0) > MAX_FORM:
        raise Refused("413 Content Too Large")
    try:
        sent = request.POST.items()
        fields = {name: value for name, value in sent if isinstance(value, str)}
    except (UnicodeError, ValueError):
        raise Refused("400 Bad Request") from None
    if len(fields) < len(request.POST):
        raise Refused("400 Bad Request")  # a file, or a field that came twice
    return fields
