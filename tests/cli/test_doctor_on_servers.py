"""`prism-wsgi doctor` on servers that take no writes, and by the rights of a role that has no more than it needs."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from prism_wsgi import SQLAlchemyStore, migrate
from prism_wsgi.sweeper import Sweeper
from tests.support.command_line import keep, run, store_of
from tests.support.own_pairs import Pair, own_mariadb_pair, own_postgresql_pair
from tests.support.own_servers import OwnServer, own_mariadb, own_postgresql
from tests.support.waiting import eventually

pytestmark = pytest.mark.whole

SERVERS = {"postgresql": own_postgresql, "mariadb": own_mariadb}
PAIRS = {"postgresql": own_postgresql_pair, "mariadb": own_mariadb_pair}
READ_ONLY = {
    "postgresql": ("ALTER DATABASE postgres SET default_transaction_read_only = on",),
    "mariadb": ("SET GLOBAL read_only = 1",),
}
# Two roles who may do nothing yet.
ROLES = {
    "postgresql": ("CREATE ROLE shop LOGIN", "CREATE ROLE broom LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
    "mariadb": ("CREATE USER shop", "CREATE USER broom"),
}


@pytest.fixture(params=SERVERS)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(engine: str) -> Iterator[OwnServer]:
    start: Callable[[], AbstractContextManager[OwnServer]] = SERVERS[engine]
    with start() as server:
        migrate.upgrade(server.url)
        yield server


@pytest.fixture
def pair(engine: str) -> Iterator[Pair]:
    start: Callable[[], AbstractContextManager[Pair]] = PAIRS[engine]
    with start() as pair:
        migrate.upgrade(pair.primary.url)
        yield pair


def levels(url: str) -> dict[str, tuple[str, str]]:
    """Return the level of each check, and what it says."""
    lines = [line.split(maxsplit=2) for line in run("doctor", "--url", url).stdout.splitlines()]
    return {check: (level, said) for level, check, said in lines}


def as_role(url: str, role: str) -> str:
    found: URL = make_url(url).set(username=role)
    return found.render_as_string(hide_password=False)


def test_doctor_fails_on_a_standby_and_says_where_to_go(pair: Pair) -> None:
    url = pair.standby.url
    eventually(lambda: levels(url).get("schema", ("", ""))[0] == "ok", "the standby has not got the schema")
    level, said = levels(url)["writes"]
    assert (level, said.endswith("let --url name a server that takes writes")) == ("fail", True)
    assert run("doctor", "--url", url).exit_code == 1


def test_doctor_fails_on_a_read_only_database(engine: str, server: OwnServer) -> None:
    assert levels(server.url)["writes"][0] == "ok"
    server.execute(*READ_ONLY[engine])
    assert levels(server.url)["writes"][0] == "fail"


def test_doctor_fails_on_a_file_that_is_opened_for_reading_only(empty_sqlite_url: str) -> None:
    path = empty_sqlite_url.removeprefix("sqlite:///")
    level, said = levels(f"sqlite:///file:{path}?mode=ro&uri=true")["writes"]
    assert level == "fail"
    assert "this user must have the right to write to the file and in its directory" in said


def test_role_with_the_rights_that_grants_prints_serves_sweeps_and_satisfies_doctor(
    engine: str, server: OwnServer
) -> None:
    server.execute(*ROLES[engine])
    app, broom = as_role(server.url, "shop"), as_role(server.url, "broom")
    printed = run("db", "grants", "--url", server.url, "--app", "shop", "--sweeper", "broom").stdout
    in_place = [] if engine == "postgresql" else ["USE sessions"]
    server.execute(*in_place, *(line.rstrip(";") for line in printed.splitlines()))
    keep(app, 1, user="ada")
    keep(app, 2, expires_in=-3600)
    with store_of(app) as store:
        assert store.count(user="ada") == 1
        assert store.destroy_all("ada") == 1
    with closing(SQLAlchemyStore(broom)) as store:
        assert Sweeper(store, clock=time.time).sweep().deleted == 1
    for url in (app, broom):
        found = levels(url)
        assert {check: level for check, (level, _) in found.items() if check != "secret"} == dict.fromkeys(
            ("database", "clock", "isolation", "schema", "writes", "sweeper"), "ok"
        ), found


def test_role_without_rights_is_told_by_doctor_how_to_get_them(engine: str, server: OwnServer) -> None:
    server.execute(*ROLES[engine])
    if engine == "mariadb":
        server.execute("GRANT SELECT ON sessions.prism_alembic_version TO shop")
    found = levels(as_role(server.url, "shop"))
    if engine == "mariadb":  # it hides the table from this user
        assert "let an owner run what `prism-wsgi db grants --app ROLE` prints" in found["schema"][1]
        assert "DROP TABLE" not in str(found)
    assert "let an owner run what `prism-wsgi db grants --app ROLE` prints" in found["writes"][1]


def test_directory_that_this_user_may_not_write_in_is_named_with_advice(tmp_path: Path) -> None:
    result = run("db", "upgrade", "--url", f"sqlite:///{tmp_path}/missing/sessions.db")
    assert result.exit_code == 1
    assert "this user must have the right to write" in result.stderr
    assert len(result.stderr.splitlines()) == 1
