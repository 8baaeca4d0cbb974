"""The site that `prism-wsgi demo` serves: the shop, its experiments, and the ready pages beside them."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from textwrap import dedent
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from jinja2 import Environment, PackageLoader, StrictUndefined

from prism_wsgi.cli.demo import race, shop
from prism_wsgi.cli.demo.theft import Thief
from prism_wsgi.events import SessionObserver
from prism_wsgi.http import Request, Response
from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft
from prism_wsgi.stores.base import SessionStore

COOKIE_NAME = "prism_demo"  # browsers do not tell ports apart: not a name that your application may have
TTL = 7 * 24 * 3600  # seconds
MAX_FORM = 16 * 1024  # bytes

# Nothing from elsewhere, nothing inline, in nobody's frame.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FILES = {"/demo.css": "text/css", "/race.js": "text/javascript", "/favicon.ico": "image/svg+xml"}
_HERE = files("prism_wsgi.cli.demo")

Page = Callable[[Request], dict[str, Any]]
Action = Callable[[Request], str | None]


def ready_pages(store: SessionStore) -> dict[str, WSGIApplication]:
    """Return the pages of `prism_wsgi.pages` by their paths, in the look of the shop."""
    templates = str(_HERE / "templates")
    return {
        "/devices": DevicesPage(login_url=".", templates=templates),
        "/admin": AdminPage(store, allow=lambda environ: True, templates=templates),  # noqa: ARG005, one person's
        "/time-left": TimeLeft(warn_before=60),
        "/health": HealthCheck(store),
    }


class DemoSite:
    """A small shop whose pages show what its sessions do; a WSGI application."""

    def __init__(self, store: SessionStore, secret: str, observers: Sequence[SessionObserver] = ()) -> None:
        self._ready_pages = ready_pages(store)
        thief = Thief(self, COOKIE_NAME)
        self._pages: dict[str, Page] = {"/": shop.show, "/race": race.show, "/theft": thief.show}
        self._actions: dict[str, tuple[Action, str]] = {  # and the page that is shown afterwards
            "/login": (shop.log_in, "/"),
            "/logout": (shop.log_out, "/"),
            "/logout-elsewhere": (shop.log_out_elsewhere, "/"),
            "/basket/add": (shop.add, "/"),
            "/basket/empty": (shop.empty, "/"),
            "/race/clear": (race.clear, "/race"),
            "/race/write": (race.write, "/race"),
            "/race/slow": (race.write_slowly, "/race"),
            "/theft/id": (thief.try_id, "/theft"),
            "/theft/logout": (thief.try_cookie_after_logout, "/theft"),
        }
        self._templates = Environment(
            loader=PackageLoader("prism_wsgi.cli.demo"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {"code_of": _code_of, "shop": shop, "race": race, "thief": Thief}
        self._site = SessionMiddleware(
            self._route,
            store=store,
            secret=secret,
            cookie_name=COOKIE_NAME,
            ttl=TTL,
            # Plain HTTP: Safari, and curl before 7.79, drop a Secure cookie even from 127.0.0.1.
            secure=False,
            record_client=True,
            observers=observers,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._site(environ, start_response)

    def _route(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        ready = self._ready_pages.get(environ["PATH_INFO"])
        if ready is not None:
            return ready(environ, start_response)
        try:
            response = self._respond(Request(environ))
        except (UnicodeError, ValueError):
            response = _text("This is no request that the demo understands", 400)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        path, is_read = request.path_info, request.method in ("GET", "HEAD")
        if path in self._pages and is_read:
            return self._show(request, self._pages[path])
        if path in self._actions and request.method == "POST":
            return self._act(request, *self._actions[path])
        if path in _FILES and is_read:
            content = (_HERE / "static" / path.removeprefix("/")).read_bytes()
            return Response(content, content_type=_FILES[path])
        if path == "/visits" and is_read:
            return _text(f"Visit {shop.count_visit(request.session)}\n")
        if path == "/who" and is_read:
            request.session.passive = True  # to ask is no use of the session
            return _text(request.session.user or "nobody")
        is_known = path in self._pages or path in self._actions
        return _text("The demo does not answer this method here", 405) if is_known else _text("No such page", 404)

    def _show(self, request: Request, page: Page) -> Response:
        session = request.session
        name = request.path_info.removeprefix("/") or "shop"
        values = {"session": session, "messages": session.pop_flash(), **page(request)}
        body = self._templates.get_template(f"{name}.html").render(values)
        return Response(body, content_type="text/html", charset="UTF-8")

    def _act(self, request: Request, action: Action, page: str) -> Response:
        session = request.session
        if (request.content_length or 0) > MAX_FORM:
            return _text("This is more than the demo takes", 413)
        if not session.is_csrf_token(request.POST.get("csrf_token")):
            return _text("This form is out of date: go back, reload the page and send it again", 403)
        try:
            message = action(request)
        except KeyError as error:
            return _text(f"The form lacks {error}, or the demo does not know what it says there", 400)
        if message is not None:
            session.flash(message)
        # 303: the browser fetches the page anew, and reloading that repeats nothing.
        return Response(status=303, location=request.script_name + page)


def _code_of(function: Callable[..., Any]) -> str:
    """Return the code behind a page, which the page shows."""
    return dedent(inspect.getsource(function))


def _text(message: str, status: int = 200) -> Response:
    return Response(message, status=status, content_type="text/plain", charset="UTF-8")
