"""`prism-wsgi doctor`: each finding, its advice, and the exit code."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from prism_wsgi import Session, SessionMiddleware, get_session, migrate
from prism_wsgi.cli.doctor.checks import check_database
from prism_wsgi.cli.doctor.cookie_check import check_cookie
from prism_wsgi.cli.doctor.findings import Level
from prism_wsgi.stores.url_settings import DEFAULT_TABLE_NAME
from tests.support.command_line import keep_expired, run

STRONG = "gk3Vw-8sJ2_qLr0Zt9xYbN4cHd7uEaPm"


@pytest.fixture
def url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


@pytest.fixture(autouse=True)
def _no_secret_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_SECRET", raising=False)


def finding(check: str, url: str, **environ: str) -> tuple[str, str]:
    """Return the level of a finding, and what it says."""
    lines = run("doctor", "--url", url, **environ).stdout.splitlines()
    (line,) = (line for line in lines if line.split()[1] == check)
    level, _, said = line.split(maxsplit=2)
    return level, said


def test_sound_deployment_is_ok_throughout(migrated_url: str) -> None:
    result = run("doctor", "--url", migrated_url, SESSION_SECRET=STRONG)
    assert result.exit_code == 0
    own = ("journal",) if migrated_url.startswith("sqlite") else ("clock", "isolation")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", check] for check in ("database", *own, "schema", "writes", "sweeper", "secret")
    ]


def served(environ: dict[str, Any], app: Any) -> None:
    list(app(environ, lambda status, headers, exc_info=None, /: lambda data: None))


def test_users_of_whom_prism_wsgi_was_not_told_are_a_warning(migrated_url: str) -> None:
    def log_in(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["_user_id"] = "42"
        start_response("200 OK", [])
        return [b""]

    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "https"}
    served(dict(environ), SessionMiddleware(log_in, store=migrated_url, secret=STRONG, user_id_key="_user_id"))
    assert " logins " not in run("doctor", "--url", migrated_url).stdout
    served(dict(environ), SessionMiddleware(log_in, store=migrated_url, secret=STRONG))
    level, said = finding("logins", migrated_url)
    assert level == "warn"
    assert said.startswith("1 of 2 sessions have a user under '_user_id'")
    assert "set user_id_key='_user_id'" in said


def test_schema_that_was_never_made_fails(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.db").touch()
    advice = f"at none, not at {migrate.head()}; run `prism-wsgi db upgrade`"
    assert finding("schema", database_url) == ("fail", advice)
    assert run("doctor", "--url", database_url).exit_code == 1


def test_schema_changed_by_hand_is_a_warning(url: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_prism_sessions_user_id")
    level, said = finding("schema", url)
    assert level == "warn"
    assert "ix_prism_sessions_user_id is missing" in said
    assert run("doctor", "--url", url).exit_code == 0


def test_table_that_was_dropped_fails_with_advice_that_works(migrated_url: str) -> None:
    engine = create_engine(migrated_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE prism_sessions")
    level, said = finding("schema", migrated_url)
    assert (level, said) == (
        "fail",
        f"at {migrate.head()}, but the table prism_sessions was dropped; "
        "run `DROP TABLE prism_alembic_version` in the database, then `prism-wsgi db upgrade`",
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE prism_alembic_version")
    migrate.upgrade(migrated_url)
    assert finding("schema", migrated_url)[0] == "ok"


@pytest.mark.parametrize(
    ("engine", "setting"),
    [
        ("postgresql", "-c default_transaction_isolation=serializable"),
        ("mariadb", "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    ],
)
def test_isolation_level_that_makes_requests_fail_is_a_warning(
    engine: str, setting: str, request: pytest.FixtureRequest
) -> None:
    url = make_url(request.getfixturevalue(f"{engine}_url"))
    migrate.upgrade(url)
    if engine == "postgresql":
        url = url.update_query_dict({"options": f"{url.query['options']} {setting}"})
    else:
        url = url.update_query_dict({"init_command": setting})
    level, said = finding("isolation", url.render_as_string(hide_password=False))
    assert level == "warn"
    assert said.startswith("serializable, with which requests fail or wait; `")


def test_database_that_is_not_there_fails(tmp_path: Path) -> None:
    result = run("doctor", "--url", f"sqlite:///{tmp_path}/typo.db")
    assert result.exit_code == 1
    assert result.stdout.startswith("fail  database   There is no database ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 s behind this host"), (-90, "90 s ahead of this host")])
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_clock_that_is_off_is_a_warning(
    engine: str, seconds: float, said: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    findings = check_database(url, DEFAULT_TABLE_NAME, clock=lambda: time.time() + seconds)
    (found,) = (one for one in findings if one.check == "clock")
    assert found.level is Level.WARN
    assert said in found.message


def test_sweeper_that_lags_is_a_warning(url: str) -> None:
    keep_expired(url, 2, seconds_ago=3600)
    assert finding("sweeper", url)[0] == "ok"
    keep_expired(url, 2, seconds_ago=2 * 24 * 3600, first=2)
    level, said = finding("sweeper", url)
    assert level == "warn"
    assert said.startswith("the oldest expired session ended at ")
    assert "`prism-wsgi sweep`" in said


def test_file_that_cannot_have_a_write_ahead_log_is_a_warning(tmp_path: Path) -> None:
    # Like many network file systems, this VFS has no shared memory.
    url = f"sqlite:///file:{tmp_path}/sessions.db?vfs=unix-none&uri=true"
    migrate.upgrade(url)
    level, said = finding("journal", url)
    assert level == "warn"
    assert "local disk" in said


@pytest.mark.parametrize("secret", ["too-short", "change-me-change-me-change-me-change-me", "x" * 64])
def test_weak_secret_fails_and_is_not_shown(secret: str, url: str) -> None:
    result = run("doctor", "--url", url, SESSION_SECRET=secret)
    assert result.exit_code == 1
    assert "fail  secret     SESSION_SECRET " in result.stdout
    assert '"$(prism-wsgi secret)"' in result.stdout
    assert secret not in result.stdout


def test_secret_that_is_not_given_is_a_warning(url: str) -> None:
    assert finding("secret", url)[0] == "warn"
    assert run("doctor", "--url", url).exit_code == 0


def test_json_has_every_finding(url: str) -> None:
    result = run("doctor", "--json", "--url", url, SESSION_SECRET="short")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["ok"] is False
    assert [one["check"] for one in found["findings"]] == [
        "database",
        "journal",
        "schema",
        "writes",
        "sweeper",
        "secret",
    ]
    assert set(found["findings"][0]) == {"check", "level", "message", "fix"}


@contextmanager
def visited(use: Callable[[Session], object] = lambda _: None, **settings: Any) -> Iterator[str]:
    """Serve an application with these settings, which uses its session so; yield its address."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["visited"] = True
        use(get_session(environ))
        start_response("302 Found", [("Location", "/elsewhere")])
        return []

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    wrapped = SessionMiddleware(application, secret=STRONG, **settings)
    with make_server("127.0.0.1", 0, wrapped, handler_class=Silent) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        thread.join()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, [("ok", "prism_session is Secure, HttpOnly and SameSite=Lax")]),
        ({"cookie_name": "__Host-id"}, [("ok", "__Host-id is Secure, HttpOnly and SameSite=Lax")]),
        ({"secure": False}, [("fail", "prism_session is also sent over plain HTTP, where others can read it")]),
        ({"httponly": False}, [("fail", "prism_session can be read by scripts, also by injected ones")]),
        ({"samesite": "none"}, [("warn", "prism_session is sent with requests that other sites start")]),
        ({"domain": "example.org"}, [("warn", "prism_session is sent to every host under example.org")]),
    ],
)
def test_cookie_is_judged_by_what_a_browser_gets(settings: dict[str, Any], said: list[tuple[str, str]]) -> None:
    with visited(**settings) as address:
        found = list(check_cookie(address))
    assert [(one.level, one.message) for one in found] == said
    assert all(one.fix for one in found if one.level is not Level.OK)


@pytest.mark.whole
@pytest.mark.parametrize(("choice", "value"), [("ttl", 3600), ("persistent", False)])
def test_cookie_of_a_page_that_chooses_a_lifetime_is_known(choice: str, value: object) -> None:
    with visited(lambda session: setattr(session, choice, value)) as address:
        (found,) = check_cookie(address)
    assert found.message == "prism_session is Secure, HttpOnly and SameSite=Lax"


@pytest.mark.whole
def test_cookie_is_part_of_the_command_when_an_address_is_given(url: str) -> None:
    with visited(secure=False) as address:
        result = run("doctor", "--visit", address, "--url", url)
    assert result.exit_code == 1
    assert "fail  cookie     prism_session is also sent over plain HTTP" in result.stdout


@pytest.mark.whole
@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "localhost:8000", "http://[/"])
def test_address_that_cannot_be_visited_fails(address: str) -> None:
    (found,) = check_cookie(address)
    assert (found.level, found.fix) == (Level.FAIL, "start it, or correct --visit")
