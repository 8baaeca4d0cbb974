"""Keep a preference in a separate cookie, which scripts on the page can read: no session is needed for that."""

import os
import signal
import threading
from collections.abc import Iterable
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import Cookie, InvalidCookie, Request, Response, SameSite

YEAR = 365 * 24 * 3600  # seconds


def show(request: Request) -> Response:
    cookies = request.cookies
    return Response.json({"theme": cookies.get("theme", "light"), "lang": cookies.get("lang", "en")})


def choose(request: Request) -> Response:
    theme = str(request.POST.get("theme", "light"))
    try:
        cookie = Cookie("theme", theme, max_age=YEAR, secure=True, httponly=False, samesite=SameSite.LAX)
    except InvalidCookie as error:
        return Response.json({"error": str(error)}, status=400)
    response = Response.json({"theme": theme})
    response.set_cookie(cookie)
    return response


VIEWS = {("GET", "/preferences"): show, ("POST", "/preferences"): choose}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    request = Request(environ)
    view = VIEWS.get((request.method, request.path_info))
    response = view(request) if view else Response("Try /preferences\n", status=404, content_type="text/plain")
    return response(environ, start_response)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
