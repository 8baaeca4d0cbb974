"""Mount the ready pages in Bottle: devices, administration, time left and health, one line each."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server

from bottle import Bottle, request

from prism_wsgi import MemoryStore, SessionMiddleware, get_session
from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft

# A secret drawn here ends every session with this process: set SESSION_SECRET where that matters.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
FORM = """<!doctype html>
<title>Ready pages</title>
<p>You are {}.
<form method="post"><input name="user"><button>Log in</button></form>
"""

store = MemoryStore()
app = Bottle()
app.mount("/devices", DevicesPage(login_url="/"))
app.mount("/admin", AdminPage(store, allow=lambda environ: get_session(environ).user == "grace"))
app.mount("/time-left", TimeLeft())
app.mount("/health", HealthCheck(store))


@app.get("/")
def show() -> str:
    return FORM.format(get_session(request).user or "nobody")


@app.post("/")
def log_in() -> str:
    if request.forms.user in ("ada", "grace"):  # yours checks a password
        get_session(request).login(request.forms.user)
    return FORM.format(get_session(request).user or "nobody")


application = SessionMiddleware(app, store=store, secret=SECRET, record_client=True)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
