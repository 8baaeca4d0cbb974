"""The exchange of one request for its response, which is held back until the session is saved (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.errors import SerializationError, SessionTooLarge, StoreUnavailable
from prism_wsgi.events import Reason
from prism_wsgi.persistence.client import clean_address, clean_user_agent
from prism_wsgi.request.headers import Headers, is_https_outside, is_public, make_private, set_cookies, vary_on_cookie
from prism_wsgi.request.phases import GONE, LOAD_FAILED, NEW, Outcome
from prism_wsgi.request.saving import commit
from prism_wsgi.request.site import Site
from prism_wsgi.request.state import SessionState
from prism_wsgi.tokens import Token

RETRY_AFTER = 5  # seconds
UNAVAILABLE = b"The service is unavailable at the moment; please try again shortly.\n"

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Exchange:
    """One call of an application, whose `start_response` is held back until its body, or its first part, is there.

    `is_contradicted`: the request brought cookies that contradict each other.
    """

    __slots__ = (
        "_environ",
        "_headers",
        "_is_contradicted",
        "_is_over",
        "_server_start_response",
        "_server_write",
        "_site",
        "_state",
        "_status",
        "is_sent",
    )

    def __init__(
        self,
        site: Site,
        state: SessionState,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        *,
        is_contradicted: bool = False,
    ) -> None:
        self._site = site
        self._state = state
        self._environ = environ
        self._server_start_response = start_response
        self._is_contradicted = is_contradicted
        self._status: str | None = None
        self._is_over = False
        self.is_sent = False

    def run(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application and return the body for the server."""
        body: Iterable[bytes] | None = None
        try:
            body = app(self._environ, self._start_response)
            if self._status is None or not _runs_no_code(body, self._environ):
                # The application still runs while the body is made; its changes up to the first item are saved in
                # time.
                return _Body(self, body)
            written = self.is_sent
            self.send()
        except BaseException as error:
            if body is not None:
                with suppress(Exception):  # the server must see the first error
                    _close(body)
            return self.recover(error)
        if written:
            # The session may have changed again since write(), and only close() saves that.
            return _Body(self, body)
        self._state.detach()
        return body

    def send(self) -> None:
        """Save the session and start the server's response, if the application has started its own."""
        if self.is_sent or self._status is None:
            return
        headers = self._settle(self._status, self._headers)
        self._server_write = self._server_start_response(self._status, headers)
        self.is_sent = True
        self._state.send_headers()

    def recover(self, error: BaseException) -> Iterable[bytes]:
        """Answer 503 if the store failed before the headers were sent; raise any other error again."""
        if isinstance(error, StoreUnavailable) and self._site.answers_503 and not self.is_sent:
            self.is_sent = True
            self._end_session()
            return service_unavailable(self._environ, self._server_start_response)
        if self._site.save_on_error and not self._is_over:
            with suppress(SerializationError, SessionTooLarge):  # the server must see the application's error
                self._save_late()
        self._end_session()
        try:
            raise error
        finally:
            del error  # this frame is in its traceback: a cycle, which would keep what the frames hold from going

    def close(self, body: Iterable[bytes]) -> None:
        """Close the application's body, then save what changed since the headers were sent."""
        try:
            _close(body)
        finally:
            if not self._is_over:
                self._save_late()
            self._state.detach()

    def _settle(self, status: str, headers: Headers) -> Headers:
        """Save the session; return the headers to send with it. StoreUnavailable keeps them from being sent."""
        state = self._state
        if state.accessed:
            self._save(status)
            # Only here: a session that held its environ would be a reference cycle, which takes a garbage collection.
            self._environ[self._site.id_key] = state.identity.id
            headers = vary_on_cookie(headers)
        cookies = self._cookies_due()
        if not cookies:
            return headers
        if is_public(headers):
            if not state.accessed:
                return headers  # the same for everybody: a cookie would keep shared caches from storing it
            self._site.events.emit(Reason.PUBLIC_CACHE_OVERRIDDEN, state.identity.id)
        if state.outcome is not Outcome.DESTROYED:
            state.note_cookie()
            if self._environ.get("wsgi.url_scheme") == "http":
                self._warn_of_plain_http()
        return make_private(set_cookies(headers, self._site.cookies.name, cookies))

    def _cookies_due(self) -> list[str]:
        """Return the `Set-Cookie` values of the response: ours, if one is due, and what deletes its earlier forms."""
        state, cookies = self._state, self._site.cookies
        outcome = state.outcome
        if state.phase is GONE or outcome in _WITHOUT_COOKIE:
            return []
        if outcome is Outcome.DESTROYED:
            if not cookies.is_sent_by(self._environ):
                return []
            return [cookies.deletion, *cookies.deletions(is_logout=True, replaces_all=self._is_contradicted)]
        token = state.token_due()
        if token is not None:
            ours = cookies.header_value(token, state.expires_at)
        elif (token := state.identity.token) is not None:
            if not token.outdated_key:
                return []
            ours = cookies.header_value(token, cookies.lapses_at(token))
        elif state.phase is NEW and (state.identity.moved_from is not None or self._may_offer()):
            ours = cookies.header_value(Token(state.identity.secret, 0), state.expires_at)
        else:
            return []
        return [ours, *cookies.deletions(is_logout=state.is_logout, replaces_all=self._is_contradicted)]

    def _may_offer(self) -> bool:
        return self._site.offers_cookie and not self._is_contradicted and self._site.cookies.may_offer(self._environ)

    def _warn_of_plain_http(self) -> None:
        cookies = self._site.cookies
        if cookies.cookie.secure and not is_https_outside(self._environ):
            self._site.events.warn_once(
                f"The cookie {cookies.name} is Secure and was sent over plain HTTP, so browsers drop it and each "
                "request begins a new session. Serve the site over HTTPS; behind a proxy, have it send "
                "X-Forwarded-Proto; for a test without TLS, set secure=False"
            )

    def _save(self, status: str) -> None:
        state = self._state
        is_error = status >= "5"
        self._is_over = True  # until the session is saved
        has_failed = state.outcome is LOAD_FAILED
        if state.outcome is Outcome.DESTROY_FAILED or (has_failed and is_error):
            # A framework may have made an error page of our exception, or a success of a failed logout.
            raise StoreUnavailable("The session store failed during the request")
        if is_error and not self._site.save_on_error:
            state.roll_back()
        if not has_failed:
            if self._site.record_client:
                note_client(self._site, state, self._environ)  # again: an inner middleware may have set REMOTE_ADDR
            commit(state)
            self._is_over = False

    def _save_late(self) -> None:
        """Save when no cookie can be set any more."""
        self._end_session()
        state = self._state
        if not state.identity.is_sent or state.identity.moved_from is not None:
            state.roll_back()  # no browser will get the cookie of the new id
        try:
            commit(state)
        except StoreUnavailable:
            if not self._site.answers_503:
                raise  # with "503", the error is only logged, because the response has been sent

    def _end_session(self) -> None:
        self._is_over = True
        self._state.send_headers()

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


# If the session is unknown, or its changes are not kept, the browser's cookies stay as they are.
_WITHOUT_COOKIE = (LOAD_FAILED, Outcome.DESTROY_FAILED, Outcome.WITHHELD)


def note_client(site: Site, state: SessionState, environ: WSGIEnvironment) -> None:
    """Note the address and the user agent that make the request."""
    address = environ.get("REMOTE_ADDR", "") if site.client_address is None else site.client_address(environ)
    state.note_device(clean_address(address or ""), clean_user_agent(environ.get("HTTP_USER_AGENT", "")))


class _Body:
    """The application's body, item by item: nothing is read ahead, joined or kept."""

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


def service_unavailable(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer 503: the session store failed."""
    headers = [
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("Content-Length", str(len(UNAVAILABLE))),
        ("Retry-After", str(RETRY_AFTER)),
        ("Cache-Control", "no-store"),
    ]
    start_response("503 Service Unavailable", headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [UNAVAILABLE]
