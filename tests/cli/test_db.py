"""`prism-wsgi db`."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine

from prism_wsgi import migrate
from tests.support.command_line import run


def test_upgrade_makes_the_schema_and_then_finds_nothing_to_do(database_url: str) -> None:
    steps = ", ".join(one.id for one in migrate.history())
    assert run("db", "upgrade", "--url", database_url).stdout == f"Upgraded: {steps}\n"
    assert migrate.check(database_url).ok
    assert run("db", "upgrade", "--url", database_url).stdout == "Nothing to upgrade\n"


def test_upgrade_and_downgrade_take_revisions_and_steps(sqlite_url: str) -> None:
    def at(*arguments: str) -> str:
        assert run("db", *arguments, "--url", sqlite_url).exit_code == 0
        return run("db", "current", "--url", sqlite_url).stdout.strip()

    assert at("upgrade", "0001") == "0001"
    assert at("upgrade", "+1") == "0002"
    assert at("downgrade", "-1") == "0001"
    assert at("downgrade", "base") == "none"


def test_unknown_revision_is_an_error(sqlite_url: str) -> None:
    result = run("db", "upgrade", "--url", sqlite_url, "nonsense")
    assert result.exit_code == 1
    assert result.stderr == "Error: Can't locate revision identified by 'nonsense'\n"


def test_upgrade_prints_sql_without_a_database() -> None:
    printed = run("db", "upgrade", "--sql", "--url", "postgresql://nobody@nowhere.invalid/none").stdout
    assert "CREATE TABLE prism_sessions" in printed
    assert "COMMIT" in printed


def test_downgrade_prints_sql() -> None:
    printed = run("db", "downgrade", "--sql", "--url", "sqlite://", f"{migrate.head()}:base").stdout
    assert "DROP TABLE prism_sessions" in printed


def test_check_agrees_after_an_upgrade(empty_url: str) -> None:
    result = run("db", "check", "--url", empty_url)
    assert (result.exit_code, result.stdout) == (0, f"The schema is at {migrate.head()}, as it should be\n")


def test_check_of_an_older_schema_fails_and_says_what_to_run(sqlite_url: str) -> None:
    migrate.upgrade(sqlite_url, revision="0013")
    result = run("db", "check", "--url", sqlite_url)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"The schema is at 0013, not at {migrate.head()}; run `prism-wsgi db upgrade`",
        "index ix_prism_sessions_events_actor_id is not expected",
    ]


def test_check_finds_what_was_changed_by_hand(sqlite_url: str) -> None:
    migrate.upgrade(sqlite_url)
    with create_engine(sqlite_url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_prism_sessions_user_id")
    result = run("db", "check", "--url", sqlite_url)
    assert (result.exit_code, result.stdout) == (1, "index ix_prism_sessions_user_id is missing\n")


def test_history_lists_the_revisions_oldest_first() -> None:
    printed = run("db", "history").stdout.splitlines()
    assert [line.split("  ")[0] for line in printed] == [revision.id for revision in migrate.history()]


def test_config_path_is_that_of_the_alembic_ini() -> None:
    assert Path(run("db", "config-path").stdout.strip()) == migrate.config_path()


@pytest.mark.parametrize("command", ["upgrade", "downgrade", "current", "check"])
def test_command_needs_a_database(command: str) -> None:
    assert run("db", command).exit_code == 2


def test_grants_name_every_table_and_both_roles() -> None:
    printed = run("db", "grants", "--url", "postgresql://host/shop", "--app", "shop", "--sweeper", "broom").stdout
    assert printed.splitlines() == [
        f'GRANT {rights} ON "{table}" TO "{role}";'
        for role in ("shop", "broom")
        for table, rights in (
            ("prism_sessions", "SELECT, INSERT, UPDATE, DELETE"),
            ("prism_sessions_sweeps", "SELECT, INSERT, DELETE"),
            ("prism_sessions_events", "SELECT, INSERT, UPDATE, DELETE"),
            ("prism_alembic_version", "SELECT"),
        )
    ]


def test_grants_quote_what_they_are_given_and_name_one_role_once() -> None:
    options = ("--app", 'a"b', "--table-name", "web")
    printed = run("db", "grants", "--url", "postgresql://host/shop", *options).stdout.splitlines()
    assert printed[0] == 'GRANT SELECT, INSERT, UPDATE, DELETE ON "web" TO "a""b";'
    assert len(printed) == 4


def test_sqlite_has_nobody_to_grant_rights_to() -> None:
    result = run("db", "grants", "--url", "sqlite:///shop.db", "--app", "shop")
    assert result.exit_code == 1
    assert "SQLite has no roles" in result.stderr
