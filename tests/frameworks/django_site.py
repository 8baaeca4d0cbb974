"""The site in Django, which is any other WSGI application to us. Somebody has configured Django before."""

import hmac
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, HttpResponseRedirect
from django.test import override_settings
from django.urls import path

from prism_wsgi import MemoryStore, Session, SessionMiddleware, get_session

STORE = "site.store"


def make_app(store: MemoryStore, secret: str) -> WSGIApplication:
    django: Any = get_wsgi_application()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[STORE] = store
        with override_settings(ROOT_URLCONF=__name__):
            body: Iterable[bytes] = django(environ, start_response)
        return body

    return SessionMiddleware(app, store=store, secret=secret)


def about(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"user: {get_session(request).user};")


def page(request: HttpRequest) -> HttpResponse:
    session = get_session(request)
    notes, messages = ", ".join(session.get("notes", [])), " ".join(session.pop_flash())
    token = session.get_csrf_token()
    return HttpResponse(
        f'user: {session.user}; notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'
    )


def submit(request: HttpRequest, action: str) -> HttpResponse:
    session = get_session(request)
    if not hmac.compare_digest(request.POST.get("csrf_token", ""), session.get_csrf_token()):
        return HttpResponseForbidden("Go back and reload the page")
    if action == "fail":
        session["notes"].append("lost")
        return HttpResponse("Broken", status=500)
    act(session, action, request)
    return HttpResponseRedirect("/")


def act(session: Session, action: str, request: HttpRequest) -> None:
    if action == "login":
        session.login(request.POST["user"])
        session.flash(f"Welcome, {session.user}")
    elif action == "notes":
        session.setdefault("notes", []).append(request.POST["note"])
    elif action == "logout":
        session.logout()
    elif action == "logout-everywhere":
        request.environ[STORE].destroy_all(session.user)


urlpatterns = [path("", page), path("about", about), path("<str:action>", submit)]
