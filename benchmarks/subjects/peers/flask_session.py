"""Flask-Session on Flask-SQLAlchemy.

Its best documented settings: msgpack, and SESSION_REFRESH_EACH_REQUEST off, which would write with every request.
"""

from typing import Any

from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event

from benchmarks.machine.databases import Places, set_sqlite_pragmas
from benchmarks.subjects.peers.flask_cookie import bare_flask, flask_application
from benchmarks.subjects.subject import SECRET, Subject


def subjects(places: Places) -> list[Subject]:
    """Return Flask-Session on each SQL engine."""
    return [
        Subject("Flask-Session", engine, _application(places[engine]), bare_flask(), framework="Flask")
        for engine in ("sqlite", "postgresql", "mariadb")
        if engine in places
    ]


def _application(place: str) -> Flask:
    app = flask_application(login=_login)
    database = SQLAlchemy()
    app.config.update(
        SECRET_KEY=SECRET,
        SQLALCHEMY_DATABASE_URI=place,
        SESSION_TYPE="sqlalchemy",
        SESSION_SQLALCHEMY=database,
        SESSION_SQLALCHEMY_TABLE="flask_sessions",
        SESSION_SERIALIZATION_FORMAT="msgpack",
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    database.init_app(app)
    with app.app_context():
        event.listen(database.engine, "connect", set_sqlite_pragmas)
    Session(app)
    return app


def _login(app: Flask) -> bytes:
    interface: Any = app.session_interface
    interface.regenerate(session)
    session["user"] = "alice"
    return b"ok"
