"""The site in Bottle, with the plugin."""

import hmac
from wsgiref.types import WSGIApplication

from bottle import Bottle, abort, redirect, request

from prism_wsgi import MemoryStore, Session
from prism_wsgi.bottle import SessionPlugin


def make_app(store: MemoryStore, secret: str) -> WSGIApplication:
    app = Bottle()
    app.install(SessionPlugin(store=store, secret=secret))

    def require_csrf_token() -> None:
        if request.method == "POST":
            given = request.forms.csrf_token.encode()
            if not hmac.compare_digest(given, request.session.get_csrf_token().encode()):
                abort(403, "Go back and reload the page")

    def page() -> str:
        session: Session = request.session
        notes, messages = ", ".join(session.get("notes", [])), " ".join(session.pop_flash())
        token = session.get_csrf_token()
        return f'{about()} notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'

    def about() -> str:
        return f"user: {request.session.user};"

    def login() -> None:
        user = request.forms.user
        request.session.login(user)
        request.session.flash(f"Welcome, {user}")
        redirect("/", 303)

    def add_note() -> None:
        request.session.setdefault("notes", []).append(request.forms.note)
        redirect("/", 303)

    def logout() -> None:
        request.session.logout()
        redirect("/", 303)

    def logout_everywhere() -> None:
        store.destroy_all(request.session.user)
        redirect("/", 303)

    def fail() -> None:
        request.session["notes"].append("lost")
        abort(500, "Broken")

    app.add_hook("before_request", require_csrf_token)
    app.route("/", "GET", page)
    app.route("/about", "GET", about)
    for action in (login, logout, fail):
        app.route(f"/{action.__name__}", "POST", action)
    app.route("/notes", "POST", add_note)
    app.route("/logout-everywhere", "POST", logout_everywhere)
    application: WSGIApplication = app
    return application
