"""Pyramid's include: `config.include("prism_wsgi.pyramid")` makes `request.session` a PyramidSession."""

if __name__ == "pyramid":
    raise ImportError(
        "prism_wsgi's own directory is on sys.path, and hides the package pyramid: start Python in another directory"
    )

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from pyramid.authentication import SessionAuthenticationHelper
from pyramid.events import ApplicationCreated
from pyramid.interfaces import IAuthenticationPolicy, ISecurityPolicy, ISession
from zope.interface import classImplements

from prism_wsgi.errors import ConfigError
from prism_wsgi.http import DEFAULT_ENVIRON_KEY, get_session
from prism_wsgi.middleware import serve
from prism_wsgi.request.site import Site
from prism_wsgi.session import Session
from prism_wsgi.setting_types import prepared
from prism_wsgi.text_settings import read_settings

PREFIX = "prism."


class PyramidSession(Session):
    """A Session that also has the names which Pyramid's documentation gives to `request.session`."""

    __slots__ = ()

    @property
    def new(self) -> bool:
        """Whether nothing was stored for this visitor; Pyramid's name for `is_new`."""
        return self.is_new

    @property
    def created(self) -> int:
        """When the session began, in Unix seconds; Pyramid's name for `created_at`."""
        return int(self.created_at.timestamp())

    def invalidate(self) -> None:
        """End the session; Pyramid's name for `destroy()`."""
        self.destroy()

    def delete(self) -> None:
        """End the session; pyramid_beaker's name for `destroy()`."""
        self.destroy()

    def save(self) -> None:
        """Save the session with the response; pyramid_beaker's name. Changes are saved without this call."""
        self.changed()


classImplements(PyramidSession, ISession)


def includeme(config: Any) -> None:
    """Make `request.session` a PyramidSession, as the settings whose names begin with `prism.` say.

    With `prism.secret`, SessionMiddleware is put around the application that `config.make_wsgi_app()` returns. Each
    of its settings is `prism.` and its name, as text or as the object itself. A user whom SessionAuthenticationHelper
    or SessionAuthenticationPolicy remembers is then logged in to the session: unless you set it, `prism.user_id_key`
    is "auth.userid", with the prefix of your security policy.

    Without any setting, the sessions are those of the SessionMiddleware that you put around the application; give it
    the `user_id_key`.

    Raises ConfigError for a setting that does not exist or breaks its rule.
    """
    options = read_settings(config.get_settings(), prefix=PREFIX)
    environ_key = options.get("environ_key", DEFAULT_ENVIRON_KEY)
    config.set_session_factory(_session_factory(environ_key))
    if "secret" in options:
        _put_around(config, prepared(options).site, finds_user_key="user_id_key" not in options)
    elif options.keys() - {"environ_key"}:
        raise ConfigError(
            f"{PREFIX}secret is not set, and {PREFIX}{min(options.keys() - {'environ_key'})} has no effect without "
            "it; make one with `prism-wsgi secret`, or pass the settings to the SessionMiddleware around the "
            "application"
        )
    if find_spec("pyramid_retry") is not None:
        _forget_failed_attempts(config, environ_key)


def _session_factory(environ_key: str) -> Any:
    def session_of(request: Any) -> PyramidSession:
        if environ_key not in request.environ:
            raise ConfigError(
                "This request has no session. If it is a subrequest: subrequest.session = request.session. In a "
                f"script: request.session = PyramidSession(). Otherwise set {PREFIX}secret, or put SessionMiddleware "
                "around the application"
            )
        return PyramidSession(get_session(request, environ_key=environ_key)._state)

    return session_of


def _put_around(config: Any, site: Site, *, finds_user_key: bool) -> None:
    # Around the execution policy, so around tweens, exception views and the body, whenever the policy is set.
    def wrap(event: ApplicationCreated) -> None:
        router = event.app
        policy = router.execution_policy
        adapted = replace(site, user_id_key=_user_key(router.registry)) if finds_user_key else site

        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            body: Iterable[bytes] = policy(environ, router)(environ, start_response)
            return body

        wrapped = partial(serve, adapted, respond)
        router.execution_policy = lambda environ, router: wrapped  # a response is a WSGI application

    config.add_subscriber(wrap, ApplicationCreated)


def _user_key(registry: Any) -> str:
    """Return the key under which Pyramid's session authentication puts the user."""
    for policy in (registry.queryUtility(ISecurityPolicy), registry.queryUtility(IAuthenticationPolicy)):
        for part in getattr(policy, "__dict__", {}).values():
            if isinstance(part, SessionAuthenticationHelper):
                return str(part.userid_key)
    return str(SessionAuthenticationHelper().userid_key)


def _forget_failed_attempts(config: Any, environ_key: str) -> None:
    # The next attempt has the same environ, and must not see the changes of the failed one.
    def forget(event: Any) -> None:
        session = event.environ.get(environ_key)
        if isinstance(session, Session):
            session._state.roll_back()

    config.add_subscriber(forget, "pyramid_retry.IBeforeRetry")
