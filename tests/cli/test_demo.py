"""`prism-wsgi demo`, served by a process of its own and visited over HTTP."""

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import webob

from prism_wsgi import MemoryStore, SessionMiddleware
from prism_wsgi.cli.demo.app import demo_app, with_pages
from tests.support.command_line import line_with, run, started
from tests.support.keys import SECRET
from tests.support.served import Browser
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.whole


@contextmanager
def demo(directory: Path, port: int = 0) -> Iterator[str]:
    """Serve the demo; yield its address, then end it by SIGTERM and see that it ends well."""
    with started("demo", "--port", str(port), cwd=directory) as process:
        line = line_with("http://", process.stdout)
        yield line.split()[-1].rstrip("/")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "Warning" not in errors


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with demo(tmp_path) as address:
        yield address


def submit(browser: Browser, action: str, value: str = "") -> str:
    token = browser.get("/").field("csrf_token")
    return browser.post(action, csrf_token=token, value=value).text


def test_visits_are_counted_for_each_browser(address: str) -> None:
    first, second = Browser(address), Browser(address)
    assert [first.get("/visits").text for _ in range(3)] == ["Visit 1\n", "Visit 2\n", "Visit 3\n"]
    assert second.get("/visits").text == "Visit 1\n"
    assert "<strong>4</strong> visits" in first.get("/").text


def test_browser_finds_its_session_again_after_a_restart(tmp_path: Path) -> None:
    with demo(tmp_path) as address:
        browser = Browser(address)
        submit(browser, "/login", "Ada")
        submit(browser, "/notes", "water the plants")
    with demo(tmp_path) as address:
        browser.address = address
        page = browser.get("/").text
    assert "You are <strong>Ada</strong>" in page
    assert "<li>water the plants</li>" in page


def test_only_the_user_can_read_the_secret(address: str, tmp_path: Path) -> None:
    secret = tmp_path / "prism-demo.db.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text()) > 32


def test_login_moves_the_session_to_a_new_id_and_keeps_its_contents(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/notes", "kept")
    before = browser.get("/").text
    after = submit(browser, "/login", "Ada")
    session_ids = [re.findall("<code>(.*)</code>", page) for page in (before, after)]
    assert session_ids[0] != session_ids[1]
    assert "<li>kept</li>" in after
    assert "Welcome, Ada." in after
    assert "Welcome" not in browser.get("/").text


def test_logout_begins_a_new_session(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/login", "Ada")
    submit(browser, "/notes", "gone")
    page = submit(browser, "/logout")
    assert "Ada" not in page
    assert "gone" not in page
    assert "<strong>1</strong> visit in" in page


def test_user_sees_their_devices_and_logs_out_elsewhere(address: str) -> None:
    desk, phone = Browser(address), Browser(address)
    for browser in (phone, desk):
        submit(browser, "/login", "Ada")
    assert desk.get("/devices").text.count('class="card device"') == 2
    assert "Other sessions that have ended: 1" in submit(desk, "/logout-elsewhere")
    assert "You are <strong>Ada</strong>" not in phone.get("/").text
    assert "Log in first." in submit(phone, "/logout-elsewhere")


def test_demo_shows_the_other_pages(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/login", "Ada")
    page = browser.get("/admin").text
    assert "1, counted now" in page
    assert 'aria-label="Logins an hour"' in page
    assert json.loads(browser.get("/health").text)["status"] == "up"
    assert json.loads(browser.get("/time-left").text)["seconds"] > 600_000


def test_demo_without_the_extra_says_how_to_get_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prism_wsgi.pages", None)
    with pytest.raises(ImportError):
        with_pages(demo_app, MemoryStore())
    page = webob.Request.blank("/").get_response(SessionMiddleware(demo_app, secret=SECRET, secure=False)).text
    assert "pip install 'prism_wsgi[pages]'" in page
    assert "<script" not in page


def test_notes_can_be_cleared(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/notes", "one")
    assert "<li>" not in submit(browser, "/notes/clear")


def test_what_visitors_write_is_escaped(address: str) -> None:
    browser = Browser(address)
    for action in ("/login", "/notes"):
        page = submit(browser, action, "<script>alert('1')</script>\"&")
        assert "<script>" not in page
        assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;" in page


def test_form_without_the_token_of_the_session_changes_nothing(address: str) -> None:
    browser, other = Browser(address), Browser(address)
    theirs = other.get("/").field("csrf_token")
    browser.get("/")
    for token in ("", theirs, "\u00e9"):
        assert browser.post("/notes", csrf_token=token, value="forged").status == 403
    assert "forged" not in browser.get("/").text


@pytest.mark.parametrize(("action", "value"), [("/login", ""), ("/login", "x" * 41), ("/notes", "x" * 401)])
def test_value_out_of_bounds_is_refused_in_words(address: str, action: str, value: str) -> None:
    assert re.search(r"has 1 to \d+ (printable )?characters", submit(Browser(address), action, value))


def test_notes_are_limited(address: str) -> None:
    browser = Browser(address)
    token = browser.get("/").field("csrf_token")
    pages = [browser.post("/notes", csrf_token=token, value="n").text for _ in range(21)]
    assert pages[-1].count("<li>") == 20
    assert "clear them first" in pages[-1]


def test_requests_the_demo_does_not_understand_get_a_plain_answer(address: str) -> None:
    browser = Browser(address)
    assert browser.get("/nowhere").status == 404
    assert browser.get("/notes").status == 405
    assert browser.post("/").status == 405
    assert browser.get("/%ff").status == 400
    assert browser.post("/notes", value="x" * 20_000).status == 413


def test_page_allows_no_scripts_and_is_not_stored(address: str) -> None:
    headers = Browser(address).get("/").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_printed_curl_command_counts_visits(tmp_path: Path) -> None:
    with started("demo", "--port", "0", cwd=tmp_path) as process:
        command = line_with("curl", process.stdout).partition(":  ")[2].split()
        visits = [subprocess.check_output([*command, "--silent"], cwd=tmp_path, text=True) for _ in range(2)]
    assert visits == ["Visit 1\n", "Visit 2\n"]


def test_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = run("demo", "--port", str(port), "--database", str(tmp_path / "demo.db"))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: Cannot listen on port {port} (")
    assert "--port 0" in result.stderr


def test_directory_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    result = run("demo", "--database", str(tmp_path / "nowhere" / "demo.db"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "There is no directory" in result.stderr
