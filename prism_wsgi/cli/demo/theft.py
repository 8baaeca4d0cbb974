"""The theft: what a thief of the database, or of an old cookie, can open."""

from typing import Any
from wsgiref.types import WSGIApplication

from prism_wsgi.http import Request


class Thief:
    """Visits a site with what was stolen from others; `cookie_name` is the cookie that a thief would send."""

    def __init__(self, site: WSGIApplication, cookie_name: str) -> None:
        self._site = site
        self._cookie_name = cookie_name

    def show(self, request: Request) -> dict[str, Any]:
        """Return what the page shows: all that the store knows of a session's name."""
        return {"id": request.session.id}

    def try_id(self, request: Request) -> str:
        """Try the id, which the store and the log know, and the cookie, which only the browser has."""
        cookie = request.cookies[self._cookie_name]
        return f"The id opens: {self.opened(request.session.id)}. The cookie opens: {self.opened(cookie)}."

    def try_cookie_after_logout(self, request: Request) -> str:
        """Log out, then try the cookie that was good until now."""
        cookie = request.cookies[self._cookie_name]
        before = self.opened(cookie)
        request.session.logout()
        return f"Before you logged out, the cookie opened: {before}. Now it opens: {self.opened(cookie)}."

    def opened(self, cookie: str) -> str:
        """Ask the site who it takes a browser with this cookie for."""
        request = Request.blank("/who", headers={"Cookie": f"{self._cookie_name}={cookie}"})
        return request.get_response(self._site).text
