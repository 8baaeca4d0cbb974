"""`prism-wsgi doctor`: each finding, its advice, and the exit code."""

import json
import time
from pathlib import Path

import pytest
from command_line import keep_expired, run
from sqlalchemy import NullPool, create_engine

from prism_wsgi import migrate
from prism_wsgi.cli.checks import Level, check_database
from prism_wsgi.schema import DEFAULT_TABLE_NAME

STRONG = "gk3Vw-8sJ2_qLr0Zt9xYbN4cHd7uEaPm"


@pytest.fixture
def url(sqlite_url: str) -> str:
    migrate.upgrade(sqlite_url)
    return sqlite_url


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
    own = "journal" if migrated_url.startswith("sqlite") else "clock"
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", check] for check in ("database", own, "schema", "sweeper", "secret")
    ]


def test_schema_that_was_never_made_fails(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.db").touch()
    assert finding("schema", database_url) == ("fail", "at none, not at 0003; run `prism-wsgi db upgrade`")
    assert run("doctor", "--url", database_url).exit_code == 1


def test_schema_changed_by_hand_is_a_warning(url: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_prism_sessions_user_id")
    level, said = finding("schema", url)
    assert level == "warn"
    assert "ix_prism_sessions_user_id is missing" in said
    assert run("doctor", "--url", url).exit_code == 0


def test_database_that_is_not_there_fails(tmp_path: Path) -> None:
    result = run("doctor", "--url", f"sqlite:///{tmp_path}/typo.db")
    assert result.exit_code == 1
    assert result.stdout.startswith("fail  database  There is no database ")
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
    assert said.startswith("4 expired, the oldest at ")
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
    assert "fail  secret    SESSION_SECRET " in result.stdout
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
    assert [one["check"] for one in found["findings"]] == ["database", "journal", "schema", "sweeper", "secret"]
    assert set(found["findings"][0]) == {"check", "level", "message", "fix"}
