"""A site whose requests are interrupted at random moments, as by a timeout library; served by gunicorn.

interrupts.py runs it. A request that was interrupted is answered 500, and its worker goes on: the next visitor's
request meets whatever the interrupted one has left behind.
"""

import gc
import json
import os
import random  # a moment need not be secret
import signal
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from types import FrameType
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import RedisStore, Session, SessionMiddleware
from prism_wsgi.stores.urls import open_store
from tests.support.interrupting import Interrupted
from tests.support.keys import SECRET

STEP = 1.05
"""By how much the longest time until the signal grows or shrinks, so that it interrupts half of the requests."""

store: Any = open_store(os.environ["SITE_STORE"])
max_connections = int(os.environ["SITE_CONNECTIONS"])


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with what is in the session, after doing to it what the path says."""
    session: Session = environ["prism.session"]
    path = environ["PATH_INFO"]
    if path == "/login":
        session.login(environ["QUERY_STRING"])
        session["name"], session["n"] = environ["QUERY_STRING"], 0
    elif path == "/count":
        if session.user is not None:
            session["n"] += 1
    elif path == "/regenerate":
        session.regenerate()
    body = json.dumps({"user": session.user, "name": session.get("name"), "n": session.get("n")}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Interruptions:
    """A WSGI application around another: SIGALRM ends its requests at random moments with an exception."""

    def __init__(self, app: SessionMiddleware) -> None:
        self._app = app
        self._longest = 0.01  # seconds
        self._is_armed = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/pool":
            return page(start_response, "200 OK", {"pid": os.getpid(), "free": free_connections()})
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def begin(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
            started.append((status, headers))
            return None

        signal.signal(signal.SIGALRM, self._interrupt)  # gunicorn resets it when it forks a worker
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, self._longest))
            body = list(self._app(environ, begin))  # type: ignore[arg-type]
            self._is_armed = False
        except Interrupted:
            self._longest *= STEP
            return page(start_response, "500 Internal Server Error", {"interrupted": True})
        finally:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._longest = max(0.001, self._longest / STEP)
        start_response(*started[-1])
        return body

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise Interrupted


def tell(unraisable: "sys.UnraisableHookArgs") -> None:
    """Tell of an exception that Python swallows, but for an interruption of the garbage collector."""
    if unraisable.exc_type is not Interrupted:
        sys.__unraisablehook__(unraisable)


def page(start_response: StartResponse, status: str, answer: dict[str, object]) -> list[bytes]:
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def free_connections() -> int:
    """Return how many connections of the store can be in use at once."""
    gc.collect()  # an exception's traceback may be in a cycle, and a connection with it
    connections = store._server.nodes.connections(None) if isinstance(store, RedisStore) else store._connections
    with ExitStack() as leases:
        for number in range(max_connections):
            try:
                leases.enter_context(connections.acquire())
            except TimeoutError:
                return number
    return max_connections


sys.unraisablehook = tell
application = Interruptions(SessionMiddleware(site, store=store, secret=SECRET, secure=False))
