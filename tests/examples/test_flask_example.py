"""The Flask example, served by a process of its own and driven over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.served import ROOT, Browser, free_port, served


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with served(ROOT / "examples" / "flask_app.py", port=free_port(), cwd=tmp_path) as address:
        yield Browser(address)


def test_flask_signs_in_and_out_with_flash_messages(browser: Browser) -> None:
    start = browser.get("/")
    assert "You are nobody." in start.text
    inside = browser.post("/login", user="ada", csrf_token=start.field("csrf_token"))
    assert "Welcome, ada!" in inside.text
    assert "You are ada." in inside.text
    assert "Welcome" not in browser.get("/").text
    outside = browser.post("/logout", csrf_token=inside.field("csrf_token"))
    assert "Come back soon." in outside.text
    assert "You are nobody." in outside.text


def test_flask_refuses_a_form_without_its_csrf_token_or_with_the_one_from_before_login(browser: Browser) -> None:
    token = browser.get("/").field("csrf_token")
    assert browser.post("/login", user="ada").status == 403
    assert browser.post("/login", user="ada", csrf_token="é").status == 403
    assert browser.post("/login", user="ada", csrf_token=token).status == 200
    assert browser.post("/logout", csrf_token=token).status == 403


def test_flask_lets_nobody_else_sign_in(browser: Browser) -> None:
    token = browser.get("/").field("csrf_token")
    assert browser.post("/login", user="mallory", csrf_token=token).status == 403
    assert "You are nobody." in browser.get("/").text
