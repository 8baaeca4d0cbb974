"""Django: sessions in the database, and in its cache in memory.

Its best documented settings: connections kept open, SESSION_SAVE_EVERY_REQUEST off, no middleware but the one
measured. One process has one set of settings, so a database router says which engine a request is for.
"""

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from sqlalchemy import make_url

from benchmarks.machine.databases import Places
from benchmarks.subjects.scenarios import ACTIONS
from benchmarks.subjects.subject import SECRET, Subject

_BACKENDS = {"sqlite": "sqlite3", "postgresql": "postgresql", "mariadb": "mysql"}
_SQLITE_OPTIONS = {
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    "transaction_mode": "IMMEDIATE",
}


class Router:
    """A database router that sends sessions to the engine whose application is being called."""

    current = "default"

    def db_for_read(self, *_: object, **__: object) -> str:
        return Router.current

    db_for_write = db_for_read


def subjects(places: Places) -> list[Subject]:
    """Return Django on memory and on each SQL engine."""
    databases = {engine: _database(engine, places[engine]) for engine in _BACKENDS if engine in places}
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, **databases},
        DATABASE_ROUTERS=[Router()],
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=[],
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                "OPTIONS": {"MAX_ENTRIES": 1_000_000},
            }
        },
        USE_TZ=True,
    )
    django.setup()
    bare = WSGIHandler()
    found = []
    for engine in databases:
        call_command("migrate", "sessions", database=engine, verbosity=0)
        found.append(Subject("Django", engine, _on(engine, _handler("db")), bare, framework="Django"))
    if "memory" in places:
        found.append(Subject("Django", "memory", _handler("cache"), bare, framework="Django"))
    return found


def _database(engine: str, place: str) -> dict[str, Any]:
    url = make_url(place)
    return {
        "ENGINE": f"django.db.backends.{_BACKENDS[engine]}",
        "NAME": (url.database or "").replace("sessions.db", "django.db") if engine == "sqlite" else url.database,
        "HOST": url.host or "",
        "PORT": url.port or "",
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "CONN_MAX_AGE": None,
        "OPTIONS": _SQLITE_OPTIONS if engine == "sqlite" else dict(url.query),
    }


def _handler(backend: str) -> WSGIApplication:
    with override_settings(
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE=f"django.contrib.sessions.backends.{backend}",
    ):
        handler: WSGIApplication = WSGIHandler()
    return handler


def _on(engine: str, handler: WSGIApplication) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        Router.current = engine
        return handler(environ, start_response)

    return application


def _view(action: Callable[[Any], bytes]) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        # Without the middleware there is no session, and no action uses it.
        return HttpResponse(action(getattr(request, "session", None)), content_type="text/plain")

    return view


def _login(session: Any) -> bytes:
    session.cycle_key()
    session["user"] = "alice"
    return b"ok"


urlpatterns = [path(name[1:], _view(action)) for name, action in {**ACTIONS, "/login": _login}.items()]
