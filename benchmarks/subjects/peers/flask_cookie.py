"""Flask: its own sessions, kept in a signed cookie; and the Flask application that every Flask library here gets."""

from collections.abc import Callable

from flask import Flask, Response, request, session
from flask.sessions import SessionInterface

from benchmarks.machine.databases import Places
from benchmarks.subjects.scenarios import ACTIONS
from benchmarks.subjects.subject import SECRET, Subject


def subjects(places: Places) -> list[Subject]:
    """Return Flask's own sessions."""
    if "cookie" not in places:
        return []
    app = flask_application(login=_login)
    app.config.update(SECRET_KEY=SECRET, SESSION_REFRESH_EACH_REQUEST=False)
    return [Subject("Flask cookie", "cookie", app, bare_flask(), framework="Flask")]


def flask_application(*, login: Callable[[Flask], bytes]) -> Flask:
    """Return the measured application, in Flask; `session` is whatever is configured."""
    app = Flask("benchmarks")

    def view() -> Response:
        return Response(ACTIONS[request.path](session), content_type="text/plain")

    for path in ACTIONS:
        app.add_url_rule(path, path, view)
    app.add_url_rule("/login", "/login", lambda: Response(login(app), content_type="text/plain"))
    return app


def bare_flask() -> Flask:
    """Return the measured application without sessions."""
    app = Flask("benchmarks")
    app.session_interface = _NoSessions()
    app.add_url_rule("/untouched", view_func=lambda: Response(b"ok", content_type="text/plain"), endpoint="untouched")
    return app


class _NoSessions(SessionInterface):
    def open_session(self, *_: object) -> None:
        return None

    make_null_session = open_session  # type: ignore[assignment]

    def is_null_session(self, obj: object) -> bool:
        return obj is None


def _login(_: Flask) -> bytes:
    session["user"] = "alice"  # there is no id that could be changed
    return b"ok"
