"""Sign in and out with Pyramid: `request.session`, flash messages, and its CSRF protection."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server
from wsgiref.types import WSGIApplication

from pyramid.config import Configurator
from pyramid.csrf import get_csrf_token
from pyramid.httpexceptions import HTTPForbidden, HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response

from prism_wsgi import SessionMiddleware, get_session

# A secret made here ends every session with this process: set SESSION_SECRET if that matters.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
USERS = {"ada", "grace"}

PAGE = """<!doctype html>
<title>Sessions in Pyramid</title>
<p>{messages}
<p>You are {user}.
<form method="post">
<input type="hidden" name="csrf_token" value="{token}">
<input name="user" value="ada">
<button formaction="/login">Sign in</button> <button formaction="/logout">Sign out</button>
</form>
"""


def show(request: Request) -> Response:
    session = request.session
    messages = " ".join(session.pop_flash())
    return Response(PAGE.format(messages=messages, user=session.user or "nobody", token=get_csrf_token(request)))


def login(request: Request) -> Response:
    user = request.POST.get("user")
    if user not in USERS:  # yours checks a password
        raise HTTPForbidden("Nobody of that name may sign in")
    request.session.login(user)
    request.session.flash(f"Welcome, {user}!")
    return HTTPSeeOther("/")


def logout(request: Request) -> Response:
    request.session.logout()
    request.session.flash("Come back soon.")  # written after logout(): the first of a new session
    return HTTPSeeOther("/")


def pyramid_app() -> WSGIApplication:
    with Configurator() as config:
        config.set_session_factory(get_session)
        config.set_default_csrf_options(require_csrf=True)
        for path, view, method in (("/", show, "GET"), ("/login", login, "POST"), ("/logout", logout, "POST")):
            config.add_route(path, path, request_method=method)
            config.add_view(view, route_name=path)
        app: WSGIApplication = config.make_wsgi_app()
    return app


application = SessionMiddleware(pyramid_app(), secret=SECRET)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
