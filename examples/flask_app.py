"""Sign in and out with Flask: `flask.session`, kept on the server, and flash messages."""

import hmac
import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server

from flask import Flask, abort, flash, redirect, render_template_string, request
from werkzeug.wrappers import Response

from prism_wsgi.flask import PrismSessions, session

app = Flask(__name__)
# A secret made here ends every session with this process: set SESSION_SECRET if that matters.
app.config["SECRET_KEY"] = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
app.config["SESSION_COOKIE_SECURE"] = True
PrismSessions(app)

USERS = {"ada", "grace"}

PAGE = """<!doctype html>
<title>Sessions in Flask</title>
<p>{{ get_flashed_messages() | join(" ") }}
<p>You are {{ session.user or "nobody" }}.
<form method="post">
<input type="hidden" name="csrf_token" value="{{ session.get_csrf_token() }}">
<input name="user" value="ada">
<button formaction="/login">Sign in</button> <button formaction="/logout">Sign out</button>
</form>
"""


@app.before_request
def require_csrf_token() -> None:
    if request.method == "POST":
        given = request.form.get("csrf_token", "").encode()
        if not hmac.compare_digest(given, session.get_csrf_token().encode()):
            abort(403)


@app.get("/")
def show() -> str:
    return render_template_string(PAGE)


@app.post("/login")
def login() -> Response:
    user = request.form.get("user", "")
    if user not in USERS:  # yours checks a password
        abort(403)
    session.login(user)
    flash(f"Welcome, {user}!")
    return redirect("/", 303)


@app.post("/logout")
def logout() -> Response:
    session.logout()
    flash("Come back soon.")  # written after logout(): the first of a new session
    return redirect("/", 303)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), app) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
