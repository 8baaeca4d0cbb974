"""Exchange: one request's answer, held back until the session is saved (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import GeneratorType, TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.events import EventLog, Reason
from prism_wsgi.http import service_unavailable
from prism_wsgi.request.cookie_policy import SessionCookie
from prism_wsgi.request.headers import Headers, is_public, make_private, set_cookie, vary_on_cookie
from prism_wsgi.request.saving import commit
from prism_wsgi.request.state import DETACHED, STREAMING, SessionState

RETRY_AFTER = 5  # seconds

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings say of every exchange."""

    cookie: SessionCookie
    events: EventLog
    id_key: str
    answers_503: bool
    save_on_error: bool


class Exchange:
    """Runs an application with `start_response` held back until its body, or the first part of it, is there."""

    __slots__ = (
        "_environ",
        "_headers",
        "_is_over",
        "_offers_cookie",
        "_server_start_response",
        "_server_write",
        "_state",
        "_status",
        "_terms",
        "is_sent",
    )

    def __init__(
        self,
        terms: Terms,
        state: SessionState,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        offers_cookie: bool,
    ) -> None:
        self._terms = terms
        self._state = state
        self._environ = environ
        self._server_start_response = start_response
        self._offers_cookie = offers_cookie
        self._status: str | None = None
        self._is_over = False
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
        if not written and (not self._state.accessed or _runs_no_code(body, self._environ)):
            self._state.stage = DETACHED
            return body
        return _Body(self, body)

    def send(self) -> None:
        """Save the session and start the server's response, if the application has started its own."""
        if self.is_sent or self._status is None:
            return
        headers = self._settle(self._status, self._headers)
        self._server_write = self._server_start_response(self._status, headers)
        self.is_sent = True
        self._state.stage = STREAMING

    def recover(self, error: BaseException) -> Iterable[bytes]:
        """Answer 503 for a store that failed in time for that; raise anything else on."""
        if isinstance(error, StoreUnavailable) and self._terms.answers_503 and not self.is_sent:
            self.is_sent = True
            self._end_session()
            return service_unavailable(self._environ, self._server_start_response, retry_after=RETRY_AFTER)
        if self._terms.save_on_error and not self._is_over:
            self._save_late()
        self._end_session()
        raise error

    def close(self, body: Iterable[bytes]) -> None:
        """Close the application's body, then save what changed since the headers were sent."""
        try:
            _close(body)
        finally:
            if not self._is_over:
                self._save_late()

    def _settle(self, status: str, headers: Headers) -> Headers:
        """Save the session; return the headers to send with it. StoreUnavailable keeps them from being sent."""
        state = self._state
        if state.accessed:
            self._save(status)
            # Not before: a session that knew the environ it stands in would be garbage that takes a collection.
            self._environ[self._terms.id_key] = state.id
            headers = vary_on_cookie(headers)
        cookie = self._terms.cookie.due(state, self._environ, offered=self._offers_cookie)
        if cookie is None:
            return headers
        if is_public(headers):
            if not state.accessed:
                return headers  # the same for everybody: a cookie would keep shared caches from it
            self._terms.events.emit(Reason.PUBLIC_CACHE_OVERRIDDEN, state.id)
        state.reachable = not state.destroyed  # the cookie may be the one that deletes it
        return make_private(set_cookie(headers, self._terms.cookie.name, cookie))

    def _save(self, status: str) -> None:
        state = self._state
        is_error = status >= "5"
        self._is_over = True  # unless the session can be saved
        if state.destroy_failed or (state.failed and is_error):
            # A framework may have made its own error page of our exception, or a logout look like a success.
            raise StoreUnavailable("The session store failed during the request")
        if is_error and not self._terms.save_on_error:
            state.roll_back()
        if not state.failed:
            commit(state)
            self._is_over = False

    def _save_late(self) -> None:
        """Save when no cookie can be set any more."""
        self._end_session()
        state = self._state
        if not state.reachable or state.retired is not None:
            state.roll_back()  # its new id would open for nobody
        try:
            commit(state)
        except StoreUnavailable:
            if not self._terms.answers_503:
                raise  # otherwise it is in the log, and the response is out

    def _end_session(self) -> None:
        self._is_over = True
        self._state.stage = STREAMING

    def _start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if self.is_sent and exc_info:
            # The server decides: it raises if bytes have gone out, and takes the new headers otherwise.
            try:
                return self._server_start_response(status, self._settle(status, headers), exc_info)
            finally:
                exc_info = None
        if self._status is not None and not exc_info:
            raise AssertionError("start_response() was called a second time without exc_info (PEP 3333)")
        self._status, self._headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        self.send()
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
