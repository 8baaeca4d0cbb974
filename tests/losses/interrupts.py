"""Interrupt requests in gunicorn's workers at random moments; then look for mixed-up answers and lost connections.

Each visitor has a session under their own name, and counts in it. None may ever see another's row, none may lose a
count that was acknowledged, and in the end each worker must have as many connections to give as in the beginning.
"""

import json
import random  # a run can be repeated from its seed
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import migrate
from tests.support import databases
from tests.support.served import free_port
from tests.support.waiting import eventually
from tests.support.wire import ask, listening

ENGINES = ("redis", "postgresql")
WORKERS = 2
VISITORS = 4
MAX_CONNECTIONS = 3
"""Few, so that it shows soon when one of them is lost."""

ACTIONS = {"/": 50, "/count": 45, "/regenerate": 5}


@dataclass
class Figures:
    """Counts of the visitors' requests, and of the faults that they found."""

    engine: str
    seed: int
    requests: int = 0
    interrupted: int = 0
    logins: int = 0
    counted: int = 0
    workers: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.engine}: {self.requests} requests, {self.interrupted} of them interrupted; {self.logins} logins, "
            f"{self.counted} counts acknowledged; {len(self.workers)} workers, {MAX_CONNECTIONS} connections in each "
            f"as before; faults: {len(self.faults)} (seed {self.seed})"
        )


class Visitor:
    """A browser that knows who it is, and what its session must hold."""

    def __init__(self, name: str, port: int, chance: random.Random) -> None:
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self._name = name
        self._port = port
        self._chance = chance
        self._cookie: str | None = None
        self._least = self._most = 0
        """How many counts the session must hold, having shown them, and how many it was asked for."""

    def visit_until(self, end: float) -> None:
        """Make one request after another."""
        while time.monotonic() < end:
            if self._cookie is None:
                self._ask("/login")
            else:
                (path,) = self._chance.choices(list(ACTIONS), list(ACTIONS.values()))
                self._ask(path)

    def _ask(self, path: str) -> None:
        lines = [] if self._cookie is None else [f"Cookie: {self._cookie}"]
        answer = ask(self._port, f"{path}?{self._name}", *lines)
        self.answers[path] += 1
        self._most += path == "/count"
        if answer.status == 500:
            self._note_interruption(path)
            return
        if answer.status != 200:
            self.faults.append(f"{self._name}: {path} was answered {answer.status}: {answer.body!r}")
            return
        seen = json.loads(answer.body)
        if answer.all("Set-Cookie"):
            self._cookie = answer.cookie
        if path == "/login":
            self._least = self._most = 0
        if (seen["user"], seen["name"]) != (self._name, self._name):
            self.faults.append(f"{self._name}: {path} showed the session of {seen}")
            self._cookie = None
        elif not self._least + (path == "/count") <= seen["n"] <= self._most:
            self.faults.append(f"{self._name}: {path} showed {seen['n']}, not {self._least} to {self._most}")
            self._cookie = None
        else:
            self.answers["counted"] += path == "/count"
            self._least = seen["n"]

    def _note_interruption(self, path: str) -> None:
        self.answers["interrupted"] += 1
        if path not in ("/", "/count"):
            self._cookie = None  # the session may have moved, and the new cookie went down with the answer


def interrupt(engine: str, *, seconds: float, seed: int) -> Figures:
    """Let visitors use a site whose requests are interrupted; return what they found."""
    figures = Figures(engine, seed)
    with tempfile.TemporaryDirectory() as folder, store_url(engine) as url:
        port, log = free_port(), Path(folder) / "gunicorn.txt"
        command = [sys.executable, "-m", "gunicorn", f"--workers={WORKERS}", f"--bind=127.0.0.1:{port}"]
        command += ["--worker-class=sync", "--log-level=warning", "tests.losses.interrupted_app:application"]
        with listening(command, port, log, SITE_STORE=url, SITE_CONNECTIONS=str(MAX_CONNECTIONS)):
            figures.workers = set(pools(port, figures))
            visitors = [
                Visitor(f"visitor-{number}", port, random.Random(f"{seed}-{number}")) for number in range(VISITORS)
            ]
            end = time.monotonic() + seconds
            with ThreadPoolExecutor(VISITORS) as threads:
                for done in [threads.submit(one.visit_until, end) for one in visitors]:
                    done.result()
            if set(pools(port, figures)) != figures.workers:
                figures.faults.append("a worker ended, and another took its place")
        for one in visitors:
            figures.faults += one.faults
            figures.interrupted += one.answers["interrupted"]
            figures.logins += one.answers["/login"]
            figures.counted += one.answers["counted"]
            figures.requests += sum(one.answers[path] for path in (*ACTIONS, "/login"))
        if figures.faults:
            figures.faults.append(f"the server's log:\n{log.read_text()}")
    return figures


def pools(port: int, figures: Figures) -> dict[int, int]:
    """Ask every worker how many connections it has to give."""
    found: dict[int, int] = {}

    def are_all_found() -> bool:
        answer: dict[str, Any] = json.loads(ask(port, "/pool").body)
        found[answer["pid"]] = answer["free"]
        return len(found) == WORKERS

    eventually(are_all_found)
    figures.faults += [
        f"worker {pid} has {free} connections to give, not {MAX_CONNECTIONS}"
        for pid, free in found.items()
        if free != MAX_CONNECTIONS
    ]
    return found


@contextmanager
def store_url(engine: str) -> Iterator[str]:
    """Yield the URL of an empty store."""
    settings = f"max_connections={MAX_CONNECTIONS}&timeout=30"
    if engine == "redis":
        with databases.redis_prefix() as prefix:
            yield f"{databases.REDIS}?prefix={prefix}&{settings}"
    else:
        with databases.postgresql_server() as server:
            url = server.fresh_schema()
            migrate.upgrade(url)
            yield f"{url}{'&' if '?' in url else '?'}{settings}"


def run(*, seconds: float, seed: int) -> int:
    """Interrupt requests on each engine, and print what came of it; return 1 where there were faults."""
    faults = 0
    for engine in ENGINES:
        try:
            figures = interrupt(engine, seconds=seconds, seed=seed)
        except pytest.skip.Exception as left_out:
            print(f"{engine}: left out: {left_out}", flush=True)
            continue
        print(figures, *figures.faults, sep="\n  ", flush=True)
        faults += len(figures.faults)
    return 1 if faults else 0
