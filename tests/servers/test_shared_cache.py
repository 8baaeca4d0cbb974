"""Two visitors through a real shared cache: neither ever gets the other's page or cookie."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from prism_wsgi import Session, SessionMiddleware
from tests.support import databases
from tests.support.keys import SECRET
from tests.support.served import Browser, free_port, wait_until_serving
from tests.support.waiting import PATIENCE

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

# As unwary as a cache can be made: it keeps what has a Set-Cookie, and what does not say how long.
CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=pages:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_cache pages; proxy_cache_key $request_uri; proxy_cache_valid 200 10m; proxy_ignore_headers Set-Cookie;
      add_header X-Cache-Status $upstream_cache_status always;
    }}
  }}
}}
"""

PUBLIC = ("Cache-Control", "public, max-age=600")


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Pages for everybody and for one visitor, with and without a word on caching."""
    session: Session = environ["prism.session"]
    page = environ["PATH_INFO"].strip("/")
    headers = [("Content-Type", "text/plain")]
    if page.startswith("public"):
        headers.append(PUBLIC)
    if page.startswith("login"):
        session.login(page.removeprefix("login-"))
    body = "for everybody"
    if page.endswith("of-visitor"):
        body = f"for {session.user}"
    elif page.endswith("counts"):
        session["n"] = session.get("n", 0) + 1
        body = f"for {session.user}: {session['n']}"
    start_response("200 OK", headers)
    return [body.encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def behind_nginx(application: WSGIApplication, folder: Path) -> Iterator[str]:
    """Serve an application behind a caching nginx; yield the address of that."""
    if NGINX is None:
        databases.unavailable("nginx", "the program is not installed (Debian: apt-get install nginx-light)")
    assert NGINX is not None
    with make_server("127.0.0.1", 0, application, _Server, _Quiet) as origin:
        serving = threading.Thread(target=origin.serve_forever)
        serving.start()
        port, output = free_port(), folder / "nginx.txt"
        configuration = folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, origin=origin.server_port))
        with (
            output.open("wb") as file,
            subprocess.Popen(
                [NGINX, "-p", folder, "-c", configuration], env=os.environ, stdout=file, stderr=file
            ) as nginx,
        ):
            try:
                wait_until_serving(nginx, port, output)
                yield f"http://127.0.0.1:{port}"
            finally:
                nginx.terminate()
                nginx.wait(PATIENCE)
                origin.shutdown()
                serving.join()


PAGES = ["/plain", "/public", "/of-visitor", "/public-of-visitor", "/counts", "/public-counts"]


def leaks(address: str) -> list[str]:
    """Let two visitors and a stranger read every page in turn; return what one got of another's."""
    visitors = {name: Browser(address) for name in ("None", "ann", "bob")}
    found = []
    cookies: dict[str, str] = {}
    for name in ("ann", "bob"):
        visitors[name].get(f"/login-{name}")
    for _ in range(3):
        for page in PAGES:
            for name, browser in visitors.items():
                answer = browser.get(page)
                if "for everybody" not in answer.text and not answer.text.startswith(f"for {name}"):
                    found.append(f"{name} read {answer.text!r} on {page}")
                for line in answer.headers.get_all("Set-Cookie", []):
                    value = line.partition(";")[0]
                    if cookies.setdefault(value, name) != name:
                        found.append(f"{name} got the cookie of {cookies[value]} on {page}")
    return found


@pytest.fixture
def middleware() -> SessionMiddleware:
    return SessionMiddleware(site, secret=SECRET, secure=False)


def test_nobody_gets_anothers_page_or_cookie_through_a_shared_cache(
    middleware: SessionMiddleware, tmp_path: Path
) -> None:
    with behind_nginx(middleware, tmp_path) as address:
        assert leaks(address) == []
        assert Browser(address).get("/public").headers["X-Cache-Status"] == "HIT"
        assert Browser(address).get("/public-of-visitor").headers["X-Cache-Status"] != "HIT"


def without(*names: str) -> Callable[[WSGIApplication], WSGIApplication]:
    """Take headers away from every answer, as a middleware that forgets them would."""

    def wrap(application: WSGIApplication) -> WSGIApplication:
        def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            def strip(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
                return start_response(status, [pair for pair in headers if pair[0] not in names])

            return application(environ, strip)

        return wrapped

    return wrap


def test_the_same_cache_betrays_a_site_whose_headers_do_not_protect_it(
    middleware: SessionMiddleware, tmp_path: Path
) -> None:
    with behind_nginx(without("Vary", "Cache-Control")(middleware), tmp_path) as address:
        found = leaks(address)
    assert any("read" in leak for leak in found)
    assert any("cookie" in leak for leak in found)
