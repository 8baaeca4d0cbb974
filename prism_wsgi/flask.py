"""Flask: `PrismSessions(app)`, and `flask.session` is a Session."""

if __name__ == "flask":
    raise ImportError("This is prism_wsgi's own directory, and it must not be on sys.path: start Python elsewhere")

from collections.abc import Iterable
from typing import Unpack, cast
from wsgiref.types import StartResponse, WSGIEnvironment

import flask
from flask.sessions import SessionInterface, SessionMixin

from prism_wsgi.cookies import SameSite
from prism_wsgi.errors import ConfigError
from prism_wsgi.http import get_session
from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.session import Session
from prism_wsgi.setting_types import MiddlewareOptions, SessionOptions, around
from prism_wsgi.settings import Secret

EXTENSION = "prism_wsgi"
_PAUSED_KEY = "prism.flask.paused"


class FlaskSession(Session):
    """A Session that also has the attributes which Flask's documentation gives to `flask.session`."""

    __slots__ = ()

    @property
    def new(self) -> bool:
        """Whether nothing was stored for this visitor; Flask's name for `is_new`."""
        return self.is_new

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session; Flask's name for `persistent`."""
        return self.persistent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.persistent = bool(value)

    @property
    def modified(self) -> bool:
        """Whether there are changes, nested ones included, that have not been saved.

        Setting it is never needed: True says that something changed, False forgets what was changed.
        """
        return super().modified

    @modified.setter
    def modified(self, value: bool) -> None:
        if value:
            self.changed()
        else:
            self._state.roll_back()

    @property
    def accessed(self) -> bool:
        """Whether the application has looked at the session. Flask sets it when `flask.session` is used."""
        return self._state.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._state.accessed = bool(value)

    def clear(self) -> None:
        """End the session: delete it, as `destroy()` does.

        Flask's documentation clears the session to log out, and before a login: what is written afterwards
        begins a new session under a new id, and the old one opens nothing.
        """
        self.destroy()


SessionMixin.register(FlaskSession)

session = cast(FlaskSession, flask.session)
"""`flask.session` itself, typed as what it is with PrismSessions."""


class PrismSessions(SessionInterface):
    """Makes `flask.session` a Session: `PrismSessions(app)`, or `init_app(app)` later.

    The cookie follows `SESSION_COOKIE_NAME`, `_DOMAIN`, `_PATH`, `_SECURE`, `_HTTPONLY`, `_SAMESITE` (lax unless
    set) and `_PARTITIONED`. The idle lifetime is `PERMANENT_SESSION_LIFETIME`. Unless `secret` is given,
    `SECRET_KEY` signs the cookie, and those in `SECRET_KEY_FALLBACKS` are accepted too. All of them are read
    once, in `init_app()`. Other settings of SessionMiddleware are passed by name.

    Raises ConfigError for a setting that is missing or breaks its rule.
    """

    def __init__(self, app: flask.Flask | None = None, **options: Unpack[SessionOptions]) -> None:
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Put sessions around an application, by its configuration."""
        middleware = SessionMiddleware(app.wsgi_app, **self._settings_of(app))
        app.extensions[EXTENSION] = middleware
        app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's own way to add a middleware
        app.session_interface = self

    def open_session(self, app: flask.Flask, request: flask.Request) -> SessionMixin:
        """Return the session that the middleware has put into the request."""
        middleware: SessionMiddleware = app.extensions[EXTENSION]
        if middleware.site.environ_key not in request.environ:
            _open_outside_a_response(middleware, request.environ)
        opened = get_session(request, environ_key=middleware.site.environ_key)
        # Over the same state, so that the middleware saves what is written by Flask's names.
        return cast(SessionMixin, FlaskSession(opened._state))

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        """End a session that the request has emptied, as Flask does; the middleware saves all others."""
        opened = cast(FlaskSession, session)
        is_emptied = opened.modified and not opened and not opened.permanent and opened.user is None
        if is_emptied and response.status_code < 500:
            opened.destroy()
        paused = flask.request.environ.pop(_PAUSED_KEY, None)
        if paused is not None:
            response.headers.extend(paused())

    def _settings_of(self, app: flask.Flask) -> MiddlewareOptions:
        if not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            raise ConfigError(
                "SESSION_REFRESH_EACH_REQUEST must not be False: every use extends a session. For sessions that end "
                "at a fixed time, pass max_lifetime to PrismSessions"
            )
        if app.config["SECRET_KEY"] is None and "secret" not in self._options:
            raise ConfigError("SECRET_KEY must be set before PrismSessions(app); make one with `prism-wsgi secret`")
        settings: MiddlewareOptions = {
            "secret": _secrets_of(app),
            "ttl": app.permanent_session_lifetime,
            "persistent": False,
            "cookie_name": self.get_cookie_name(app),
            "path": self.get_cookie_path(app),
            "domain": self.get_cookie_domain(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app) or SameSite.LAX,
            "partitioned": self.get_cookie_partitioned(app),
        }
        return {**settings, **self._options}


def _secrets_of(app: flask.Flask) -> list[Secret]:
    return [app.config["SECRET_KEY"], *(app.config["SECRET_KEY_FALLBACKS"] or ())]


def _open_outside_a_response(middleware: SessionMiddleware, environ: WSGIEnvironment) -> None:
    """Open a session for a request that no server sent: `test_request_context()`, `session_transaction()`.

    It goes through the middleware all the same, around an application that pauses before its first item until
    `save_session()` asks for the headers.
    """
    headers: list[tuple[str, str]] = []

    def pause(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b""

    def receive(status: str, sent: list[tuple[str, str]], exc_info: object = None, /) -> None:
        headers.extend(sent)

    body = around(pause, middleware)(environ, cast("StartResponse", receive))

    def resume() -> list[tuple[str, str]]:
        list(body)
        return headers

    environ[_PAUSED_KEY] = resume
