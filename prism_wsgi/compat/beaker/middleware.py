"""Beaker's SessionMiddleware: `from prism_wsgi.compat.beaker import SessionMiddleware`, and nothing else changes.

`environ["beaker.session"]` works as Beaker's documentation says, while prism_wsgi saves the sessions and sets the
cookie.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import middleware
from prism_wsgi.compat.beaker.session import BeakerSession, BeakerSite
from prism_wsgi.compat.beaker.settings import read_beaker_settings
from prism_wsgi.cookie_fallbacks import BeakerCookie
from prism_wsgi.http import DEFAULT_ENVIRON_KEY, get_session
from prism_wsgi.request.headers import Headers
from prism_wsgi.setting_types import MiddlewareOptions

DEFAULT_BEAKER_KEY = "beaker.session"


class SessionMiddleware:
    """A middleware that gives each request a session under `environ["beaker.session"]`, with Beaker's interface.

    `config` and keyword arguments are Beaker's: those whose names begin with `session.` or `beaker.session.`, and
    keyword arguments without a prefix. You can also give settings of prism_wsgi for which Beaker has no name, such as
    `max_lifetime` or `store`. `environ_key` is the session's key in the WSGI environ.

    `environ["prism.session"]` is the same session with the interface of prism_wsgi. Visitors with Beaker's cookie
    keep the session that `prism-wsgi import beaker` imported.

    Raises ConfigError for a setting that breaks its rule or that prism_wsgi does not have, and says what to do.
    """

    def __init__(
        self,
        wrap_app: WSGIApplication,
        config: Mapping[str, Any] | None = None,
        environ_key: str = DEFAULT_BEAKER_KEY,
        **kwargs: Any,
    ) -> None:
        settings = read_beaker_settings(config or {}, kwargs)
        self.wrap_app = self.app = wrap_app
        self.environ_key = environ_key
        self._webtest_name = settings.webtest_name
        self._prism_key = DEFAULT_ENVIRON_KEY if environ_key == DEFAULT_BEAKER_KEY else f"prism.{environ_key}"
        options: MiddlewareOptions = {
            **settings.options,
            "environ_key": self._prism_key,
            # Beaker saves at start_response(), whatever the status; an application that raises before saves nothing.
            "save_on_error": True,
        }
        old = BeakerCookie(
            options.get("cookie_name", "beaker.session.id"),
            secret=settings.options.get("secret") or (),
            path=options.get("path", "/"),
            domain=options.get("domain"),
        )
        options["cookie_fallbacks"] = [*options.get("cookie_fallbacks", ()), old]
        self._sessions = middleware.SessionMiddleware(self._respond, **options)
        self._site = BeakerSite(self._sessions.site.cookies.cookie, settings.auto, settings.save_accessed_time)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._sessions(environ, start_response)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = BeakerSession(get_session(environ, environ_key=self._prism_key), self._site)
        environ[self.environ_key] = session
        if self._webtest_name is not None and "paste.testing_variables" in environ:
            environ["paste.testing_variables"][self._webtest_name] = session

        def persist_first(status: str, headers: Headers, *exc_info: Any) -> Any:
            if session.accessed():
                session.persist()
            return start_response(status, headers, *exc_info)

        return self.wrap_app(environ, cast(StartResponse, persist_first))


def filter_app(app: WSGIApplication, global_conf: Mapping[str, Any], **kwargs: Any) -> SessionMiddleware:
    """Put sessions around an application, for an ini section: `use = egg:prism_wsgi#beaker_session`."""
    return SessionMiddleware(app, global_conf, **kwargs)
