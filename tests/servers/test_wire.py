"""Real servers over raw sockets: huge and doubled cookies, clients that go away, HEAD, 304, files."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import migrate
from tests.support.served import free_port
from tests.support.waiting import eventually
from tests.support.wire import Answer, ask, begin, listening

APPLICATION = "tests.servers.wire_app:application"
GUNICORN = ["-m", "gunicorn", "--workers=1", "--threads=4", "--worker-class=gthread", APPLICATION]
SERVERS = {
    # By itself gunicorn refuses a line over 8 KB before we see it.
    "gunicorn": [*GUNICORN, "--limit-request-field_size=1000000", "--bind=127.0.0.1:{}"],
    "waitress": [
        "-m",
        "waitress",
        "--max-request-header-size=1000000",
        "--listen=127.0.0.1:{}",
        APPLICATION,
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire")
    migrate.upgrade(f"sqlite:///{folder}/sessions.db")
    (folder / "large.bin").write_bytes(os.urandom(1 << 20))
    return folder


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest, folder: Path) -> Iterator[int]:
    """The port of each server in turn."""
    port = free_port()
    command = [sys.executable, *(option.format(port) for option in SERVERS[request.param])]
    settings = {"SITE_DATABASE_URL": f"sqlite:///{folder}/sessions.db", "SITE_FOLDER": str(folder)}
    with listening(command, port, folder / f"{request.param}.txt", **settings):
        yield port


def page(answer: Answer) -> Any:
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.fixture
def cookie(port: int) -> str:
    """The cookie of a visitor who has counted to one."""
    answer = ask(port, "/count")
    assert page(answer)["data"] == {"n": 1}
    return answer.cookie


@pytest.mark.parametrize("size", [100_000, 256_000])
@pytest.mark.parametrize("filler", ["a=b; ", "prism_session=x; ", ";", "junk, junk "])
def test_a_huge_cookie_header_neither_hides_ours_nor_fails(port: int, cookie: str, size: int, filler: str) -> None:
    padding = filler * (size // len(filler))
    found = page(ask(port, "/", f"Cookie: {padding}; {cookie}"))
    assert found["cookie_bytes"] > size
    assert found["data"] == {"n": 1}


@pytest.mark.parametrize("size", [100_000, 256_000])
def test_a_huge_session_cookie_is_a_new_visitor(port: int, cookie: str, size: int) -> None:
    answer = ask(port, "/", f"Cookie: {cookie}{'A' * size}")
    assert page(answer)["data"] == {}
    assert answer.all("Set-Cookie") == []  # it begins as a token does, and may be another application's


def test_two_cookie_lines_open_no_session_but_the_one_they_hold(port: int, cookie: str) -> None:
    other = ask(port, "/count").cookie
    for lines in ([cookie, "a=b"], ["a=b", cookie], [cookie, other], [cookie, cookie]):
        answer = ask(port, "/", *(f"Cookie: {line}" for line in lines))
        assert page(answer)["data"] in ({}, {"n": 1})
    answer = ask(port, "/", f"Cookie: {cookie}", f"Cookie: {other}")
    assert page(answer)["data"] == {}, "servers join lines by a comma, which is part of neither cookie"


def test_a_client_that_goes_away_closes_the_stream_and_late_changes_are_saved(port: int, cookie: str) -> None:
    with begin(port, "/stream", f"Cookie: {cookie}") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    late = eventually(lambda: page(ask(port, "/", f"Cookie: {cookie}"))["data"].get("late"))
    assert late == 1, "closed more than once"


def test_head_has_the_headers_of_get_and_no_body(port: int) -> None:
    answer = ask(port, "/", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.all("Content-Length")[0]) > 0
    assert answer.all("Vary") == ["Cookie"]
    assert answer.cookie.startswith("prism_session=")


def test_304_carries_the_cookie_and_says_so_to_caches(port: int, cookie: str) -> None:
    answer = ask(port, "/unchanged")
    assert (answer.status, answer.body) == (304, b"")
    assert (answer.all("ETag"), answer.all("Vary"), answer.all("Cache-Control")) == (['"1"'], ["Cookie"], ["private"])
    assert answer.cookie
    assert ask(port, "/unchanged", f"Cookie: {cookie}").all("Set-Cookie") == []


def test_a_file_of_an_untouched_session_is_sent_by_the_server_itself(
    port: int, cookie: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["port"] != "gunicorn":
        pytest.skip("waitress sends files by reading them")
    answer = ask(port, "/file", f"Cookie: {cookie}")
    assert answer.body == (folder / "large.bin").read_bytes()
    assert answer.all("Set-Cookie") == []
    eventually(lambda: (folder / "file-closed").exists(), "the server did not close the file")
