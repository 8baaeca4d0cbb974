"""Servers as processes of their own, and what goes over the wire to them, byte for byte."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.keys import SECRET
from tests.support.served import ROOT, wait_until_serving
from tests.support.waiting import PATIENCE


@contextmanager
def listening(command: list[str], port: int, log: Path, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block ends; see that it ends by SIGTERM and that no traceback was printed."""
    with listening_and_failing(command, port, log, **environ) as process:
        yield process
    assert "Traceback" not in log.read_text(), log.read_text()


@contextmanager
def listening_and_failing(
    command: list[str], port: int, log: Path, **environ: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server that logs tracebacks of its own, as gunicorn does when it ends a worker."""
    environ = {
        **os.environ,
        "SITE_SECRET": SECRET,
    } | environ
    with (
        log.open("ab") as output,
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output) as process,
    ):
        try:
            wait_until_serving(process, port, log)
            yield process
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert environ["SITE_SECRET"] not in log.read_text()


@dataclass
class Answer:
    """What came back: the head as it stood, and everything behind it."""

    head: str
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(" ", 2)[1])

    def all(self, name: str) -> list[str]:
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        return [value.strip() for key, _, value in lines if key.lower() == name.lower()]

    @property
    def cookie(self) -> str:
        """The pair of the one cookie that was set."""
        (line,) = self.all("Set-Cookie")
        return line.partition(";")[0]


def ask(port: int, path: str, *lines: str, method: str = "GET") -> Answer:
    """Send one request with these header lines and read until the server closes."""
    with begin(port, path, *lines, method=method) as connection:
        data = b""
        while received := connection.recv(65536):
            data += received
    head, _, body = data.partition(b"\r\n\r\n")
    return Answer(head.decode("latin-1"), body)


def begin(port: int, path: str, *lines: str, method: str = "GET") -> socket.socket:
    """Send one request and leave the answer to be read."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""])
    connection.sendall(head.encode("latin-1"))
    return connection
