"""Requests a second over real HTTP: gunicorn around each subject, loaded from a process of its own.

Run as a module it is that process: `python -m benchmarks.http_load URL PATH SECONDS CONNECTIONS`.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from benchmarks.databases import Places
from benchmarks.measure import BARE
from benchmarks.scenarios import bare_application
from benchmarks.subjects import subjects

CONNECTIONS = 16
SECONDS = 1.0  # a turn
SCENARIOS = {"untouched": "/untouched", "read": "/read", "write": "/write"}

_SUBJECT = "PRISM_BENCH_SUBJECT"


def application() -> WSGIApplication:
    """Return the application that the environment names; called by gunicorn's worker."""
    chosen = json.loads(os.environ[_SUBJECT])
    if chosen["name"] == BARE:
        return bare_application
    found = subjects({chosen["engine"]: chosen["place"]}, [chosen["name"]])
    return found[0].application


def requests_per_second(places: Places, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Return the median requests a second of every subject in each scenario, in turns of a second."""
    served = [(BARE, ""), *((subject.name, subject.engine) for subject in subjects(places, names))]
    rates: dict[tuple[str, str, str], list[float]] = {}
    with ExitStack() as stack:
        servers = {who: stack.enter_context(_gunicorn(*who, places.get(who[1], ""))) for who in served}
        cookies = {who: _cookie(port) for who, port in servers.items()}
        for _ in range(rounds):
            for scenario, path in SCENARIOS.items():
                for who, port in servers.items():
                    if who[0] != BARE or path == "/untouched":
                        rates.setdefault((*who, scenario), []).append(_load(port, path, cookies[who]))
    return [
        {"name": name, "engine": engine, "scenario": scenario, "per_second": statistics.median(measured)}
        for (name, engine, scenario), measured in rates.items()
    ]


@contextmanager
def _gunicorn(name: str, engine: str, place: str) -> Iterator[int]:
    """Serve one subject with one worker of four threads; a memory store has one process anyway."""
    port = _free_port()
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    command = [gunicorn, "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "4", "--log-level", "critical"]
    chosen = json.dumps({"name": name, "engine": engine, "place": place})
    server = subprocess.Popen(
        [*command, "benchmarks.http_load:application()"],
        env=os.environ | {_SUBJECT: chosen, "PYTHONWARNINGS": "ignore"},
    )
    try:
        _wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _cookie(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/fill")
    response = connection.getresponse()
    response.read()
    connection.close()
    return (response.getheader("Set-Cookie") or "").partition(";")[0]


def _load(port: int, path: str, cookie: str) -> float:
    command = [sys.executable, "-m", "benchmarks.http_load", str(port), path, str(SECONDS), str(CONNECTIONS), cookie]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _client(port: int, path: str, seconds: float, connections: int, cookie: str) -> float:
    """Keep `connections` busy for some seconds; return requests a second."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" + (f"Cookie: {cookie}\r\n" if cookie else "")
    request = (head + "\r\n").encode()
    ready = selectors.DefaultSelector()
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        ready.register(connection, selectors.EVENT_READ, bytearray())
    answered = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for key, _ in ready.select(timeout=1):
            assert isinstance(key.fileobj, socket.socket)
            received: bytearray = key.data
            received += key.fileobj.recv(65536)
            if _is_complete(received):
                answered += 1
                received.clear()
                key.fileobj.sendall(request)
    return answered / elapsed


def _is_complete(response: bytearray) -> bool:
    head, blank, body = response.partition(b"\r\n\r\n")
    if not blank:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if length is None:
        return body.endswith(b"0\r\n\r\n")  # chunked
    return len(body) >= int(length[1])


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
    port, path, seconds, connections, *rest = sys.argv[1:]
    print(_client(int(port), path, float(seconds), int(connections), rest[0] if rest else ""))
