"""The site with Werkzeug's requests and responses."""

import hmac
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from prism_wsgi import MemoryStore, Session, SessionMiddleware, get_session


def make_app(store: MemoryStore, secret: str) -> WSGIApplication:
    @Request.application
    def app(request: Request) -> Response:
        session = get_session(request)
        if request.method == "GET":
            return Response(about(session) if request.path == "/about" else page(session))
        if not hmac.compare_digest(request.form.get("csrf_token", ""), session.get_csrf_token()):
            return Response("Go back and reload the page", status=403)
        if request.path == "/fail":
            session["notes"].append("lost")
            return Response("Broken", status=500)
        act(session, request)
        return redirect("/", 303, Response)

    def act(session: Session, request: Request) -> None:
        if request.path == "/login":
            session.login(request.form["user"])
            session.flash(f"Welcome, {session.user}")
        elif request.path == "/notes":
            session.setdefault("notes", []).append(request.form["note"])
        elif request.path == "/logout":
            session.logout()
        elif request.path == "/logout-everywhere" and session.user is not None:
            store.destroy_all(session.user)

    def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return app(environ, start_response)

    return SessionMiddleware(wsgi, store=store, secret=secret)


def about(session: Session) -> str:
    return f"user: {session.user};"


def page(session: Session) -> str:
    notes, messages = ", ".join(session.get("notes", [])), " ".join(session.pop_flash())
    token = session.get_csrf_token()
    return f'{about(session)} notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'
