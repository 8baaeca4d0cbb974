"""The shell in which a page's commands are typed, one after the other."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.documentation.pages import ROOT
from tests.support.waiting import PATIENCE, eventually

STAND_IN = Path(__file__).with_name("stand_in.py")
STOOD_IN_FOR = ("pip", "systemctl", "journalctl", "kubectl")
"""What would change this machine or another: each checks what it is told to do, and does nothing."""

_VARYING = (
    (r"^(Date|Server): .*", r"\1: ..."),
    (r"=[\w-]{43}\.\d{10}\.[\w-]{43};", "=...;"),
    (r"\b\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "(a moment)"),
    (r"\b[0-9a-f]{64}\b", "(an id)"),
    (r"\d+ batch(es)?, \d+ rows/s", "(so many) batches, (so many) rows/s"),
    (r"\d+:\d\d:\d\d", "(a time)"),
    (r"\bin \d+\.\d+s\b", "in (some) seconds"),
    (r"[ \t]+$", ""),
)


def without_what_varies(printed: str) -> str:
    """Replace what is different each time: moments, ids, cookies, speeds."""
    for pattern, replacement in _VARYING:
        printed = re.sub(pattern, replacement, printed, flags=re.M)
    return printed.strip("\n")


class Shell:
    """One bash, whose variables and background jobs last as long as the page; `port` is where the page serves."""

    def __init__(self, directory: Path, port: int | None, **environ: str) -> None:
        self._port = port
        self._background = directory / "background.txt"
        self._background.touch()
        self._bash = subprocess.Popen(
            ["bash", "--norc", "-s"],
            cwd=directory,
            env=_environment(_programs(directory.with_name(f"{directory.name}-bin")), environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """Type a command, wait for its end, and return what it printed. It may fail only by saying so: `|| true`."""
        if command.endswith("&"):
            self._start(command)
            return ""
        printed, code = self._type(f"{{ {command}\n}} <<< y")  # for those who ask first
        assert code == 0, f"{command}\nexited with {code}\n{printed}"
        if command.startswith("kill "):
            self._wait_until(lambda: not self._is_serving(), f"{command} did not end what serves")
        return printed

    def close(self) -> None:
        """End what still runs, and see that nothing broke in the background."""
        os.killpg(self._bash.pid, signal.SIGTERM)
        try:
            self._bash.communicate(timeout=PATIENCE)
            self._wait_until(lambda: not self._is_serving(), "what the page started does not end")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._bash.pid, signal.SIGKILL)
        assert not re.search("Traceback|InsecureSecretWarning", self._background.read_text()), (
            self._background.read_text()
        )

    def _start(self, command: str) -> None:
        said = self._background.stat().st_size
        self._type(f"{{ {command}\n}} >> {self._background} 2>&1 < /dev/null")
        process = int(self._type("echo $!")[0])
        if self._port is None:
            self._wait_until(lambda: self._background.stat().st_size > said, f"{command} prints nothing", process)
        else:
            self._wait_until(self._is_serving, f"{command} does not serve", process)

    def _type(self, line: str) -> tuple[str, int]:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        end = f"end-of-command-{time.monotonic_ns()}"
        self._bash.stdin.write(f'{line}\necho "{end} $?"\n')
        self._bash.stdin.flush()
        printed = ""
        for one in self._bash.stdout:
            before, found, code = one.partition(end)
            printed += before
            if found:
                return printed, int(code)
        raise AssertionError(f"The shell ended at {line}\n{printed}")

    def _is_serving(self) -> bool:
        if self._port is None:
            return False
        try:
            socket.create_connection(("localhost", self._port)).close()
        except OSError:
            return False
        return True

    def _wait_until(self, done: Callable[[], bool], complaint: str, process: int | None = None) -> None:
        def explained() -> str:
            return f"{complaint}\n{self._background.read_text()}"

        def is_done() -> bool:
            if done():
                return True
            assert process is None or _is_running(process), explained()
            return False

        eventually(is_done, explained, pause=0.02)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _programs(directory: Path) -> Path:
    """Make a directory of programs: the command line of this checkout, and those that are stood in for."""
    directory.mkdir()
    commands = {name: f'"{STAND_IN}" {name}' for name in STOOD_IN_FOR}
    commands["prism-wsgi"] = "-m prism_wsgi.cli"
    for name, arguments in commands.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        program.chmod(0o755)
    (directory / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal: no meter
    return directory


def _environment(programs: Path, environ: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST", "PRISM"))}
    ours = {"PATH": path, "CURL_HOME": str(programs), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**kept, **ours, "COLUMNS": "100", **environ}
