"""A site behind the middleware, browsers that visit it, and a store that is being watched."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

from prism_wsgi import MemoryStore, Session, SessionMiddleware, StoredSession
from prism_wsgi.stores.base import SessionStore
from tests.support.cookie_jar import CookieJar, split
from tests.support.keys import SECRET

Handler = Callable[[Session], object]
Headers = Iterable[tuple[str, str]]


class Clock:
    """The time, in Unix seconds, until a test moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class StoreDownError(Exception):
    """What the driver of a broken store raises."""


class ThreeVerbStore:
    """Another store's load, save and destroy, written down in `calls`; those named in `failing` raise."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.error: Exception = StoreDownError("the disk is on fire")

    def load(self, session_id: str) -> StoredSession | None:
        loaded: StoredSession | None = self._call("load", session_id)
        return loaded

    def save(self, session: StoredSession) -> None:
        self._call("save", session)

    def destroy(self, session_id: str) -> None:
        self._call("destroy", session_id)

    def _call(self, verb: str, *arguments: object) -> Any:
        self.calls.append(verb)
        if verb in self.failing:
            raise self.error
        return getattr(self.store, verb)(*arguments)


class WatchedStore(ThreeVerbStore):
    """The same with the optional verbs that a request may use."""

    def touch(self, session: StoredSession) -> bool:
        return bool(self._call("touch", session))

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        self._call("replace", old, new)


@dataclass
class Page:
    """What a visit brought: the response, and what the handler returned."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    result: Any = None

    def all(self, name: str) -> list[str]:
        """Return the values of every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def cookies(self) -> dict[str, str]:
        """The values of the cookies set, by name."""
        pairs = [split(line)[0].partition("=") for line in self.all("Set-Cookie")]
        return {name: value for name, _, value in pairs}

    def attributes(self, name: str = "prism_session") -> dict[str, str]:
        """Return the attributes with which a cookie is set, names in lower case."""
        return next(split(line)[1] for line in self.all("Set-Cookie") if line.startswith(f"{name}="))


class Site:
    """An application behind SessionMiddleware, with the WSGI validator on both sides.

    The inner validator hides what kind of body the application returned; `plain` leaves it out.
    """

    def __init__(
        self, store: SessionStore | None = None, clock: Clock | None = None, *, plain: bool = False, **settings: Any
    ) -> None:
        self.clock = clock or Clock()
        self.store = WatchedStore(MemoryStore(clock=self.clock, ttl=10**8)) if store is None else store
        settings = {"secret": SECRET, **settings}
        inner = self._dispatch if plain else validator(self._dispatch)
        self.middleware = SessionMiddleware(inner, store=self.store, clock=self.clock, **settings)
        self.serving: WSGIApplication = plain_page
        self.path_info = "/"

    @property
    def calls(self) -> list[str]:
        """The verbs that the store was called with."""
        assert isinstance(self.store, ThreeVerbStore)
        return self.store.calls

    def browser(self, **options: Any) -> "Browser":
        return Browser(self, **options)

    def request(self, app: WSGIApplication, **environ: Any) -> Page:
        """Serve one request with `app` and return the whole answer."""
        self.serving = app
        return call(validator(self.middleware), **environ)

    def _dispatch(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.serving(environ, start_response)


@dataclass
class Browser:
    """Visits a site and keeps its cookies."""

    site: Site
    host: str = "shop.example"
    secure: bool = True
    jar: CookieJar = field(init=False)

    def __post_init__(self) -> None:
        self.jar = CookieJar(self.host, self.secure)

    @property
    def cookie_header(self) -> str:
        return self.jar.header(self.site.clock())

    @property
    def token(self) -> str:
        """The value of the session cookie."""
        name = self.site.middleware.site.cookies.cookie.name
        return next(cookie.value for cookie in self.jar.cookies.values() if cookie.name == name)

    def visit(
        self,
        handler: Handler = lambda session: None,
        *,
        status: str = "200 OK",
        headers: Headers = (),
        path: str = "/",
        **environ: Any,
    ) -> Page:
        """Request a page whose application hands its session to `handler`."""
        results: list[object] = []

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            results.append(handler(environ[self.site.middleware.site.environ_key]))
            start_response(status, [("Content-Type", "text/plain"), *headers])
            return [b"hello"]

        page = self.request(app, path=path, **environ)
        page.result = results[0] if results else None
        return page

    def request(self, app: WSGIApplication, *, path: str = "/", **environ: Any) -> Page:
        """Request a page from an application of the test's own."""
        cookie_header = self.jar.header(self.site.clock(), path)
        if cookie_header:
            environ.setdefault("HTTP_COOKIE", cookie_header)
        page = self.site.request(app, PATH_INFO=path, **environ)
        for line in page.all("Set-Cookie"):
            self.jar.receive(line, self.site.clock(), path)
        return page


def new_environ(**values: Any) -> WSGIEnvironment:
    """Return the environ of a GET over HTTPS, changed by `values`."""
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.file_wrapper": FileWrapper,
        "QUERY_STRING": "",
    }
    setup_testing_defaults(environ)
    environ |= values
    return environ


class Response:
    """The server's side of one request, one step at a time."""

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self.bytes_sent = False
        self.body = app(environ, self._start_response)

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        try:
            if exc_info and self.bytes_sent:
                raise exc_info[1].with_traceback(exc_info[2])
            assert self.status is None or exc_info, "started twice"
        finally:
            exc_info = None
        self.status, self.headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self.bytes_sent = True
        self.written.append(data)

    def send(self) -> bytes:
        """Iterate over the body, then close it, as PEP 3333 asks of a server; return all of it."""
        try:
            for item in self.body:
                assert self.status is not None, "an item came before start_response()"
                if item:
                    self._write(item)
        finally:
            self.close()
        return b"".join(self.written)

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


def call(app: WSGIApplication, **environ: Any) -> Page:
    """Serve one request and return the whole answer."""
    response = Response(app, new_environ(**environ))
    body = response.send()
    assert response.status is not None
    return Page(int(response.status[:3]), response.headers, body)


def plain_page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer without a look at the session."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def write(**values: Any) -> Handler:
    """Return a handler that writes these keys."""

    def handler(session: Session) -> None:
        session.update(values)

    return handler


def read(key: str) -> Handler:
    """Return a handler that reads one key, None where there is none."""
    return lambda session: session.get(key)
