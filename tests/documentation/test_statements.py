"""What README.md and docs/ say is so: tables are complete, messages are produced, links and names lead somewhere."""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import webob
from click.testing import CliRunner
from flask import Flask

import prism_wsgi
from prism_wsgi import (
    InsecureSecretWarning,
    MemoryStore,
    PrismError,
    Session,
    SessionMiddleware,
    SQLAlchemyStore,
    StoredSession,
    errors,
    get_session,
    migrate,
    testing,
)
from prism_wsgi.cli import commands
from prism_wsgi.events import _EVENTS, Reason
from prism_wsgi.setting_types import MiddlewareOptions, SessionOptions
from tests.documentation.pages import PAGES, ROOT, SECRET, blocks_of, section_of, table_of
from tests.documentation.reader import count_visits

README = ROOT / "README.md"
DOCS = ROOT / "docs"
TEXT = "".join(page.read_text() for page in PAGES)


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSION_SECRET", SECRET)


# What the README says in short


def test_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 180


@pytest.mark.parametrize("line", section_of(README, "Frameworks").splitlines())
def test_code_that_the_readme_shows_for_a_framework_is_on_its_page(line: str) -> None:
    pages = [DOCS.parent / target for target in re.findall(r"\]\(([^)]+)\)", line)]
    for code in re.findall(r"`([^`]+)`", line):
        assert all(code in page.read_text() for page in pages), code


def test_times_in_the_readme_are_those_of_the_benchmarks() -> None:
    measured = {
        row[0]: (row[2].split(" (")[0], row[3].split(" (")[0])
        for row in table_of((DOCS / "benchmarks.md").read_text().partition("### postgresql: ")[2].partition("###")[0])
    }
    shown = {row[0]: (row[3], row[4]) for row in table_of(section_of(README, "Guarantees"))}
    assert len(shown) > 3
    for package, times in shown.items():
        (name,) = [name for name in measured if package.startswith(name)]
        assert times == tuple(f"{time} µs" for time in measured[name]), package


# Names


@pytest.mark.parametrize("command", sorted(set(re.findall(r"prism-wsgi ((?:db )?[a-z][a-z-]*)", TEXT))))
def test_mentioned_commands_exist(command: str) -> None:
    assert CliRunner().invoke(commands, [*command.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize("task", sorted(set(re.findall(r"python3 dev\.py (\w+)", TEXT))))
def test_mentioned_tasks_exist(task: str) -> None:
    assert re.search(rf"^def {task}\(", (ROOT / "dev.py").read_text(), flags=re.M)


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"prism_wsgi\[(\w+)\]", TEXT))))
def test_mentioned_extras_exist(extra: str) -> None:
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https:)([^:)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", DOCS / "architecture.md"], ids=lambda page: page.name)
def test_named_modules_and_tests_exist(page: Path) -> None:
    for path, test in re.findall(r"`([\w./]+(?:/|\.(?:py|md|toml)))(?:::(\w+))?`", page.read_text()):
        (found,) = [place for place in (ROOT / path, ROOT / "prism_wsgi" / path) if place.exists()] or [None]
        assert found, path
        assert not test or f"def {test}(" in found.read_text(), f"{path}::{test}"


def test_every_room_at_the_top_is_in_the_architecture() -> None:
    named = set(re.findall(r"`(\w+(?:\.py|/))", (DOCS / "architecture.md").read_text()))
    rooms = {path.name if path.is_file() else f"{path.name}/" for path in (ROOT / "prism_wsgi").glob("[a-z]*")}
    assert rooms - {"py.typed"} <= named


def test_every_page_is_in_the_table_of_contents_or_matched_there() -> None:
    listed = re.findall(r"^[\w*/-]+$", "".join(block.text for block in blocks_of(DOCS / "index.md")), flags=re.M)
    reached = {path for entry in listed for path in DOCS.glob(f"{entry}.md")}
    assert reached | {DOCS / "index.md"} == set(DOCS.rglob("*.md"))


@pytest.mark.parametrize("module", [prism_wsgi, testing], ids=lambda module: module.__name__)
def test_public_names_are_in_the_reference(module: ModuleType) -> None:
    shown = set(re.findall(rf":: {module.__name__}\.(\w+)(?:\(\))?$", (DOCS / "api.md").read_text(), flags=re.M))
    assert set(module.__all__) <= shown | set(vars(errors))  # of which there is an automodule


# Tables


def test_flask_page_has_every_setting_that_its_configuration_sets() -> None:
    rows = table_of(section_of(DOCS / "frameworks" / "flask.md", "Settings"))
    names, settings = (set(re.findall(r"`(\w+)`", " ".join(column))) for column in zip(*rows, strict=True))
    assert names <= set(Flask(__name__).config)
    assert settings >= MiddlewareOptions.__annotations__.keys() - SessionOptions.__annotations__.keys()


def test_reasons_are_those_of_the_log_with_their_levels() -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in table_of(section_of(DOCS / "operations.md", "Logging"))}
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


def outdated_table() -> str:
    migrate.upgrade("sqlite:///sessions.db", revision="0003")
    return missing_table()


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


def visit_over_plain_http() -> None:
    site = SessionMiddleware(count_visits, secret=SECRET)
    webob.Request.blank("/", base_url="http://shop.example.org").get_response(site)


def visit_a_forked_worker() -> None:
    store = MemoryStore()
    store.after_fork()
    webob.Request.blank("/").get_response(SessionMiddleware(count_visits, store=store, secret=SECRET))


def post_from_another_site() -> None:
    site = SessionMiddleware(count_visits, secret=SECRET)
    headers = {"Sec-Fetch-Site": "cross-site"}
    webob.Request.blank("/", method="POST", headers=headers).get_response(site)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said when each of the things goes wrong that the README helps with."""
    caplog.set_level(logging.INFO, "prism_wsgi")
    visit_with_cookies_of_other_processes()
    visit_over_plain_http()
    visit_a_forked_worker()
    post_from_another_site()
    return [
        *caplog.messages,
        *map(warned, (None, "change-me", "abc123")),
        missing_table(),
        outdated_table(),
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
    quoted = re.findall(r"\*\*`(.+?)`\*\*", (DOCS / "troubleshooting.md").read_text())
    assert len(quoted) > 10
    for quote in quoted:
        assert any(quote in message for message in messages), quote
