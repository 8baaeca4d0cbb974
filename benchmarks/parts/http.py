"""Requests a second over real HTTP: gunicorn around each subject, loaded from another process.

Run as a module it is that process: `python -m benchmarks.parts.http URL PATH SECONDS CONNECTIONS`.
"""

import http.client
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from wsgiref.types import WSGIApplication

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.parts.requests import BARE
from benchmarks.report.figures import Figures
from benchmarks.subjects.floor.middleware import FloorMiddleware
from benchmarks.subjects.floor.subjects import shared_floor
from benchmarks.subjects.registry import subjects
from benchmarks.subjects.scenarios import bare_application

CONNECTIONS = 16
THREADS = 4
SECONDS = 1.0  # a turn
SCENARIOS = {"first_visit": "/untouched", "read": "/read", "write": "/write"}

_SUBJECT = "PRISM_BENCH_SUBJECT"


def measure(places: Places, plan: Plan) -> Figures:
    """Load every chosen subject through gunicorn."""
    return {"http": requests_per_second(places, plan.subjects, plan.rounds)}


def application() -> WSGIApplication:
    """Return the application that the environment names; called by gunicorn's worker."""
    chosen = json.loads(os.environ[_SUBJECT])
    if chosen["name"] == BARE:
        return bare_application
    (found,) = subjects({chosen["engine"]: chosen["place"]}, [chosen["name"]])
    if isinstance(found.application, FloorMiddleware) and chosen["engine"] != "memory":
        found.application.store = shared_floor(chosen["engine"], chosen["place"], THREADS)
    return found.application


def requests_per_second(places: Places, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Return the median requests a second of every subject in each scenario, in turns of a second."""
    served = [(BARE, ""), *((subject.name, subject.engine) for subject in subjects(places, names))]
    rates: dict[tuple[str, str, str], list[float]] = {}
    failures: Counter[tuple[str, str, str]] = Counter()
    with ExitStack() as stack:
        servers = {who: stack.enter_context(_gunicorn(*who, places.get(who[1], ""))) for who in served}
        for _ in range(rounds):
            for scenario, path in SCENARIOS.items():
                for who, port in servers.items():
                    if who[0] != BARE or path == "/untouched":
                        rate, failed = _load(port, path)
                        rates.setdefault((*who, scenario), []).append(rate)
                        failures[*who, scenario] += failed
    return [
        {
            "name": name,
            "engine": engine,
            "scenario": scenario,
            "per_second": statistics.median(measured),
            "failed": failures[name, engine, scenario],
        }
        for (name, engine, scenario), measured in rates.items()
    ]


@contextmanager
def _gunicorn(name: str, engine: str, place: str) -> Iterator[int]:
    """Serve one subject with one worker of four threads; a memory store has one process anyway."""
    port = _free_port()
    command = f"-m gunicorn --bind 127.0.0.1:{port} --workers 1 --threads {THREADS} --log-level critical"
    chosen = json.dumps({"name": name, "engine": engine, "place": place})
    server = subprocess.Popen(
        [sys.executable, *command.split(), "benchmarks.parts.http:application()"],
        env=os.environ | {_SUBJECT: chosen, "PYTHONWARNINGS": "ignore"},
    )
    try:
        _wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _load(port: int, path: str) -> tuple[float, int]:
    command = [sys.executable, "-m", "benchmarks.parts.http", str(port), path, str(SECONDS), str(CONNECTIONS)]
    answered, failed = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout.split()
    return float(answered), int(failed)


class _Browser:
    """One connection with one session, which sends the same request again and again."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        cookie = "" if path == "/untouched" else self._stored_session()
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" + (f"Cookie: {cookie}\r\n" if cookie else "")
        self._request = (head + "\r\n").encode()
        self._received = bytearray()

    def connect(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", self._port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        self._received.clear()
        self.connection.sendall(self._request)

    def receive(self) -> bool | None:
        """Take what has come; return whether the answer was a success, None while it is not complete."""
        piece = self.connection.recv(65536)
        self._received += piece
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        is_complete = len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")  # or else chunked
        if piece and not is_complete:
            return None
        return head.startswith(b"HTTP/1.1 200")

    def _stored_session(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request("GET", "/fill")
        response = connection.getresponse()
        response.read()
        connection.close()
        return (response.getheader("Set-Cookie") or "").partition(";")[0]


def _client(port: int, path: str, seconds: float, connections: int) -> tuple[float, int]:
    """Keep `connections` busy for some seconds; return successes a second, and how many requests failed."""
    ready = selectors.DefaultSelector()
    # All have their sessions before the first connects: a silent connection keeps one of gunicorn's threads waiting.
    for browser in [_Browser(port, path) for _ in range(connections)]:
        browser.connect()
        ready.register(browser.connection, selectors.EVENT_READ, browser)
        browser.send()
    answered = failed = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for key, _ in ready.select(timeout=1):
            browser = key.data
            succeeded = browser.receive()
            if succeeded is None:
                continue
            if succeeded:
                answered += 1
            else:
                failed += 1
                ready.unregister(browser.connection)
                browser.connection.close()
                browser.connect()
                ready.register(browser.connection, selectors.EVENT_READ, browser)
            browser.send()
    return answered / elapsed, failed


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("gunicorn did not start")


if __name__ == "__main__":
    port, path, seconds, connections = sys.argv[1:]
    print(*_client(int(port), path, float(seconds), int(connections)))
