"""Visitor: sends one scenario's requests to an application, in process, and says how long each took."""

from collections.abc import Callable, Iterable
from io import BytesIO
from time import perf_counter_ns
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from benchmarks.subjects.scenarios import SMALL, Scenario, Sent

ENVIRON: WSGIEnvironment = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "localhost",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": BytesIO(),
    "wsgi.errors": BytesIO(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


class Visitor:
    """One browser. Made with a stored session and its cookie, if the scenario starts with one."""

    def __init__(
        self,
        application: WSGIApplication,
        scenario: Scenario,
        before: Callable[[], None] | None = None,
        *,
        sessions: bool = True,
    ) -> None:
        self._application = application
        self._scenario = scenario
        self._before = before
        self._follows = scenario.sent is Sent.LATEST
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.cookie = ""
        if sessions and scenario.sent is not Sent.NONE:
            self.request("/fill" if scenario.content is SMALL else "/fill_large", "")
            self.cookie = self.received_cookie()
            if scenario.sent is Sent.FORGED:
                self.cookie = forged(self.cookie)

    def send(self) -> int:
        """Send one request; return its nanoseconds."""
        if self._before is not None:
            self._before()
        environ = _environ(self._scenario.path, self.cookie)
        application, start_response = self._application, self._start_response
        began = perf_counter_ns()
        body = application(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
        took = perf_counter_ns() - began
        if self._follows:
            self.cookie = self.received_cookie() or self.cookie
        return took

    def request(self, path: str, cookie: str) -> bytes:
        """Send a request that is not timed; return the body."""
        body: Iterable[bytes] = self._application(_environ(path, cookie), self._start_response)
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        self.check()
        return content

    def received_cookie(self) -> str:
        """Return `name=value` of the last response's cookie, "" for none."""
        values = [value for name, value in self.headers if name.lower() == "set-cookie"]
        return values[-1].partition(";")[0] if values else ""

    def check(self) -> None:
        """Raise RuntimeError when the last request failed: what fails is often fast."""
        if self.status != "200 OK":
            raise RuntimeError(f"{self._scenario.name} was answered {self.status}")

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if exc_info:
            raise exc_info[1]
        self.status, self.headers = status, headers
        return _write


def forged(cookie: str) -> str:
    """Return a cookie as long and as well-formed with one character changed: in the signature, where it has one."""
    other = "c" if cookie[-20] in "bB" else "b"  # MariaDB may take b for B
    return cookie[:-20] + other + cookie[-19:]


def _environ(path: str, cookie: str) -> WSGIEnvironment:
    environ = ENVIRON.copy()
    environ["PATH_INFO"] = path
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    return environ


def _write(data: bytes) -> None:
    raise NotImplementedError(f"no subject here calls write(), yet it got {data!r}")
