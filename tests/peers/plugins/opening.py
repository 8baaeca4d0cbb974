"""Sessions for tests that make one without a server: a real request, which pauses before its first item."""

from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults


class OpenRequest:
    """A request with a Cookie header, whose response begins when `finish()` is called."""

    def __init__(self, around: Callable[[WSGIApplication], WSGIApplication], cookie: str = "") -> None:
        self.environ: WSGIEnvironment = {"HTTP_COOKIE": cookie}
        setup_testing_defaults(self.environ)
        self._headers: list[tuple[str, str]] = []
        self._body = around(_pause)(self.environ, self._receive)

    def finish(self) -> list[str]:
        """Send the response; return the cookies that it sets, with their attributes."""
        list(self._body)
        return [value for name, value in self._headers if name.lower() == "set-cookie"]

    def _receive(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        self._headers.extend(headers)


def _pause(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b""
