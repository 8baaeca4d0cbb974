"""Plugin that gives every Flask application PrismSessions, once it has a SECRET_KEY and is used.

Tests make an application first and configure it afterwards, so the sessions come with its first request.
PRISM_PEER_OPTIONS holds keyword arguments of PrismSessions as JSON.
"""

import json
import os
import warnings
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # WebOb imports cgi; some suites make warnings errors
    from prism_wsgi import InsecureSecretWarning
    from prism_wsgi.flask import PrismSessions

import flask
from flask.sessions import SessionInterface, SessionMixin

OPTIONS = json.loads(os.environ["PRISM_PEER_OPTIONS"])


class SessionsAtFirstUse(SessionInterface):
    """The interface before the first request. Without a SECRET_KEY there is no session, as in Flask."""

    def open_session(self, app: flask.Flask, request: flask.Request) -> SessionMixin | None:
        install(app)
        return None if app.session_interface is self else app.session_interface.open_session(app, request)

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        """Save nothing: there is no session."""


def install(app: flask.Flask) -> None:
    """Give the application our sessions, unless the test has given it others."""
    if app.session_interface is AT_FIRST_USE and app.secret_key:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureSecretWarning)  # "development key", "secret"
            PrismSessions(app, **OPTIONS)


def call(app: flask.Flask, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stand in for Flask.__call__."""
    install(app)
    return app.wsgi_app(environ, start_response)


AT_FIRST_USE = SessionsAtFirstUse()
flask.Flask.session_interface = AT_FIRST_USE
flask.Flask.__call__ = call  # type: ignore[assignment, method-assign]
