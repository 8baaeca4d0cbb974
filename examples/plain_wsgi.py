"""Remember where a visitor has been, in plain WSGI: serve this, and browse http://localhost:8000/anywhere."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import SessionMiddleware, get_session

# A secret made here ends every session with this process: set SESSION_SECRET if that matters.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)


def trail(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    places = get_session(environ).setdefault("places", [])
    places.append(environ["PATH_INFO"])  # a change inside a value is saved too
    del places[:-5]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Your last places:\n", *(f"{place}\n".encode("latin-1") for place in places)]


application = SessionMiddleware(trail, secret=SECRET)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
