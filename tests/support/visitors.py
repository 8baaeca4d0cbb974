"""Visitors of a WSGI application: a browser that keeps cookies, with as many requests under way as a test wants."""

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from prism_wsgi import Session
from tests.support.waiting import PATIENCE

FORK = multiprocessing.get_context("fork")

Action = Callable[[Any], object]
"""What the application does with the session in one request; what it returns is the answer."""


def application_of(environ_key: str) -> WSGIApplication:
    """Return an application that does what the visitor brought along with the session under that key."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        visit: Visit = environ["test.visit"]
        visit.answer = visit.action(environ[environ_key])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    return application


application = application_of("prism.session")


@dataclass
class Visit:
    """One request and its answer."""

    action: Action
    answer: Any = None
    status: str = ""
    set_cookies: list[str] = field(default_factory=list)
    body: bytes = b""


class Browser:
    """Keeps a site's cookies. Each request sends what is there when it begins and takes what its answer sets."""

    def __init__(self, site: WSGIApplication) -> None:
        self._site = validator(site)
        self._lock = threading.Lock()
        self.cookies: dict[str, str] = {}

    def visit(self, action: Action) -> Visit:
        """Make one request, during which the application does `action`."""
        visit = Visit(action)
        environ: WSGIEnvironment = {"QUERY_STRING": "", "test.visit": visit}
        setup_testing_defaults(environ)
        with self._lock:
            if self.cookies:
                environ["HTTP_COOKIE"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            visit.status = status
            visit.set_cookies = [value for name, value in headers if name.lower() == "set-cookie"]
            return lambda data: None

        body = self._site(environ, start_response)
        try:
            visit.body = b"".join(body)
        finally:
            getattr(body, "close", lambda: None)()
        self._take(visit.set_cookies)
        return visit

    def do(self, action: Action) -> Any:
        """Make one request that has to succeed, and return what `action` did."""
        visit = self.visit(action)
        assert visit.status == "200 OK", visit
        return visit.answer

    def page(self) -> str:
        """Make one request to an application that needs no action, and return its page."""
        return self.visit(lambda session: None).body.decode()

    def read(self) -> dict[str, Any]:
        """Return the session as the next request finds it."""
        values: dict[str, Any] = self.do(lambda session: dict(session))
        return values

    def at_once(self, actions: Sequence[Action]) -> list[Visit]:
        """Make one request for each action, all under way at the same time with the same cookie."""
        begun = threading.Barrier(len(actions))

        def together(action: Action) -> Action:
            def act(session: Session) -> object:
                begun.wait(PATIENCE)
                return action(session)

            return act

        return run_at_once([partial(self.visit, together(action)) for action in actions])

    def _take(self, set_cookies: list[str]) -> None:
        with self._lock:
            for header in set_cookies:
                pair, *attributes = header.split("; ")
                name, _, value = pair.partition("=")
                if "Max-Age=0" in attributes:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value


def run_at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make each call in a thread of its own; raise what the first failing one raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def run_in_processes(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make each call in a forked process of its own; return what they return, which has to be small."""
    returned = FORK.SimpleQueue()
    processes = [
        FORK.Process(target=lambda number, call: returned.put((number, call())), args=(number, call))
        for number, call in enumerate(calls)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * len(calls), "what a process raised is above"
    answers = dict(returned.get() for _ in calls)
    return [answers[number] for number in range(len(calls))]


def put(key: str, value: object) -> Action:
    """Return an action that stores a value."""

    def action(session: Session) -> None:
        session[key] = value

    return action


def count(session: Session) -> int:
    """Add one to `session["n"]`, exactly."""
    with session.atomic():
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])
