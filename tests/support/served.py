"""Programs served by a real process, and a browser that keeps their cookies."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

from tests.support.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]


@dataclass
class Page:
    """What the server answered, after redirects."""

    status: int
    headers: Message
    text: str

    def field(self, name: str) -> str:
        """Return the value of a form's field."""
        found = re.search(f'name="{name}" value="([^"]*)"', self.text)
        assert found, self.text
        return found[1]


class Browser:
    """One visitor, who follows redirects and keeps cookies."""

    def __init__(self, address: str) -> None:
        self.address = address
        # What browsers do: a Secure cookie goes to http://localhost, which nobody else can listen to.
        self.cookies = CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https")))
        self._opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str, **headers: str) -> Page:
        return self._open(Request(self.address + path, headers=headers))

    def post(self, path: str, **form: str) -> Page:
        return self._open(Request(self.address + path, data=urlencode(form).encode()))

    def _open(self, request: Request) -> Page:
        try:
            with self._opener.open(request, timeout=PATIENCE) as answer:
                return Page(answer.status, answer.headers, answer.read().decode())
        except HTTPError as error:
            with error:
                return Page(error.code, error.headers, error.read().decode())


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def served(program: Path, *, port: int, cwd: Path, **environ: str) -> Iterator[str]:
    """Run a program that serves `port`; yield its address, then end it by SIGTERM and see that it ends well."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port), **environ}
    output = cwd / f"served-{port}.txt"
    with (
        output.open("wb") as file,
        subprocess.Popen([sys.executable, program], cwd=cwd, env=environ, stdout=file, stderr=file) as process,
    ):
        try:
            wait_until_serving(process, port, output)
            yield f"http://localhost:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
            assert not re.search("Traceback|InsecureSecretWarning", output.read_text())
        finally:
            process.kill()


def wait_until_serving(process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
    """Wait until a program takes connections; say what it wrote when it ends instead."""

    def is_serving() -> bool:
        assert process.poll() is None, f"The program ended:\n{output.read_text()}"
        try:
            socket.create_connection(("localhost", port)).close()
        except OSError:
            return False
        return True

    eventually(is_serving, lambda: f"The program does not serve:\n{output.read_text()}", pause=0.02)
