"""`prism-wsgi demo`, served by a process of its own and visited over HTTP."""

import html
import inspect
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

from prism_wsgi.cli.demo import site
from tests.support.command_line import line_with, run, started
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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def address(directory: Path) -> Iterator[str]:
    with demo(directory) as address:
        yield address


def submit(browser: Browser, action: str, **form: str) -> str:
    token = browser.get("/").field("csrf_token")
    return browser.post(action, csrf_token=token, **form).text


def log_in(browser: Browser, name: str = "Ada", stay: str = "browser") -> str:
    return submit(browser, "/login", name=name, stay=stay)


def test_visits_are_counted_for_each_browser(address: str) -> None:
    first, second = Browser(address), Browser(address)
    assert [first.get("/visits").text for _ in range(3)] == ["Visit 1\n", "Visit 2\n", "Visit 3\n"]
    assert second.get("/visits").text == "Visit 1\n"
    assert "<dt>Visits</dt><dd>4</dd>" in first.get("/").text


def test_browser_finds_its_session_again_after_a_restart(tmp_path: Path) -> None:
    with demo(tmp_path) as address:
        browser = Browser(address)
        log_in(browser)
        submit(browser, "/basket/add", article="lens")
    with demo(tmp_path) as address:
        browser.address = address
        page = browser.get("/").text
    assert "You are <strong>Ada</strong>" in page
    assert "1 \u00d7 Lens" in page


def test_only_the_user_can_read_the_secret(address: str, directory: Path) -> None:
    secret = directory / "prism-demo.db.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text()) > 32


def test_login_moves_the_session_to_a_new_id_and_keeps_the_basket(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/basket/add", article="lens")
    before = browser.get("/").text
    after = log_in(browser)
    session_ids = [re.findall("<code>([0-9a-f]{64})</code>", page) for page in (before, after)]
    assert session_ids[0] != session_ids[1]
    assert "1 \u00d7 Lens" in after
    assert "Welcome, Ada." in after
    assert "Welcome, Ada" not in browser.get("/").text


def test_logout_begins_a_new_session(address: str) -> None:
    browser = Browser(address)
    log_in(browser)
    submit(browser, "/basket/add", article="lens")
    page = submit(browser, "/logout")
    assert "Ada" not in page
    assert "The basket is empty." in page
    assert "<dt>Visits</dt><dd>1</dd>" in page


def test_user_sees_their_devices_and_logs_out_elsewhere(address: str) -> None:
    desk, phone = Browser(address), Browser(address)
    for browser in (phone, desk):
        log_in(browser, "Grace")
    assert desk.get("/devices").text.count('class="card device"') == 2
    assert "Other sessions that have ended: 1" in submit(desk, "/logout-elsewhere")
    assert "Grace" not in phone.get("/").text
    assert "Log in first." in submit(phone, "/logout-elsewhere")


@pytest.mark.parametrize(("stay", "seconds"), [("browser", 3600), ("remember", 2_592_000), ("short", 90)])
def test_login_lasts_as_long_as_the_user_chooses(address: str, stay: str, seconds: int) -> None:
    browser = Browser(address)
    log_in(browser, stay=stay)
    (cookie,) = browser.cookies
    assert cookie.discard is (stay != "remember")
    assert 0 <= seconds - json.loads(browser.get("/time-left").text)["seconds"] < PATIENCE


def test_id_from_the_database_opens_nothing_and_neither_does_a_cookie_after_logout(address: str) -> None:
    browser = Browser(address)
    log_in(browser)
    assert "The id opens: nobody. The cookie opens: Ada." in submit(browser, "/theft/id")
    after = submit(browser, "/theft/logout")
    assert "Before you logged out, the cookie opened: Ada. Now it opens: nobody." in after


def test_race_is_shown_with_what_both_sessions_kept_or_not_at_all(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/race/write", article="lens")
    assert browser.get("/race").text.count("<strong>1</strong> of 6 writes kept") == 2
    log_in(browser)  # under a new id, which the session that is written whole does not have
    assert "writes kept" not in browser.get("/race").text


def test_pages_stand_in_the_frame_of_the_shop_with_the_code_behind_them(address: str) -> None:
    browser = Browser(address)
    log_in(browser)
    code = inspect.getsource(site)
    for path in ("/devices", "/admin"):
        page = browser.get(path).text
        assert f'<a href="{path[1:]}" aria-current="page">' in page
        (shown,) = re.findall("<code>(.*)</code>", page)
        assert html.unescape(shown) in code


def test_demo_shows_the_other_pages(address: str) -> None:
    browser = Browser(address)
    log_in(browser)
    page = browser.get("/admin").text
    assert re.search(r"\d+, counted now", page)
    assert 'aria-label="Logins an hour"' in page
    assert json.loads(browser.get("/health").text)["status"] == "up"


def test_demo_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prism_wsgi.cli.demo.site", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("demo")
    assert result.exit_code == 1
    assert result.stderr == "Error: The demo lacks jinja2; pip install 'prism_wsgi[pages]'\n"


def test_basket_can_be_emptied(address: str) -> None:
    browser = Browser(address)
    submit(browser, "/basket/add", article="lens")
    assert "Lens</span>" not in submit(browser, "/basket/empty")


def test_what_visitors_write_is_escaped(address: str) -> None:
    page = log_in(Browser(address), "<script>alert('1')</script>\"&")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;" in page


@pytest.mark.parametrize("token", ["", "theirs", "\u00e9"])
def test_form_without_the_token_of_the_session_changes_nothing(address: str, token: str) -> None:
    browser, other = Browser(address), Browser(address)
    theirs = other.get("/").field("csrf_token")
    browser.get("/")
    sent = theirs if token == "theirs" else token
    assert browser.post("/basket/add", csrf_token=sent, article="lens").status == 403
    assert "The basket is empty." in browser.get("/").text


@pytest.mark.parametrize("name", ["", "x" * 41, "\0"])
def test_name_out_of_bounds_is_refused_in_words(address: str, name: str) -> None:
    assert "A name has 1 to 40 printable characters" in log_in(Browser(address), name)


def test_basket_of_the_demo_holds_at_most_nine_of_an_article(address: str) -> None:
    browser = Browser(address)
    token = browser.get("/").field("csrf_token")
    pages = [browser.post("/basket/add", csrf_token=token, article="lens").text for _ in range(10)]
    assert "9 \u00d7 Lens" in pages[-1]


@pytest.mark.parametrize(
    ("action", "form"), [("/basket/add", {"article": "gun"}), ("/basket/add", {}), ("/login", {"name": "Ada"})]
)
def test_form_without_a_field_that_it_needs_is_refused(address: str, action: str, form: dict[str, str]) -> None:
    browser = Browser(address)
    token = browser.get("/").field("csrf_token")
    assert browser.post(action, csrf_token=token, **form).status == 400


def test_requests_the_demo_does_not_understand_get_a_plain_answer(address: str) -> None:
    browser = Browser(address)
    assert browser.get("/nowhere").status == 404
    assert browser.get("/basket/add").status == 405
    assert browser.post("/").status == 405
    assert browser.get("/%ff").status == 400
    assert browser.post("/basket/add", value="x" * 20_000).status == 413


def test_page_allows_nothing_inline_and_is_not_stored(address: str) -> None:
    headers = Browser(address).get("/").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
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
