"""Real servers, real clients: every acknowledged change is there afterwards, and nobody sees another's."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from prism_wsgi import SQLAlchemyStore
from tests.support.keys import SECRET
from tests.support.served import ROOT, free_port, wait_until_serving
from tests.support.waiting import PATIENCE

CLIENTS = 8
REQUESTS = 40  # of each client

GUNICORN = ["gunicorn", "--workers=4", "--threads=4", "--worker-class=gthread", "--keep-alive=10"]
SERVERS = {
    "gunicorn": [*GUNICORN, "tests.servers.served_app:application"],
    "gunicorn preloaded": [*GUNICORN, "--preload", "tests.servers.served_app:application"],
    "waitress": ["waitress", "--threads=16", "tests.servers.served_app:application"],
}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@contextmanager
def serving(server: str, url: str, log: Path) -> Iterator[str]:
    """Run a server; yield its address, then end it by SIGTERM and see that nothing went wrong in it."""
    port = free_port()
    module, *options = SERVERS[server]
    bind = f"--bind=127.0.0.1:{port}" if module == "gunicorn" else f"--listen=127.0.0.1:{port}"
    environ = {
        **os.environ,
        "SITE_DATABASE_URL": url,
        "SITE_SECRET": SECRET,
    }
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", module, bind, *options], cwd=ROOT, env=environ, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_until_serving(process, port, log)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()


@dataclass
class Client:
    """A visitor who remembers what the site has acknowledged, and compares at every answer."""

    address: str
    name: str
    http: requests.Session = field(default_factory=requests.Session)
    user: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)

    def ask(self, action: str, **query: str) -> None:
        answer = self.http.get(f"{self.address}/{action}", params=query, timeout=PATIENCE)
        assert answer.status_code == 200, (self.name, action, answer.status_code, answer.text)
        page = answer.json()
        assert (page["user"], page["data"]) == (self.user, self.data), (self.name, action)
        self.processes.add(page["pid"])

    def step(self, number: int, chance: random.Random) -> None:
        value = f"{self.name}'s {number}"
        action = chance.choices(["read", "put", "append", "count", "login", "logout"], [40, 25, 10, 15, 6, 4])[0]
        key = f"key {chance.randrange(5)}"
        if action == "put":
            self.data[key] = value
        elif action == "append":
            self.data["list"] = [*self.data.get("list", []), value]
        elif action == "count":
            self.data["n"] = self.data.get("n", 0) + 1
        elif action == "login":
            if self.user is not None:
                self.data = {}  # what another user had stays behind
            self.user = value
        elif action == "logout":
            self.user, self.data = None, {}
        self.ask(action, key=key, value=value)

    def visit(self, seed: int, requests: int = REQUESTS) -> None:
        chance = random.Random(seed)
        for number in range(requests):
            self.step(number, chance)


@pytest.mark.parametrize("server", SERVERS)
def test_every_acknowledged_change_is_kept_and_nobody_sees_anothers(server: str, url: str, tmp_path: Path) -> None:
    with serving(server, url, tmp_path / "log.txt") as address:
        clients = [Client(address, f"client {number}") for number in range(CLIENTS)]
        for client in clients[::2]:
            client.http.headers["Connection"] = "close"  # another process may take the next request
        with ThreadPoolExecutor(CLIENTS) as threads:
            for visit in [threads.submit(client.visit, seed) for seed, client in enumerate(clients)]:
                visit.result()
        for client in clients:
            client.ask("read")
            client.http.close()
    processes = {process for client in clients for process in client.processes}
    assert (len(processes) > 1) == (server != "waitress")
    store = SQLAlchemyStore(url)
    users = [session.user for session in store.find_all() if session.user]
    assert sorted(users) == sorted(client.user for client in clients if client.user)
    store.close()


def test_sessions_outlive_the_server(url: str, tmp_path: Path) -> None:
    with serving("waitress", url, tmp_path / "log.txt") as address:
        client = Client(address, "client", user="alice", data={"n": 1})
        client.http.get(f"{address}/count", timeout=PATIENCE).raise_for_status()
        client.ask("login", value="alice")
        client.http.close()
    with serving("waitress", url, tmp_path / "log.txt") as client.address:
        client.ask("read")
        client.data["n"] = 2
        client.ask("count")
        client.http.close()


def test_one_session_counts_exactly_in_many_processes(url: str, tmp_path: Path) -> None:
    with serving("gunicorn", url, tmp_path / "log.txt") as address:
        client = Client(address, "client", data={"n": 1})
        client.ask("count")
        cookies = {cookie.name: str(cookie.value) for cookie in client.http.cookies}

        def count(_: int) -> int:
            answers = [requests.get(f"{address}/count", cookies=cookies, timeout=PATIENCE) for _ in range(20)]
            return max(int(answer.json()["data"]["n"]) for answer in answers)

        with ThreadPoolExecutor(CLIENTS) as threads:
            assert max(threads.map(count, range(CLIENTS))) == 1 + 20 * CLIENTS
        client.data["n"] = 1 + 20 * CLIENTS
        client.ask("read")
        client.http.close()
