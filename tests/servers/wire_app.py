"""The application of the tests on the wire: streams, files, pages that end badly."""

import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore
from prism_wsgi.request import atomic

FOLDER = Path(os.environ["SITE_FOLDER"])
atomic.HOLD_SECONDS = 0.5


class SentByTheKernel:
    """A file that a server can send by its descriptor only: reading it is an error."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("the file was read")

    def close(self) -> None:
        (FOLDER / "file-closed").touch()
        self._file.close()


def stream(session: Session) -> Iterator[bytes]:
    """Send without end; what is changed when the client has gone must be saved."""
    try:
        while True:
            yield b"x" * 65536
    finally:
        session["late"] = session.get("late", 0) + 1


def hold() -> None:
    """Say which process this is, and never come back."""
    (FOLDER / "held").write_text(str(os.getpid()))
    signal.pause()


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session: Session = environ["prism.session"]
    page = environ["PATH_INFO"]
    if page == "/file":
        path = FOLDER / "large.bin"
        start_response("200 OK", [("Content-Length", str(path.stat().st_size))])
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](SentByTheKernel(path), 65536)
        return body
    if page == "/stream":
        session["n"] = session.get("n", 0)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(session)
    if page == "/unchanged":
        session["n"] = session.get("n", 0)
        start_response("304 Not Modified", [("ETag", '"1"')])
        return []
    if page == "/count":
        with session.atomic():
            session["n"] = session.get("n", 0) + 1
    elif page == "/write-and-hold":
        session["n"] = "never acknowledged"
        hold()
    elif page == "/lock-and-hold":
        with session.atomic():
            session["n"] = "never acknowledged"
            hold()
    answer = {"data": dict(session), "pid": os.getpid(), "cookie_bytes": len(environ.get("HTTP_COOKIE", ""))}
    content = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


store = SQLAlchemyStore(os.environ["SITE_DATABASE_URL"])
store.load("0" * 64)  # before the server forks
application = SessionMiddleware(site, store=store, secret=os.environ["SITE_SECRET"], secure=False)
