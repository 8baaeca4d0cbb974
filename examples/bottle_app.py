"""Sign in and out with Bottle: notes belong to the visitor, and end with the session."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server

from bottle import Bottle, abort, redirect, request

from prism_wsgi import SessionMiddleware, get_session

# A secret made here ends every session with this process: set SESSION_SECRET if that matters.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
USERS = {"ada", "grace"}

app = Bottle()


@app.get("/")
def show() -> dict[str, object]:
    session = get_session(request)
    return {"user": session.user, "notes": session.get("notes", [])}


@app.post("/notes")
def add_note() -> None:
    get_session(request).setdefault("notes", []).append(request.forms.note)
    redirect("/", 303)


@app.post("/login")
def login() -> None:
    user = request.forms.user
    if user not in USERS:  # yours checks a password
        abort(403, "Nobody of that name may sign in")
    get_session(request).login(user)
    redirect("/", 303)


@app.post("/logout")
def logout() -> None:
    get_session(request).logout()
    redirect("/", 303)


application = SessionMiddleware(app, secret=SECRET)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
