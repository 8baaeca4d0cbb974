"""Mount the ready pages in plain WSGI: devices, administration, time left and health."""

import os
import secrets
import signal
import threading
from collections.abc import Iterable
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import MemoryStore, Request, Response, SessionMiddleware, get_session
from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft

# A secret drawn here ends every session with this process: set SESSION_SECRET where that matters.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)

store = MemoryStore()
PAGES: dict[str, WSGIApplication] = {
    "/devices": DevicesPage(login_url="/"),
    "/admin": AdminPage(store, allow=lambda environ: get_session(environ).user == "grace"),
    "/time-left": TimeLeft(),
    "/health": HealthCheck(store),
}
FORM = """<!doctype html>
<title>Ready pages</title>
<p>You are {}.
<form method="post"><input name="user"><button>Log in</button></form>
"""


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] in PAGES:
        return PAGES[environ["PATH_INFO"]](environ, start_response)
    request = Request(environ)
    user = request.POST.get("user")
    if user in ("ada", "grace"):  # yours checks a password
        request.session.login(str(user))
    return Response(FORM.format(request.session.user or "nobody"))(environ, start_response)


application = SessionMiddleware(site, store=store, secret=SECRET, record_client=True)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
