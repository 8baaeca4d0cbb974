"""The examples that mount the ready pages, each served by a process of its own and driven over HTTP."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.served import ROOT, Browser, free_port, served

Visit = Callable[[str], Browser]


@pytest.fixture(scope="module", params=["wsgi", "pyramid", "bottle", "flask", "django"])
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """Log somebody in on a new device."""
    program: Path = ROOT / "examples" / f"pages_{request.param}.py"
    with served(program, port=free_port(), cwd=tmp_path_factory.mktemp(program.stem)) as address:

        def new_device(user: str) -> Browser:
            browser = Browser(address)
            assert f"You are {user}." in browser.post("/", user=user).text
            return browser

        yield new_device


def test_devices_page_ends_another_device(visit: Visit) -> None:
    phone, desk = visit("ada"), visit("ada")
    page = desk.get("/devices")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert desk.get("/devices?file=pages.css").headers["Content-Type"] == "text/css; charset=utf-8"
    ended = desk.post("/devices", csrf_token=page.field("csrf_token"), end=page.field("end"))
    assert "The device is logged out." in ended.text
    assert "You are ada." in desk.get("/").text
    assert "You are nobody." in phone.get("/").text


def test_admin_page_ends_a_users_sessions_and_is_there_for_nobody_else(visit: Visit) -> None:
    ada, grace = visit("ada"), visit("grace")
    assert ada.get("/admin").status == 404
    token = grace.get("/admin").field("csrf_token")
    assert "ended." in grace.post("/admin", csrf_token=token, end_user="ada").text
    assert "You are nobody." in ada.get("/").text
    assert "You are grace." in grace.get("/").text


def test_time_left_is_told_as_json_with_its_script(visit: Visit) -> None:
    ada = visit("ada")
    assert 0 < json.loads(ada.get("/time-left").text)["seconds"] <= 3600
    assert ada.get("/time-left?file=time_left.js").headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_health_is_told_without_a_login(visit: Visit) -> None:
    answer = Browser(visit("ada").address).get("/health")
    assert (answer.status, json.loads(answer.text)["status"]) == (200, "up")
