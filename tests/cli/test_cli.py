"""What all commands have in common: options, errors, and a start without SQLAlchemy."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from prism_wsgi.cli import commands
from tests.support.command_line import PROGRAM, environment, keep, run


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))


ALL = dict(walk(commands))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_shows_its_environment_variable(path: tuple[str, ...]) -> None:
    own = [option for option in ALL[path].params if isinstance(option, click.Option) and option.name != "version"]
    assert all(option.show_envvar for option in own)
    assert all(option.allow_from_autoenv for option in own)


def test_option_can_come_from_the_environment(empty_sqlite_url: str) -> None:
    keep(empty_sqlite_url, 1)
    shown = run("stats", PRISM_DATABASE_URL=empty_sqlite_url, PRISM_STATS_JSON="1").stdout
    assert shown.startswith('{"live": 1')


def test_table_name_from_the_environment_reaches_store_and_migrations(sqlite_url: str) -> None:
    environ = {"PRISM_DATABASE_URL": sqlite_url, "PRISM_TABLE_NAME": "other_sessions"}
    assert run("db", "upgrade", **environ).exit_code == 0
    assert run("stats", **environ).exit_code == 0
    assert "prism_sessions does not exist" in run("stats", "--url", sqlite_url).stderr


def test_command_without_a_database_says_how_to_give_one() -> None:
    result = run("stats")
    assert result.exit_code == 2
    assert "--url" in result.stderr
    assert "PRISM_DATABASE_URL" in result.stderr


def test_missing_database_file_is_named_and_not_created(tmp_path: Path) -> None:
    result = run("stats", "--url", f"sqlite:///{tmp_path}/typo.db")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: There is no database {tmp_path}/typo.db; ")
    assert not list(tmp_path.iterdir())


def test_missing_table_is_told_with_the_command_that_makes_it(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.db").touch()
    result = run("stats", "--url", sqlite_url)
    assert result.exit_code == 1
    assert "`prism-wsgi db upgrade" in result.stderr


@pytest.mark.whole
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:hunter2@127.0.0.1:1/sessions",
        "postgresql://app@127.0.0.1:1/sessions?password=hunter2",
        "mysql+pymysql://app:hunter2@127.0.0.1:1/sessions",
        "postgres://app:hunter2@127.0.0.1/sessions",
        "app:hunter2@127.0.0.1",
    ],
)
@pytest.mark.parametrize("command", ["stats", "db current", "doctor"])
def test_database_that_cannot_be_reached_is_one_line_without_the_password(url: str, command: str) -> None:
    result = run(*command.split(), "--url", url)
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if not line.startswith("warn  secret")]
    assert len(lines) == 1
    assert lines[0].startswith(("Error: ", "fail  database   "))
    assert "hunter2" not in result.output


@pytest.mark.whole
def test_secret_prints_a_strong_secret_and_nothing_else(tmp_path: Path) -> None:
    printed = [
        subprocess.run([*PROGRAM, "secret"], cwd=tmp_path, env=environment(), capture_output=True, check=True)
        for _ in range(2)
    ]
    assert {len(one.stdout) for one in printed} == {65}
    assert {one.stderr for one in printed} == {b""}
    assert printed[0].stdout != printed[1].stdout


@pytest.mark.whole
@pytest.mark.parametrize("argument", ["--help", "secret"])
def test_light_command_loads_neither_sqlalchemy_nor_alembic(argument: str, tmp_path: Path) -> None:
    script = (
        "import sys, prism_wsgi.cli\n"
        f"try: prism_wsgi.cli.commands(['{argument}'])\n"
        "finally: print('loaded', {'sqlalchemy', 'alembic'} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert finished.stdout.endswith("loaded set()\n")
