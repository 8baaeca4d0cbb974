"""Browsers that visit the pages over WSGI, and a site that logs them in."""

import html
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.validate import validator

import webob

from prism_wsgi import SessionMiddleware, SessionStore, get_session
from prism_wsgi.testing import ManualClock
from tests.support.keys import SECRET

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)


def site_with(page: WSGIApplication, store: SessionStore, clock: ManualClock, **settings: Any) -> WSGIApplication:
    """Return a site that has a page, and logs in whom `?user=` names at /login."""

    def routes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = webob.Request(environ)
        if request.path_info == "/login":
            get_session(environ).login(request.GET["user"])
        elif request.path_info == "/impersonate":
            get_session(environ).impersonate(request.GET["user"])
        elif request.path_info != "/":
            return page(environ, start_response)
        user = get_session(environ).user or "nobody"
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [user.encode()]

    settings = {"store": store, "secret": SECRET, "secure": False, "clock": clock, "record_client": True, **settings}
    return SessionMiddleware(routes, **settings)


class Visitor:
    """One browser of a site: it keeps the cookie, and sends forms with the token of the page it saw last."""

    def __init__(self, site: WSGIApplication, user_agent: str = FIREFOX, address: str = "192.0.2.7") -> None:
        self._site = validator(site)
        self._headers = {"User-Agent": user_agent}
        self._address = address
        self.page = webob.Response()
        self.sent_location: str | None = None

    def get(self, path: str, **environ: Any) -> webob.Response:
        return self._send(webob.Request.blank(path, headers=self._headers, remote_addr=self._address, **environ))

    def post(self, path: str, **form: str) -> webob.Response:
        request = webob.Request.blank(path, POST=form, headers=self._headers, remote_addr=self._address)
        return self._send(request)

    def submit(self, path: str, **form: str) -> webob.Response:
        """Send a form with the token of the page that was seen last."""
        return self.post(path, csrf_token=self.values("csrf_token")[0], **form)

    def login(self, user: str) -> None:
        assert self.get(f"/login?user={quote(user)}").text == user

    @property
    def user(self) -> str:
        """Who the site says is logged in."""
        return str(self.get("/").text)

    def values(self, field: str) -> list[str]:
        """Return the values of the fields and buttons of a name, on the page that was seen last."""
        return [html.unescape(value) for value in re.findall(f'name="{field}" value="([^"]*)"', self.page.text)]

    def _send(self, request: webob.Request) -> webob.Response:
        request.is_body_seekable = False  # as with a server's input
        response = request.get_response(self._site)
        assert isinstance(response.body, bytes)  # reads and closes it
        self.sent_location = response.headers.get("Location")
        for header in response.headers.getall("Set-Cookie"):
            self._headers["Cookie"] = header.partition(";")[0]
        if response.content_type == "text/html":
            self.page = response
        return response
