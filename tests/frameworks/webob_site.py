"""The site in plain WSGI, with WebOb's requests and responses."""

import hmac
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import MemoryStore, Request, Response, Session, SessionMiddleware


def make_app(store: MemoryStore, secret: str) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        return respond(request)(environ, start_response)

    def respond(request: Request) -> Response:
        session = request.session
        if request.method == "GET":
            return Response(about(session) if request.path == "/about" else page(session))
        token = str(request.POST.get("csrf_token", ""))
        if not hmac.compare_digest(token, session.get_csrf_token()):
            return Response("Go back and reload the page", status=403)
        act(session, request)
        return Response(status=500 if request.path == "/fail" else 303, location="/")

    def act(session: Session, request: Request) -> None:
        if request.path == "/login":
            user = str(request.POST.get("user"))
            session.login(user)
            session.flash(f"Welcome, {user}")
        elif request.path == "/notes":
            session.setdefault("notes", []).append(str(request.POST.get("note")))
        elif request.path == "/logout":
            session.logout()
        elif request.path == "/logout-everywhere" and session.user is not None:
            store.destroy_all(session.user)
        elif request.path == "/fail":
            session["notes"].append("lost")

    return SessionMiddleware(app, store=store, secret=secret)


def about(session: Session) -> str:
    return f"user: {session.user};"


def page(session: Session) -> str:
    notes, messages = ", ".join(session.get("notes", [])), " ".join(session.pop_flash())
    token = session.get_csrf_token()
    return f'{about(session)} notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'
