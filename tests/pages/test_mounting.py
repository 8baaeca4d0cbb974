"""The pages mounted in each framework, over HTTP."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from prism_wsgi import MemoryStore, SessionMiddleware, get_session
from prism_wsgi.pages import DevicesPage
from tests.support.keys import SECRET
from tests.support.served import Browser
from tests.support.serving import serving

pytestmark = pytest.mark.whole

SETTINGS: dict[str, Any] = {"secret": SECRET, "secure": False, "record_client": True}


def plain() -> WSGIApplication:
    devices = DevicesPage()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/devices":
            return devices(environ, start_response)
        if environ["PATH_INFO"] == "/login":
            get_session(environ).login("ada")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [(get_session(environ).user or "nobody").encode()]

    return SessionMiddleware(app, store=MemoryStore(), **SETTINGS)


def pyramid() -> WSGIApplication:
    from pyramid.config import Configurator
    from pyramid.response import Response
    from pyramid.wsgi import wsgiapp

    def login(request: Any) -> Response:
        request.session.login("ada")
        return Response("ada")

    with Configurator() as config:
        config.set_session_factory(get_session)
        config.set_default_csrf_options(require_csrf=True)
        for name in ("devices", "login", "who"):
            config.add_route(name, f"/{name}".replace("who", ""))
        config.add_view(wsgiapp(DevicesPage()), route_name="devices")
        config.add_view(login, route_name="login")
        config.add_view(lambda request: Response(request.session.user or "nobody"), route_name="who")
        app = config.make_wsgi_app()
    return SessionMiddleware(app, store=MemoryStore(), **SETTINGS)


def bottle() -> WSGIApplication:
    from bottle import Bottle, request

    app = Bottle()
    app.mount("/devices", DevicesPage())

    def login() -> str:
        get_session(request).login("ada")
        return "ada"

    app.get("/login")(login)
    app.get("/")(lambda: get_session(request).user or "nobody")
    return SessionMiddleware(app, store=MemoryStore(), **SETTINGS)


def flask() -> WSGIApplication:
    from flask import Flask

    from prism_wsgi.flask import PrismSessions, session

    app = Flask(__name__)
    app.config.update(SECRET_KEY=SECRET, SESSION_COOKIE_SECURE=False)
    PrismSessions(app, store=MemoryStore(), record_client=True)
    devices = DevicesPage()
    app.add_url_rule("/devices", "devices", lambda: devices, methods=["GET", "POST"])

    def login() -> str:
        session.login("ada")
        return "ada"

    app.add_url_rule("/login", "login", login)
    app.add_url_rule("/", "who", lambda: session.user or "nobody")
    return app


@pytest.mark.filterwarnings("ignore:(Deprecated call to .)?pkg_resources")
@pytest.mark.parametrize("make", [plain, pyramid, bottle, flask], ids=lambda make: make.__name__)
def test_devices_page_mounts_in_a_line(make: Any) -> None:
    with serving(make()) as address:
        desk, phone = Browser(address), Browser(address)
        for one in (phone, desk):
            one.get("/login")
        page = desk.get("/devices")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert desk.get("/devices?file=pages.css").headers["Content-Type"] == "text/css; charset=utf-8"
        ended = desk.post("/devices", csrf_token=page.field("csrf_token"), end=page.field("end"))
        assert "The device is logged out." in ended.text
        assert (desk.get("/").text, phone.get("/").text) == ("ada", "nobody")
