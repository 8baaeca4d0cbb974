"""Bottle's plugin: `app.install(SessionPlugin(secret=...))` makes `request.session` a Session."""

if __name__ == "bottle":
    raise ImportError(
        "prism_wsgi's own directory is on sys.path, and hides the package bottle: start Python in another directory"
    )

from collections.abc import Iterable
from typing import Any, TypeVar, Unpack
from wsgiref.types import StartResponse, WSGIEnvironment

from bottle import Bottle

from prism_wsgi.http import get_session
from prism_wsgi.setting_types import MiddlewareOptions, around, prepared

_CallbackT = TypeVar("_CallbackT")


class SessionPlugin:
    """A plugin that gives each request to a Bottle application its session, as `request.session`.

    It takes the settings of SessionMiddleware and wraps each application that it is installed in, so routes, hooks
    and error handlers see the same session. Install it in the application that you serve; applications mounted in
    that one need no plugin.

    Raises ConfigError for a setting that breaks its rule.
    """

    name = "prism_wsgi"
    api = 2

    def __init__(self, **options: Unpack[MiddlewareOptions]) -> None:
        self._middleware = prepared(options)
        self._apps: list[Bottle] = []

    def setup(self, app: Bottle) -> None:
        """Put sessions around the application; Bottle calls this in `install()`."""
        respond, environ_key = app.wsgi, self._middleware.site.environ_key

        def respond_with_session(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # Bottle's request reads `request.session` from this key.
            environ["bottle.request.ext.session"] = get_session(environ, environ_key=environ_key)
            body: Iterable[bytes] = respond(environ, start_response)
            return body

        app.wsgi = around(respond_with_session, self._middleware)
        self._apps.append(app)

    def apply(self, callback: _CallbackT, route: Any) -> _CallbackT:
        """Return a route's callback as it is: the session is there already."""
        return callback

    def close(self) -> None:
        """Take the sessions away from the applications; Bottle calls this in `uninstall()`."""
        while self._apps:
            del self._apps.pop().wsgi
