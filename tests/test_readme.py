"""README.md: what it shows runs, what it quotes is produced, and what it lists is complete."""

import ast
import inspect
import logging
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import webob
from click.testing import CliRunner
from served import ROOT, free_port, served

from prism_wsgi import (
    InsecureSecretWarning,
    MemoryStore,
    PrismError,
    Session,
    SessionMiddleware,
    SessionStore,
    SQLAlchemyStore,
    StoredSession,
    get_session,
    migrate,
)
from prism_wsgi.cli import commands
from prism_wsgi.events import _EVENTS, Reason
from prism_wsgi.testing import StoreContract

README = (ROOT / "README.md").read_text()
SECRET = "D5Jv4Yq0mT1xw9rKcGz2Ns8uHb7PeLfA"

Names = dict[str, Any]


class Block(NamedTuple):
    section: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for section in re.split(r"^## ", README, flags=re.M):
        title = section.partition("\n")[0]
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.M | re.S):
            yield Block(title, language, text)


BLOCKS = list(blocks())
INTRODUCTION = BLOCKS[0].section
PYTHON = [block for block in BLOCKS if block.language == "python"]
WRAPPED = [block.text for block in PYTHON if block.section == "Wrap your application"]


def section(title: str) -> str:
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], flags=re.M)[0]


def table(title: str) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    rows = [line.strip("| ").split(" | ") for line in section(title).splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSION_SECRET", SECRET)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run a line of shell as it stands in the README, where `prism-wsgi` is the one of this checkout."""
    tool = tmp_path / "bin" / "prism-wsgi"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prism_wsgi.cli "$@"\n')
    tool.chmod(0o755)
    path = os.pathsep.join([str(tool.parent), str(Path(sys.executable).parent), os.environ["PATH"]])

    def run_line(line: str, **environ: str) -> str:
        environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environ}
        finished = subprocess.run(
            ["sh", "-ec", line], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    return run_line


def count_visits(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session = get_session(environ)
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Visits: {session['visits']}\n".encode()]


# Code

tolerating_pyramid = pytest.mark.filterwarnings("ignore:(Deprecated call to .)?pkg_resources")


def readers_names() -> Names:
    session = Session()
    return {
        "__name__": __name__,
        "SessionMiddleware": SessionMiddleware,
        "app": count_visits,
        "form": {"csrf_token": session.get_csrf_token()},
        "get_session": get_session,
        "os": os,
        "secrets": secrets,
        "session": session,
        "store": MemoryStore(),
        "timedelta": timedelta,
    }


def with_promises_kept(code: str) -> str:
    """Turn each `expression  # literal` into an assertion."""

    def promise(line: re.Match[str]) -> str:
        try:
            ast.literal_eval(line[2])
        except (SyntaxError, ValueError):
            return line[0]
        return f"assert {line[1]} == {line[2]}, {line[1]}"

    return re.sub(r"^(\S.*?)  # (.+)$", promise, code, flags=re.M)


@tolerating_pyramid
@pytest.mark.parametrize("title", dict.fromkeys(block.section for block in PYTHON))
def test_code_runs_section_by_section_and_keeps_its_promises(title: str) -> None:
    names = readers_names()
    for block in PYTHON:
        if block.section == title:
            exec(with_promises_kept(block.text), names)
    if isinstance(names.get("store"), SQLAlchemyStore):
        names["store"].close()


@tolerating_pyramid
@pytest.mark.parametrize("code", WRAPPED, ids=["pyramid", "bottle", "flask"])
def test_wrapped_application_counts_its_visits(code: str) -> None:
    names = readers_names()
    exec(code, names)
    application = names.get("application") or names["app"]
    first = webob.Request.blank("/").get_response(application)
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    second = webob.Request.blank("/", headers={"Cookie": cookie}).get_response(application)
    assert (first.text, second.text) == ("Visits: 1\n", "Visits: 2\n")


class TestDictStore(StoreContract):
    @pytest.fixture
    def store(self) -> SessionStore:
        names: Names = {}
        (code,) = [block.text for block in PYTHON if "class DictStore:" in block.text]
        exec(code, names)
        store: SessionStore = names["DictStore"]()
        return store


# The transcript


def without_what_varies(answer: str) -> str:
    answer = re.sub(r"^Date: .*", "Date: ...", answer, flags=re.M)
    answer = re.sub(r"^Server: .*", "Server: ...", answer, flags=re.M)
    return re.sub(r"prism_session=[\w-]{43}\.\d{10}\.[\w-]{43};", "prism_session=...;", answer)


def transcript() -> list[str]:
    """Return each answer that `curl -i` is shown to print."""
    (console,) = [block for block in BLOCKS if block.section == INTRODUCTION and "curl" in block.text]
    return [answer for answer in re.split(r"^\$ .*\n", console.text, flags=re.M) if answer.startswith("HTTP/")]


def as_curl_shows_it(port: int, cookie: str = "") -> tuple[str, str]:
    connection = HTTPConnection("localhost", port, timeout=30)
    connection.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
    answer = connection.getresponse()
    head = "".join(f"{name}: {value}\n" for name, value in answer.getheaders())
    body = answer.read().decode()
    connection.close()
    version = f"HTTP/{answer.version // 10}.{answer.version % 10}"
    cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
    return f"{version} {answer.status} {answer.reason}\n{head}\n{body}", cookie


def test_transcript_is_what_the_program_answers(tmp_path: Path) -> None:
    port = free_port()
    program = tmp_path / "hello.py"
    program.write_text(PYTHON[0].text.replace("8000", str(port)))
    with served(program, port=port, cwd=tmp_path):
        first, cookie = as_curl_shows_it(port)
        second, _ = as_curl_shows_it(port, cookie)
    assert [without_what_varies(answer) for answer in transcript()] == [
        without_what_varies(first),
        without_what_varies(second),
    ]


# Commands

CONSOLE = [
    line.removeprefix("$ ")
    for block in BLOCKS
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize("line", [line for line in CONSOLE if re.search(r"\b(alembic|prism-wsgi)\b", line)])
def test_commands_run(run: Callable[..., str], sqlite_url: str, line: str) -> None:
    run(line, PRISM_DATABASE_URL=sqlite_url)
    if "upgrade" in line:
        assert migrate.check(sqlite_url).ok


def test_scheduled_sweep_runs(run: Callable[..., str], sqlite_url: str) -> None:
    migrate.upgrade(sqlite_url)
    (cron,) = [block.text for block in BLOCKS if block.language == "cron"]
    *schedule, setting, tool, command = cron.split()
    assert len(schedule) == 5
    assert setting.startswith("PRISM_DATABASE_URL=")
    run(f"{tool} {command}", PRISM_DATABASE_URL=sqlite_url)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"prism-wsgi ((?:db )?[a-z][a-z-]*)", README))))
def test_mentioned_commands_exist(command: str) -> None:
    assert CliRunner().invoke(commands, [*command.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize("task", re.findall(r"python3 dev\.py (\w+)", README))
def test_mentioned_tasks_exist(task: str) -> None:
    assert re.search(rf"^def {task}\(", (ROOT / "dev.py").read_text(), flags=re.M)


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"prism_wsgi\[(\w+)\]", README))))
def test_mentioned_extras_exist(extra: str) -> None:
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), flags=re.M)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^:)]+)\)", README))))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


# Tables


def test_settings_are_those_of_the_middleware_with_their_defaults() -> None:
    parameters = inspect.signature(SessionMiddleware).parameters
    named = {cells[0].strip("`"): cells[1].strip("`") for cells in table("Settings")}
    assert list(named) == [name for name in parameters if name != "app"]
    for name, shown in named.items():
        default = parameters[name].default
        if callable(default):
            assert shown == default.__name__
        else:
            value = ast.literal_eval(shown)
            assert (value if default is None else type(default)(value)) == default, name


def test_reasons_are_those_of_the_log_with_their_levels() -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in table("Logging")}
    assert listed == {reason.value: logging.getLevelName(_EVENTS[reason][0]) for reason in Reason}


# Messages


class BrokenStore:
    def load(self, session_id: str) -> StoredSession | None:
        raise OSError("disk on fire")

    def save(self, session: StoredSession) -> None:
        raise OSError("disk on fire")

    def destroy(self, session_id: str) -> None:
        raise OSError("disk on fire")


def refused(act: Callable[[], object]) -> str:
    with pytest.raises((PrismError, TypeError)) as caught:
        act()
    return str(caught.value)


def warned(secret: str | None) -> str:
    with pytest.warns(InsecureSecretWarning) as caught:
        SessionMiddleware(count_visits, secret=secret)
    return str(caught[0].message)


def missing_table() -> str:
    store = SQLAlchemyStore("sqlite:///sessions.db")
    try:
        return refused(lambda: store.load("0" * 64))
    finally:
        store.close()


def missing_driver(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    return refused(lambda: SQLAlchemyStore("postgresql://user:password@host/database"))


def too_large() -> None:
    with Session().atomic() as session:
        session["page"] = "x" * 70_000


def while_streaming(act: Callable[[Session], object]) -> str:
    def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        act(get_session(environ))

    application = SessionMiddleware(stream, secret=SECRET, cookie_on="write")
    return refused(lambda: webob.Request.blank("/").get_response(application).body)


def answer_when_the_store_fails() -> str:
    application = SessionMiddleware(count_visits, store=BrokenStore(), secret=SECRET)
    return webob.Request.blank("/").get_response(application).text


def visit_with_cookies_of_other_processes() -> None:
    here = SessionMiddleware(count_visits, secret=SECRET)
    for other in (SECRET[::-1], SECRET):
        elsewhere = SessionMiddleware(count_visits, store=MemoryStore(), secret=other)
        cookie = webob.Request.blank("/").get_response(elsewhere).headers["Set-Cookie"].partition(";")[0]
        webob.Request.blank("/", headers={"Cookie": cookie}).get_response(here)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said when each of the things goes wrong that the README helps with."""
    caplog.set_level(logging.INFO, "prism_wsgi")
    visit_with_cookies_of_other_processes()
    return [
        *caplog.messages,
        *map(warned, (None, "change-me", "abc123")),
        missing_table(),
        missing_driver(monkeypatch),
        refused(lambda: get_session({})),
        refused(lambda: Session().update(owner=object())),
        refused(too_large),
        while_streaming(lambda session: session.update(seen=True)),
        while_streaming(lambda session: session.login("42")),
        refused(lambda: Session().login(42)),  # type: ignore[arg-type]
        answer_when_the_store_fails(),
    ]


def test_quoted_messages_are_produced(messages: list[str]) -> None:
    quoted = re.findall(r"\*\*`(.+?)`\*\*", section("Troubleshooting"))
    assert len(quoted) > 10
    for quote in quoted:
        assert any(quote in message for message in messages), quote
