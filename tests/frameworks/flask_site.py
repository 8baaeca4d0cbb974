"""The site in Flask, with `flask.session`."""

import hmac

from flask import Flask, abort, flash, get_flashed_messages, redirect, request
from werkzeug.wrappers import Response

from prism_wsgi import MemoryStore
from prism_wsgi.flask import PrismSessions, session


def make_app(store: MemoryStore, secret: str) -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = secret
    PrismSessions(app, store=store)

    @app.before_request
    def require_csrf_token() -> None:
        if request.method == "POST" and not hmac.compare_digest(
            request.form.get("csrf_token", ""), session.get_csrf_token()
        ):
            abort(403)

    @app.get("/")
    def page() -> str:
        notes, messages = ", ".join(session.get("notes", [])), " ".join(map(str, get_flashed_messages()))
        token = session.get_csrf_token()
        return f'{about()} notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'

    @app.get("/about")
    def about() -> str:
        return f"user: {session.user};"

    @app.post("/login")
    def login() -> Response:
        session.login(request.form["user"])
        flash(f"Welcome, {session.user}")
        return redirect("/", 303)

    @app.post("/notes")
    def add_note() -> Response:
        session.setdefault("notes", []).append(request.form["note"])
        return redirect("/", 303)

    @app.post("/logout")
    def logout() -> Response:
        session.clear()
        return redirect("/", 303)

    @app.post("/logout-everywhere")
    def logout_everywhere() -> Response:
        if session.user is not None:
            store.destroy_all(session.user)
        return redirect("/", 303)

    @app.post("/fail")
    def fail() -> str:
        session["notes"].append("lost")
        raise LookupError

    return app
