"""Writes sessions with Django, Flask-Session or Beaker themselves: `write_peers.py PACKAGE URL`.

Prints the cookie of each, by name, as JSON. A process of its own: Django is configured once a process, and the others
warn.
"""

import json
import pickle
import secrets
import sys
from collections.abc import Callable
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any
from wsgiref.util import setup_testing_defaults

from sqlalchemy import URL, make_url

SECRET = "the-key-of-the-tests-k4x0q9w8e7r6t5y4u3i2o1p0"
OLD_SECRET = "the-key-before-that-z1x2c3v4b5n6m7a8s9d0f1g2"
TIMEOUT = 3600

MAX_SIZE = 20_000  # of the import; MariaDB has no room for a peer's 64 KB
MANY = secrets.token_hex(MAX_SIZE)


class PickleSerializer:
    """Django's, as it was until 4.x."""

    def dumps(self, values: object) -> bytes:
        return pickle.dumps(values)

    def loads(self, data: bytes) -> Any:
        raise NotImplementedError


def write_django(url: URL) -> dict[str, str]:
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.test import override_settings

    engine = {"sqlite": "sqlite3", "postgresql": "postgresql", "mysql": "mysql"}[url.get_backend_name()]
    database = {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": url.database,
        "USER": url.username or "",
        "HOST": url.host or "",
        "PORT": url.port or "",
        "OPTIONS": dict(url.query),
    }
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.sessions"],
        SECRET_KEY=SECRET,
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.sessions.backends.db import SessionStore

    def keep(**values: Any) -> str:
        session = SessionStore()
        session.update(values)
        if values.get("expired"):
            session.set_expiry(-60)
        session.create()
        return str(session.session_key)

    cookies = {
        "ada": keep(_auth_user_id="7", _auth_user_backend="some.Backend", cart=["apple", {"n": 2}], name="Åsa"),
        "stranger": keep(theme="dark"),
        "compressed": keep(text="pear " * 500),
        "expired": keep(expired=True),
        "large": keep(text=MANY),
        "nan": keep(number=float("nan")),
        "bad_user": keep(_auth_user_id="x" * 300),
    }
    with override_settings(SECRET_KEY=OLD_SECRET):
        cookies["fallback"] = keep(theme="light")
    with override_settings(SECRET_KEY="somebody-else"):
        cookies["forged"] = keep(_auth_user_id="1")
    with override_settings(SESSION_SERIALIZER="__main__.PickleSerializer"):
        cookies["pickled"] = keep(theme="dark")
    return cookies


def write_flask_session(url: URL) -> dict[str, str]:
    import flask
    from flask_session import Session

    app = flask.Flask("shop")
    app.config.update(
        SECRET_KEY=SECRET,
        SESSION_TYPE="sqlalchemy",
        SQLALCHEMY_DATABASE_URI=url.render_as_string(hide_password=False),
    )
    Session(app)
    values: dict[str, Any] = {}

    @app.get("/")
    def keep() -> str:
        flask.session.update(values)
        return "kept"

    def visit(**some: Any) -> str:
        values.clear()
        values.update(some)
        client = app.test_client()
        assert client.get("/").text == "kept"
        cookie = client.get_cookie("session")
        assert cookie is not None
        return cookie.value

    cookies = {
        "ada": visit(_user_id="7", cart=["apple", {"n": 2}], name="Åsa", raw=b"\0\1"),
        "stranger": visit(theme="dark"),
        "large": visit(text=MANY),
        "keys": visit(numbers={1: "one"}),
    }
    app.permanent_session_lifetime = timedelta(seconds=-60)
    cookies["expired"] = visit(theme="dark")
    app.permanent_session_lifetime = timedelta(days=1)
    app.config.update(SESSION_SERIALIZATION_FORMAT="json")
    app.session_interface.serializer.encode = lambda session: json.dumps(dict(session)).encode()  # type: ignore[attr-defined]
    cookies["json"] = visit(theme="json")
    app.session_interface.serializer.encode = lambda session: pickle.dumps(dict(session))  # type: ignore[attr-defined]
    cookies["pickled"] = visit(theme="dark")
    return cookies


def write_beaker(url: URL) -> dict[str, str]:
    from beaker.cache import CacheManager
    from beaker.middleware import SessionMiddleware

    address = url.render_as_string(hide_password=False)

    def visit(*, seconds_ago: float = 0, delete: bool = False, **values: Any) -> str:
        serializer = values.pop("serializer", "json")

        def keep(environ: Any, start_response: Any) -> list[bytes]:
            session = environ["beaker.session"]
            session.update(values)
            if seconds_ago:
                session["_accessed_time"] -= seconds_ago
            session.save()
            start_response("200 OK", [])
            return [b""]

        def leave(environ: Any, start_response: Any) -> list[bytes]:
            environ["beaker.session"].delete()
            start_response("200 OK", [])
            return [b""]

        cookie = ""
        for app in [keep, *([leave] if delete else [])]:
            site = SessionMiddleware(
                app, type="ext:database", url=address, secret=SECRET, timeout=TIMEOUT, data_serializer=serializer
            )
            environ: dict[str, Any] = {"HTTP_COOKIE": f"beaker.session.id={cookie}"}
            setup_testing_defaults(environ)
            received: list[tuple[str, str]] = []
            site(environ, lambda status, headers, exc_info=None, into=received: into.extend(headers))
            if not delete or app is keep:
                cookie = SimpleCookie(dict(received)["Set-cookie"])["beaker.session.id"].value
        return cookie

    cookies = {
        "ada": visit(user="ada", cart=["apple", {"n": 2}], name="Åsa"),
        "stranger": visit(theme="dark"),
        "long": visit(text="pear " * 500 + MANY[:1000]),
        "large": visit(text=MANY),
        "expired": visit(theme="dark", seconds_ago=TIMEOUT + 60),
        "deleted": visit(user="grace", delete=True),
        "pickled": visit(theme="dark", serializer="pickle"),
    }
    CacheManager(type="ext:database", url=address, lock_dir="locks").get_cache("prices").put("apple", 3)
    return cookies


WRITERS: dict[str, Callable[[URL], dict[str, str]]] = {
    "django": write_django,
    "flask-session": write_flask_session,
    "beaker": write_beaker,
}

if __name__ == "__main__":
    print(json.dumps(WRITERS[sys.argv[1]](make_url(sys.argv[2]))))
