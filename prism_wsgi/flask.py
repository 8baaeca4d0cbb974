"""Flask's session interface: `PrismSessions(app)` makes `flask.session` a Session."""

if __name__ == "flask":
    raise ImportError(
        "prism_wsgi's own directory is on sys.path, and hides the package flask: start Python in another directory"
    )

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Unpack, cast
from wsgiref.types import StartResponse, WSGIEnvironment

import flask
from flask.sessions import SessionInterface, SessionMixin

from prism_wsgi.cookie_fallbacks import Secret
from prism_wsgi.cookies import MAX_AGE_LIMIT, SameSite
from prism_wsgi.errors import ConfigError
from prism_wsgi.http import get_session
from prism_wsgi.middleware import SessionMiddleware, serve
from prism_wsgi.persistence.login import Login, named_user
from prism_wsgi.request.phases import STORED, UNREAD
from prism_wsgi.request.site import CSRF_KEY, Site
from prism_wsgi.request.state import SessionState
from prism_wsgi.session import Session
from prism_wsgi.setting_types import MiddlewareOptions, SessionOptions
from prism_wsgi.settings import choice

EXTENSION = "prism_wsgi"
_PAUSED_KEY = "prism.flask.paused"
_UNSAVED_KEY = "prism.flask.unsaved"

# Flask-Login's names
_USER, _FRESH, _REMEMBER, _REMEMBER_SECONDS = "_user_id", "_fresh", "_remember", "_remember_seconds"

_ONLY_BY_LOGIN = "_persistent_only_by_login"
"""The key in a session that is persistent because its user asked to be remembered, not because of the application."""


class Remember(StrEnum):
    """The effect of `login_user(remember=True)`."""

    SESSION = "session"
    """The session lives longer, and the store can end it."""
    FLASK_LOGIN = "flask-login"
    """Flask-Login sets its remember cookie, which only a new SECRET_KEY can end."""


class FlaskSession(Session):
    """A Session that also has the attributes which Flask's documentation gives to `flask.session`."""

    __slots__ = ("_grows_stale",)

    def __init__(self, state: SessionState | None = None, *, grows_stale: bool = False) -> None:
        super().__init__(state)
        self._grows_stale = grows_stale

    @property
    def new(self) -> bool:
        """Whether nothing was stored for this visitor; Flask's name for `is_new`."""
        return self.is_new

    @property
    def permanent(self) -> bool:
        """Whether the application wants the cookie to outlive the browser's session; Flask's name for `persistent`.

        False if only `login_user(remember=True)` makes it persistent: Flask-Login's "strong" protection logs out a
        session that is not permanent, and lets one that is go on.
        """
        return self.persistent and _ONLY_BY_LOGIN not in self

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.pop(_ONLY_BY_LOGIN, None)
        self.persistent = bool(value)

    @property
    def modified(self) -> bool:
        """Whether there are changes, nested ones included, that have not been saved.

        You never need to set it. True marks the session as changed. False keeps the changes so far from being saved,
        unless more is written afterwards.
        """
        return super().modified

    @modified.setter
    def modified(self, value: bool) -> None:
        if value:
            self.changed()
        else:
            self._state.forget_changes()

    @property
    def accessed(self) -> bool:
        """Whether the application has looked at the session. Flask sets it when `flask.session` is used."""
        return self._state.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._state.accessed = bool(value)

    def clear(self) -> None:
        """End the session: delete it, as `destroy()` does.

        Flask's documentation clears the session to log out, and before a login. A later write begins a new session
        under a new id, and the old id opens nothing.
        """
        self.destroy()

    def _read(self) -> dict[str, Any]:
        values = super()._read()
        if self._grows_stale:
            self._grows_stale = False
            _note_long_absence(self._state)
        return values


SessionMixin.register(FlaskSession)

session = cast(FlaskSession, flask.session)
"""`flask.session` itself, with the type that it has under PrismSessions."""


class PrismSessions(SessionInterface):
    """The session interface that makes `flask.session` a Session: `PrismSessions(app)`, or `init_app(app)` later.

    The cookie follows `SESSION_COOKIE_NAME`, `_DOMAIN`, `_PATH`, `_SECURE`, `_HTTPONLY`, `_SAMESITE` (lax unless
    set) and `_PARTITIONED`. The idle lifetime is `PERMANENT_SESSION_LIFETIME`. Unless `secret` is given,
    `SECRET_KEY` signs the cookie, and the keys in `SECRET_KEY_FALLBACKS` are accepted too. `init_app()` reads all of
    them once. Other settings of SessionMiddleware are passed by name.

    If the application uses Flask-Login, its logins are logins of the session (`user_id_key="_user_id"`).
    `remember` says what `login_user(remember=True)` does. With "session", the session lives for
    `REMEMBER_COOKIE_DURATION` after its last use and outlives the browser's; unused for longer than
    `PERMANENT_SESSION_LIFETIME`, it is not fresh any more. No remember cookie is set, and an old one is ignored and
    deleted. Until `remember_until`, a date or an aware datetime, an old one logs its user in once more. With
    "flask-login", Flask-Login sets its cookie, which survives `destroy_all()` and `logout_elsewhere()`.

    Raises ConfigError for a setting that is missing or breaks its rule.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        remember: Remember | str = Remember.SESSION,
        remember_until: date | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._options = options
        self._remember = choice("remember", remember, Remember)
        self._remember_until = _checked_moment(remember_until)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Put sessions around an application, as its configuration says."""
        middleware = _FlaskMiddleware(app, self, self._settings_of(app))
        app.extensions[EXTENSION] = middleware
        app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's own way to add a middleware
        app.session_interface = self

    def open_session(self, app: flask.Flask, request: flask.Request) -> SessionMixin:
        """Return the session that the middleware has put into the request."""
        middleware: _FlaskMiddleware = app.extensions[EXTENSION]
        site = middleware.adapted_site()
        if site.environ_key not in request.environ:
            _open_outside_a_response(site, request.environ)
        if self._is_selective:
            request.environ[_UNSAVED_KEY] = True
        opened = get_session(request, environ_key=site.environ_key)
        # It shares the middleware's state, so that the middleware saves its changes.
        return cast(SessionMixin, FlaskSession(opened._state, grows_stale=self.keeps_logins_of(app)))

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        """Let the middleware save the session with the response; a subclass that does not call this saves nothing."""
        environ = flask.request.environ
        environ.pop(_UNSAVED_KEY, None)
        if self.keeps_logins_of(app):
            self._keep_login(app, cast(FlaskSession, session), response)
        paused = environ.pop(_PAUSED_KEY, None)
        if paused is not None:
            response.headers.extend(paused())

    def keeps_logins_of(self, app: flask.Flask) -> bool:
        """Tell whether the session remembers Flask-Login's logins, instead of Flask-Login's cookie."""
        return self._remember is Remember.SESSION and hasattr(app, "login_manager")

    def takes_remember_cookies(self, now: int) -> bool:
        """Tell whether Flask-Login's remember cookie may log its user in at `now` (Unix ms)."""
        until = self._remember_until
        if until is None:
            return False
        moment = datetime.fromtimestamp(now / 1000, UTC)
        return moment < until if isinstance(until, datetime) else moment.date() <= until

    @property
    def _is_selective(self) -> bool:
        return type(self).save_session is not PrismSessions.save_session

    def _keep_login(self, app: flask.Flask, session: FlaskSession, response: flask.Response) -> None:
        """Remember a login by the session instead of by Flask-Login's remember cookie, and delete that cookie."""
        state = session._state
        if state.phase is UNREAD or not state.accessed:
            return
        wish, seconds = session.pop(_REMEMBER, None), session.pop(_REMEMBER_SECONDS, None)
        came_with_cookie = flask.request.environ.get(_REMEMBER, False)
        user = named_user(session.get(_USER))
        is_taken_over = (
            came_with_cookie
            and user is not None
            and session.user is None
            and _USER in state.decided
            and session.get(_FRESH) is False
        )
        if is_taken_over:
            state.log_in(Login(user))  # without `authenticated_at`: a cookie proves less than a password
        if is_taken_over or (wish == "set" and user is not None):
            session.ttl = _remember_seconds(app, seconds)
            if not session.persistent:
                session[_ONLY_BY_LOGIN] = True
            session.persistent = True
        if user is None:
            session.pop(_ONLY_BY_LOGIN, None)
        if came_with_cookie:
            config = app.config
            response.delete_cookie(
                _remember_cookie(app),
                path=config.get("REMEMBER_COOKIE_PATH", "/"),
                domain=config.get("REMEMBER_COOKIE_DOMAIN"),
            )

    def _settings_of(self, app: flask.Flask) -> MiddlewareOptions:
        if not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            raise ConfigError(
                "SESSION_REFRESH_EACH_REQUEST must not be False: every use extends a session. For sessions that end "
                "at a fixed time, pass max_lifetime to PrismSessions"
            )
        if app.secret_key is None and "secret" not in self._options:
            raise ConfigError("SECRET_KEY must be set before PrismSessions(app); make one with `prism-wsgi secret`")
        settings: MiddlewareOptions = {
            "secret": _secrets_of(app),
            "ttl": app.permanent_session_lifetime,
            "persistent": False,
            "cookie_name": self.get_cookie_name(app),
            "path": self.get_cookie_path(app),
            "domain": self.get_cookie_domain(app) or None,
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app) or SameSite.LAX,
            "partitioned": self.get_cookie_partitioned(app),
        }
        return {**settings, **self._options}


class _FlaskMiddleware(SessionMiddleware):
    """The middleware around a Flask application, which adapts to the application's extensions."""

    def __init__(self, app: flask.Flask, interface: PrismSessions, settings: MiddlewareOptions) -> None:
        super().__init__(app.wsgi_app, **settings)
        self._flask = app
        self._interface = interface
        self._follows_flask_login = "user_id_key" not in settings
        self._is_adapted = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._flask.session_interface is not self._interface:
            return self.app(environ, start_response)  # the application has got another session interface since
        return serve(self.adapted_site(), self._respond, environ, start_response)

    def adapted_site(self) -> Site:
        """Return the site, adapted to the application's extensions, which it may add until the first request."""
        if not self._is_adapted:
            csrf = self._flask.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")  # of Flask-WTF
            self.site = replace(self.site, csrf_keys=(CSRF_KEY, csrf))
            self._is_adapted = True
        if hasattr(self._flask, "login_manager") and self._follows_flask_login:
            self._follows_flask_login = False
            self.site = replace(self.site, user_id_key=_USER)
        if self._interface.keeps_logins_of(self._flask):
            _take_from_flask_login(self._flask)
        return self.site

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._interface.keeps_logins_of(self._flask):
            name, header = _remember_cookie(self._flask), environ.get("HTTP_COOKIE", "")
            others = [pair for pair in header.split(";") if pair.partition("=")[0].strip() != name]
            environ[_REMEMBER] = len(others) < len(header.split(";"))
            if environ[_REMEMBER] and not self._interface.takes_remember_cookies(self.site.now()):
                environ["HTTP_COOKIE"] = ";".join(others)
        body = self.app(environ, start_response)
        if environ.pop(_UNSAVED_KEY, False):
            get_session(environ, environ_key=self.site.environ_key)._state.ignore()
        return body


def _take_from_flask_login(app: flask.Flask) -> None:
    """Remove the function by which Flask-Login sets its remember cookie after each request."""
    functions = app.after_request_funcs.get(None, [])
    for one in functions[:]:
        if getattr(one, "__self__", None) is app.login_manager and one.__name__ == "_update_remember_cookie":  # type: ignore[attr-defined]
            functions.remove(one)


def _note_long_absence(state: SessionState) -> None:
    """Mark the login as not fresh if the user was away for longer than PERMANENT_SESSION_LIFETIME."""
    stored, site, values = state.identity.stored, state.site, state.document.values
    if state.phase is not STORED or stored is None or stored.last_seen_at is None:
        return
    if values.get(_FRESH) is True and site.now() - stored.last_seen_at > site.lifetimes.ttl * 1000:
        values[_FRESH] = False
        state.note_write(_FRESH)


def _remember_cookie(app: flask.Flask) -> str:
    name: str = app.config.get("REMEMBER_COOKIE_NAME", "remember_token")
    return name


def _remember_seconds(app: flask.Flask, seconds: float | None) -> int:
    """Return the seconds for which a login is remembered, at most 400 days, the limit of browsers."""
    duration = app.config.get("REMEMBER_COOKIE_DURATION", timedelta(days=365)) if seconds is None else seconds
    if not isinstance(duration, timedelta | int | float):
        raise ConfigError(f"REMEMBER_COOKIE_DURATION must be a timedelta or a number of seconds, not {duration!r}")
    whole = int(duration.total_seconds() if isinstance(duration, timedelta) else duration)
    return min(max(1, whole), MAX_AGE_LIMIT)


def _checked_moment(value: date | None) -> date | None:
    if value is not None and not isinstance(value, date):
        raise ConfigError(f"remember_until must be a date or an aware datetime, not {value!r}")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ConfigError("remember_until must have a time zone, or be a date: datetime(2027, 1, 1, tzinfo=UTC)")
    return value


def _secrets_of(app: flask.Flask) -> list[Secret]:
    return [app.secret_key or "", *(app.config["SECRET_KEY_FALLBACKS"] or ())]


def _open_outside_a_response(site: Site, environ: WSGIEnvironment) -> None:
    """Open a session for a request that no server sent: `test_request_context()`, `session_transaction()`.

    The request goes through the middleware, around an application that pauses before its first item until
    `save_session()` asks for the headers.
    """
    headers: list[tuple[str, str]] = []

    def pause(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b""

    def receive(status: str, sent: list[tuple[str, str]], exc_info: object = None, /) -> None:
        headers.extend(sent)

    body = serve(site, pause, environ, cast("StartResponse", receive))

    def resume() -> list[tuple[str, str]]:
        list(body)
        return headers

    environ[_PAUSED_KEY] = resume
