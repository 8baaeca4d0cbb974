"""Logging out everywhere, across worker processes that share a store."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import REDIS
from tests.support.served import Browser, free_port, served

WORKERS = 3
PROGRAM = Path(__file__).with_name("users_app.py")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of three processes with one store."""
    if request.param == "redis":
        environ = {"SITE_STORE": REDIS, "SITE_PREFIX": request.getfixturevalue("redis_prefix")}
    else:
        environ = {"SITE_STORE": request.getfixturevalue(f"empty_{request.param}_url")}
    with ExitStack() as running:
        yield [
            running.enter_context(served(PROGRAM, port=free_port(), cwd=tmp_path, **environ)) for _ in range(WORKERS)
        ]


def ask(browser: Browser, worker: str, path: str = "/") -> dict[str, Any]:
    browser.address = worker
    page = browser.get(path)
    assert page.status == 200
    answer: dict[str, Any] = json.loads(page.text)
    return answer


def test_logging_out_elsewhere_and_everywhere_holds_from_the_next_request_on_every_worker(workers: list[str]) -> None:
    phone, laptop, tablet, bob = (Browser(workers[0]) for _ in range(4))
    for device, worker in zip((phone, laptop, tablet), workers, strict=True):
        ask(device, worker, "/login?user=alice")
    ask(bob, workers[1], "/login?user=bob")
    everyone = [ask(device, worker) for device in (phone, laptop, tablet) for worker in workers]
    assert {(answer["user"], answer["sessions"]) for answer in everyone} == {("alice", 3)}
    assert len({answer["worker"] for answer in everyone}) == WORKERS

    ask(phone, workers[2], "/logout-elsewhere")
    for worker in workers:
        assert ask(laptop, worker)["user"] is None
        assert ask(tablet, worker)["user"] is None
        assert (ask(phone, worker)["user"], ask(phone, worker)["sessions"]) == ("alice", 1)
        assert ask(bob, worker)["user"] == "bob"

    ask(laptop, workers[1], "/login?user=alice")
    ask(phone, workers[0], "/logout-everywhere")
    for worker in workers:
        assert [ask(device, worker)["user"] for device in (phone, laptop, tablet)] == [None, None, None]
        assert ask(bob, worker)["user"] == "bob"
