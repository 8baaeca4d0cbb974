"""Exchange: one request's answer, held back until the session is saved (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import GeneratorType, TracebackType
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.headers import Headers
from prism_wsgi.http import service_unavailable

RETRY_AFTER = 5  # seconds

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Answering(Protocol):
    """What happens to the session at each turn of an exchange."""

    def before_headers(self, status: int, headers: Headers) -> Headers:
        """Save the session; return the headers to send. StoreUnavailable keeps them from being sent."""
        ...

    def headers_sent(self, *, will_close: bool) -> None:
        """Learn that the headers are out, and whether `at_close` will be called."""
        ...

    def is_untouched(self) -> bool:
        """Tell whether the application has not looked at the session."""
        ...

    def at_failure(self) -> None:
        """Learn that the application raised, and what it raised goes on to the server."""
        ...

    def at_refusal(self) -> None:
        """Learn that the request is answered 503 instead."""
        ...

    def at_close(self) -> None:
        """Save what changed while the body was sent."""
        ...


class Exchange:
    """Runs an application with `start_response` held back until its body, or the first part of it, is there."""

    __slots__ = (
        "_answers_503",
        "_environ",
        "_headers",
        "_server_start_response",
        "_server_write",
        "_session",
        "_status",
        "is_sent",
    )

    def __init__(
        self,
        session: Answering,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        *,
        answers_503: bool,
    ) -> None:
        self._session = session
        self._environ = environ
        self._server_start_response = start_response
        self._server_write: Callable[[bytes], object] | None = None
        self._answers_503 = answers_503
        self._status: str | None = None
        self._headers: Headers = []
        self.is_sent = False

    def run(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application and return the body for the server."""
        body: Iterable[bytes] | None = None
        try:
            body = app(self._environ, self._start_response)
            if self._status is None or isinstance(body, GeneratorType):
                # The application has yet to run, or to run on: what it does up to its first item counts.
                return _Body(self, body)
            written = self.is_sent
            self.send()
        except BaseException as error:
            if body is not None:
                with suppress(Exception):  # what came first is what the server is to hear of
                    _close(body)
            return self.recover(error)
        # After write() the session may have changed once more, and only close() saves that.
        if not written and (self._session.is_untouched() or _runs_no_code(body, self._environ)):
            self._session.headers_sent(will_close=False)
            return body
        return _Body(self, body)

    def send(self) -> None:
        """Save the session and start the server's response, if the application has started its own."""
        if self.is_sent or self._status is None:
            return
        headers = self._session.before_headers(int(self._status[:3]), self._headers)
        self._server_write = self._server_start_response(self._status, headers)
        self.is_sent = True
        self._session.headers_sent(will_close=True)

    def recover(self, error: BaseException) -> Iterable[bytes]:
        """Answer 503 for a store that failed in time for that; raise anything else on."""
        if isinstance(error, StoreUnavailable) and self._answers_503 and not self.is_sent:
            self.is_sent = True
            self._session.at_refusal()
            return service_unavailable(self._environ, self._server_start_response, retry_after=RETRY_AFTER)
        self._session.at_failure()
        raise error

    def close(self, body: Iterable[bytes]) -> None:
        """Close the application's body, then save what changed since the headers were sent."""
        try:
            _close(body)
        finally:
            self._session.at_close()

    def _start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if self.is_sent and exc_info:
            # The server decides: it raises if bytes have gone out, and takes the new headers otherwise.
            try:
                changed = self._session.before_headers(int(status[:3]), headers)
                return self._server_start_response(status, changed, exc_info)
            finally:
                exc_info = None
        if self._status is not None and not exc_info:
            raise AssertionError("start_response() was called a second time without exc_info (PEP 3333)")
        self._status, self._headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        self.send()
        assert self._server_write is not None
        self._server_write(data)


class _Body:
    """The application's body, one item for one item: nothing is pulled ahead, joined or kept."""

    __slots__ = ("_body", "_exchange", "_is_closed", "_iterator", "_substitute")

    def __init__(self, exchange: Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._substitute: Iterator[bytes] | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._substitute is not None:
            return next(self._substitute)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            item = next(self._iterator, None)
            if not self._exchange.is_sent:
                self._exchange.send()
        except BaseException as error:
            self._substitute = iter(self._exchange.recover(error))
            return next(self._substitute)
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """Close the application's body, once, and save what is left to save."""
        if not self._is_closed:
            self._is_closed = True
            self._exchange.close(self._body)


def _runs_no_code(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Tell whether the server may have the body itself: no code of the application runs while it is sent."""
    if type(body) is list or type(body) is tuple:
        return True
    file_wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(file_wrapper, type) and isinstance(body, file_wrapper)


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
