"""Each WSGI server under load: every acknowledged change is kept, no answer is a 5xx, and workers come and go."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers.test_servers import Client
from tests.support.own_servers import folder_for
from tests.support.served import free_port
from tests.support.waiting import PATIENCE, eventually
from tests.support.wire import ask, begin, listening, listening_and_failing
from tests.support.wsgi_servers import (
    Command,
    bjoern,
    cheroot,
    granian,
    gunicorn,
    hypercorn,
    mod_wsgi,
    uvicorn,
    uwsgi,
)

CLIENTS, REQUESTS = 8, 25
GREENLET_CLIENTS, GREENLET_REQUESTS = 60, 8

WIRE_APP = "tests.servers.wire_app:application"
UWSGI_THREADS = ("--master", "--processes=2", "--enable-threads", "--threads=8")

SERVERS: dict[str, Callable[[int, Path], Command]] = {
    "gunicorn sync": gunicorn("--workers=3"),
    "gunicorn gthread": gunicorn("--workers=2", "--threads=8"),
    "gunicorn gthread preloaded": gunicorn("--workers=2", "--threads=8", "--preload"),
    "uwsgi": uwsgi(*UWSGI_THREADS),
    "uwsgi lazy": uwsgi(*UWSGI_THREADS, "--lazy-apps"),
    "mod_wsgi daemon": mod_wsgi(is_daemon=True),
    "mod_wsgi embedded": mod_wsgi(is_daemon=False),
    "cheroot": cheroot,
    "granian": granian,
    "bjoern": bjoern,
    "a2wsgi on uvicorn": uvicorn,
    "hypercorn": hypercorn,
}
# More clients than the store has connections: greenlets that wait for one must let the others go on.
GEVENT = ("--worker-class=gevent", "--workers=2")
GREENLET_SERVERS: dict[str, Callable[[int, Path], Command]] = {
    "gunicorn gevent": gunicorn(*GEVENT),
    "gunicorn gevent preloaded": gunicorn(*GEVENT, "--preload"),
    "uwsgi gevent": uwsgi("--master", "--processes=2", "--gevent=60", "--gevent-monkey-patch"),
    "uwsgi gevent in one process": uwsgi("--gevent=60", "--gevent-monkey-patch"),
}


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


def visit(server: str, url: str, log: Path, clients: int, requests: int) -> None:
    """Have clients visit a server, each comparing every answer with what was acknowledged before."""
    command, port = {**SERVERS, **GREENLET_SERVERS}[server], free_port()
    with folder_for(None) as folder:
        folder.chmod(0o755)
        with listening(command(port, folder), port, log, SITE_DATABASE_URL=url):
            visitors = [Client(f"http://127.0.0.1:{port}", f"client {number}") for number in range(clients)]
            for visitor in visitors[::2]:
                visitor.http.headers["Connection"] = "close"  # another process may take the next request
            with ThreadPoolExecutor(clients) as threads:
                for one in [threads.submit(each.visit, seed, requests) for seed, each in enumerate(visitors)]:
                    one.result()
            for visitor in visitors:
                visitor.ask("read")
                visitor.http.close()


@pytest.mark.parametrize("server", SERVERS)
def test_server_keeps_every_acknowledged_change_and_answers_no_5xx(
    server: str, empty_postgresql_url: str, tmp_path: Path
) -> None:
    visit(server, empty_postgresql_url, tmp_path / "log.txt", CLIENTS, REQUESTS)


@pytest.mark.parametrize("server", GREENLET_SERVERS)
def test_server_of_greenlets_serves_more_visitors_than_the_store_has_connections(
    server: str, url: str, tmp_path: Path
) -> None:
    visit(server, url, tmp_path / "log.txt", GREENLET_CLIENTS, GREENLET_REQUESTS)


class Counters:
    """Visitors who count in one session, until they are stopped; each request has a connection of its own."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.cookie = ask(port, "/count").cookie
        self.acknowledged = 1
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(clients)
        self._running = [self._threads.submit(self._count) for _ in range(clients)]

    def _count(self) -> int:
        number = 0
        while not self._stop.is_set():
            answer = ask(self.port, "/count", f"Cookie: {self.cookie}")
            assert answer.status == 200, answer
            number += 1
            self.acknowledged += 1  # only to see that it goes on: what is compared is summed up at the end
        return number

    def wait_for_more(self, number: int) -> None:
        wanted = self.acknowledged + number

        def has_come() -> bool:
            for one in self._running:
                if one.done():
                    one.result()
            return self.acknowledged >= wanted

        eventually(has_come, "the counting has stopped")

    def finish(self) -> int:
        """Return how many counts were acknowledged."""
        self._stop.set()
        with self._threads:
            return 1 + sum(one.result(PATIENCE) for one in self._running)


def counted(port: int, cookie: str) -> str:
    return ask(port, "/", f"Cookie: {cookie}").body.decode()


@pytest.mark.parametrize("options", [("--workers=2", "--threads=4"), ("--workers=2", "--threads=4", "--preload")])
def test_reloads_of_gunicorn_lose_nothing_that_was_acknowledged(
    options: tuple[str, ...], empty_postgresql_url: str, tmp_path: Path
) -> None:
    port = free_port()
    command = gunicorn(*options, app=WIRE_APP)(port, tmp_path)
    environ = {"SITE_DATABASE_URL": empty_postgresql_url, "SITE_FOLDER": str(tmp_path)}
    with listening(command, port, tmp_path / "log.txt", **environ) as process:
        counters = Counters(port)
        for _ in range(3):
            counters.wait_for_more(20)
            process.send_signal(signal.SIGHUP)
        counters.wait_for_more(60)
        total = counters.finish()
        assert f'"n": {total}' in counted(port, counters.cookie)


def test_workers_that_end_after_some_requests_lose_nothing_that_was_acknowledged(
    empty_postgresql_url: str, tmp_path: Path
) -> None:
    port = free_port()
    options = ("--workers=2", "--threads=4", "--max-requests=20", "--max-requests-jitter=10")
    command = gunicorn(*options, app=WIRE_APP)(port, tmp_path)
    environ = {"SITE_DATABASE_URL": empty_postgresql_url, "SITE_FOLDER": str(tmp_path)}
    with listening(command, port, tmp_path / "log.txt", **environ):
        counters = Counters(port)
        counters.wait_for_more(150)
        total = counters.finish()
        assert f'"n": {total}' in counted(port, counters.cookie)


@pytest.mark.parametrize("path", ["/write-and-hold", "/lock-and-hold"])
def test_worker_that_gunicorn_ends_for_its_slowness_saves_nothing_and_blocks_nobody(
    path: str, empty_postgresql_url: str, tmp_path: Path
) -> None:
    port = free_port()
    command = gunicorn("--workers=2", "--timeout=3", app=WIRE_APP)(port, tmp_path)
    environ = {"SITE_DATABASE_URL": empty_postgresql_url, "SITE_FOLDER": str(tmp_path)}
    with listening_and_failing(command, port, tmp_path / "log.txt", **environ):
        cookie = ask(port, "/count").cookie
        with begin(port, path, f"Cookie: {cookie}") as connection:
            held = tmp_path / "held"
            process = int(eventually(lambda: held.exists() and held.read_text()))
            answer = connection.recv(65536)  # until gunicorn has ended the worker
            assert answer == b"" or b" 500 " in answer.partition(b"\r\n")[0]
        eventually(lambda: not os.path.exists(f"/proc/{process}"), "the worker has not ended")
        assert '"n": 2' in ask(port, "/count", f"Cookie: {cookie}").body.decode()
