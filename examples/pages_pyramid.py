"""Mount the ready pages in Pyramid: devices, administration, time left and health, one line each."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server
from wsgiref.types import WSGIApplication

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.wsgi import wsgiapp

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
admin = AdminPage(store, allow=lambda environ: get_session(environ).user == "grace")


def show(request: Request) -> Response:
    if request.POST.get("user") in ("ada", "grace"):  # yours checks a password
        request.session.login(request.POST["user"])
    return Response(FORM.format(request.session.user or "nobody"))


def pyramid_app() -> WSGIApplication:
    with Configurator() as config:
        config.set_session_factory(get_session)
        for name in ("devices", "admin", "time-left", "health"):
            config.add_route(name, f"/{name}")
        config.add_view(wsgiapp(DevicesPage(login_url="/")), route_name="devices")
        config.add_view(wsgiapp(admin), route_name="admin")
        config.add_view(wsgiapp(TimeLeft()), route_name="time-left")
        config.add_view(wsgiapp(HealthCheck(store)), route_name="health")
        config.add_route("show", "/")
        config.add_view(show, route_name="show")
        app: WSGIApplication = config.make_wsgi_app()
    return app


application = SessionMiddleware(pyramid_app(), store=store, secret=SECRET, record_client=True)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
