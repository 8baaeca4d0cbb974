"""Mount the ready pages in Flask: devices, administration, time left and health, one line each."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server

from flask import Flask, request

from prism_wsgi import MemoryStore, get_session
from prism_wsgi.flask import PrismSessions, session
from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft

FORM = """<!doctype html>
<title>Ready pages</title>
<p>You are {}.
<form method="post"><input name="user"><button>Log in</button></form>
"""

app = Flask(__name__)
# A secret drawn here ends every session with this process: set SESSION_SECRET where that matters.
app.config["SECRET_KEY"] = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
app.config["SESSION_COOKIE_SECURE"] = True
store = MemoryStore()
PrismSessions(app, store=store, record_client=True)

devices = DevicesPage(login_url="/")
admin = AdminPage(store, allow=lambda environ: get_session(environ).user == "grace")
time_left, health = TimeLeft(), HealthCheck(store)
app.add_url_rule("/devices", "devices", lambda: devices, methods=["GET", "POST"])
app.add_url_rule("/admin", "admin", lambda: admin, methods=["GET", "POST"])
app.add_url_rule("/time-left", "time_left", lambda: time_left)
app.add_url_rule("/health", "health", lambda: health)


@app.get("/")
def show() -> str:
    return FORM.format(session.user or "nobody")


@app.post("/")
def log_in() -> str:
    if request.form.get("user") in ("ada", "grace"):  # yours checks a password
        session.login(request.form["user"])
    return show()


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), app) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
