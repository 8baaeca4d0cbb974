"""The requests that are timed, and what the application does with its session in each of them."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgpack

USER = "alice@example.org"

SMALL: dict[str, Any] = {
    "user": USER,
    "csrf": "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2,
    "theme": "dark",
    "language": "en-GB",
    "n": 0,
    "cart": [{"article": 4711, "quantity": 2}, {"article": 4712, "quantity": 1}],
    "seen": [1700000000, 1700000300, 1700000600, 9],
}
"""200 bytes of msgpack, like most sessions: a user, a few preferences, a cart."""

SMALL_STORED = b"\x01" + msgpack.packb(SMALL)
"""The same as prism_wsgi stores it."""

LARGE: dict[str, Any] = SMALL | {
    "history": [{"article": 5000 + n, "title": f"Article number {n}", "at": 1700000000 + n} for n in range(88)]
}
"""4 KB of msgpack: many small values, not one long text."""


class Sent(Enum):
    """The cookie that a request brings."""

    VALID = auto()
    NONE = auto()
    FORGED = auto()
    LATEST = auto()
    """The one set by the response before it, as a browser would."""


@dataclass(frozen=True)
class Scenario:
    """One kind of request. `path` chooses what the application does."""

    name: str
    path: str
    sent: Sent
    title: str
    content: Mapping[str, Any] = field(default_factory=lambda: SMALL, hash=False)


SCENARIOS = (
    Scenario("untouched", "/untouched", Sent.VALID, "valid cookie, session not used"),
    Scenario("read", "/read", Sent.VALID, "one key read"),
    Scenario("write", "/write", Sent.VALID, "one key written"),
    Scenario("new", "/write", Sent.NONE, "no cookie, one key written"),
    Scenario("forged", "/untouched", Sent.FORGED, "forged cookie, session not used"),
    Scenario("forged_read", "/read", Sent.FORGED, "forged cookie, one key read"),
    Scenario("expired", "/read", Sent.VALID, "expired cookie, one key read"),
    Scenario("first_visit", "/untouched", Sent.NONE, "no cookie, session not used"),
    Scenario("login", "/login", Sent.LATEST, "new id for a session that goes on"),
    Scenario("touch", "/touch", Sent.LATEST, "one key read, activity to be recorded"),
    Scenario("read_4k", "/read", Sent.VALID, "one key read, session of 4 KB", LARGE),
    Scenario("write_4k", "/write", Sent.VALID, "one key written, session of 4 KB", LARGE),
)

_numbers = count(1)


def fill(session: MutableMapping[str, Any]) -> bytes:
    """Store the 200-byte session."""
    session.update(SMALL)
    return b"ok"


def fill_large(session: MutableMapping[str, Any]) -> bytes:
    """Store the 4 KB session."""
    session.update(LARGE)
    return b"ok"


def leave(session: object) -> bytes:  # noqa: ARG001
    """Do not use the session."""
    return b"ok"


def read(session: Mapping[str, Any]) -> bytes:
    """Read one key."""
    session.get("user")
    return b"ok"


def write(session: MutableMapping[str, Any]) -> bytes:
    """Write one key, another value each time."""
    session["n"] = next(_numbers)
    return b"ok"


def show(session: Mapping[str, Any]) -> bytes:
    """Show the stored values; this request is not timed, and proves that the timed requests did their work."""
    return f"{session.get('user')} {session.get('n')} {len(session.get('history') or '')}".encode()


Action = Callable[[Any], bytes]

ACTIONS: Mapping[str, Action] = {
    "/untouched": leave,
    "/read": read,
    "/write": write,
    "/fill": fill,
    "/fill_large": fill_large,
    "/show": show,
}
"""The work of the application at each path; logging in differs from package to package."""


def plain_application(session_key: str, actions: Mapping[str, Action]) -> WSGIApplication:
    """Return the application for middleware that puts a session into the environ."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = actions[environ["PATH_INFO"]](environ[session_key])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def bare_application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do what `plain_application` does, without a session."""
    body = ACTIONS[environ["PATH_INFO"]](_nothing)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


_nothing: dict[str, Any] = {}
