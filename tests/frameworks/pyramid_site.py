"""The site in Pyramid, with its own CSRF protection."""

from wsgiref.types import WSGIApplication

from pyramid.config import Configurator
from pyramid.csrf import get_csrf_token
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response

from prism_wsgi import MemoryStore, Session


def make_app(store: MemoryStore, settings: dict[str, object]) -> WSGIApplication:
    """Return the site, with the sessions of those settings or else of a middleware around it."""

    def page(request: Request) -> Response:
        session: Session = request.session
        notes, messages = ", ".join(session.get("notes", [])), " ".join(session.pop_flash())
        token = get_csrf_token(request)
        return Response(
            f'user: {session.user}; notes: {notes}; messages: {messages}; <input name="csrf_token" value="{token}">'
        )

    def about(request: Request) -> Response:
        return Response(f"user: {request.session.user};")

    def login(request: Request) -> Response:
        request.session.login(request.POST["user"])
        request.session.flash(f"Welcome, {request.session.user}")
        return HTTPSeeOther("/")

    def add_note(request: Request) -> Response:
        request.session.setdefault("notes", []).append(request.POST["note"])
        return HTTPSeeOther("/")

    def logout(request: Request) -> Response:
        request.session.invalidate()
        return HTTPSeeOther("/")

    def logout_everywhere(request: Request) -> Response:
        store.destroy_all(request.session.user)
        return HTTPSeeOther("/")

    def fail(request: Request) -> Response:
        request.session["notes"].append("lost")
        raise LookupError

    def show_failure(error: Exception, request: Request) -> Response:
        return Response("Broken", status=500)

    with Configurator(settings=settings) as config:
        config.include("prism_wsgi.pyramid")
        config.set_default_csrf_options(require_csrf=True)
        pages = {"/": page, "/about": about}
        actions = {
            "/login": login,
            "/notes": add_note,
            "/logout": logout,
            "/logout-everywhere": logout_everywhere,
            "/fail": fail,
        }
        for path, view in (pages | actions).items():
            config.add_route(path, path)
            config.add_view(view, route_name=path, request_method="GET" if path in pages else "POST")
        config.add_exception_view(show_failure, context=LookupError)
        app: WSGIApplication = config.make_wsgi_app()
    return app
