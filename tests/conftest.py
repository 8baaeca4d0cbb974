"""The fixtures every test may ask for: a fresh database of each engine, empty or migrated; the wheel."""

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from prism_wsgi import migrate
from tests.support import databases, leak_canary, wheels
from tests.support.databases import KeptTable, Server
from tests.support.leak_canary import Canary

pytest_plugins = ["tests.support.chromium", "tests.support.every_store", "tests.support.lanes"]

# Hypothesis takes an example that lasts 200 ms for a fault, and so does a busy machine.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")

ENGINES = ("sqlite", "postgresql", "mariadb", "mysqlclient")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRISM_DATABASE_URL", "PRISM_TABLE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Canary]:
    """Fail the test in which anything said shows a key, a secret, a cookie or data."""
    for canary in leak_canary.listening(monkeypatch):
        yield canary
        assert canary.leaks() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    canary = getattr(item, "funcargs", {}).get("canary")
    if canary is not None and report.when == "call" and report.passed:
        canary.hear(report.capstderr)
    if report.passed:
        report.sections.clear()  # nobody reads what a passed test logged, and pytest-xdist would send it three times
    return report


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    with databases.postgresql_server() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    with databases.mariadb_server() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sessions.db'}"


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> str:
    return postgresql_server.fresh_schema()


@pytest.fixture
def mariadb_url(mariadb_server: Server) -> str:
    return mariadb_server.fresh_database()


@pytest.fixture
def mysqlclient_url(request: pytest.FixtureRequest) -> str:
    databases.need_mysqlclient()
    url: str = request.getfixturevalue("mariadb_url")
    return url.replace("+pymysql:", "+mysqldb:", 1)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "sessions.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _postgresql_table(postgresql_server: Server) -> Iterator[KeptTable]:
    table = KeptTable(postgresql_server.fresh_schema())
    yield table
    table.close()


@pytest.fixture(scope="session")
def _mariadb_table(mariadb_server: Server) -> Iterator[KeptTable]:
    table = KeptTable(mariadb_server.fresh_database())
    yield table
    table.close()


@pytest.fixture
def empty_sqlite_url(_sqlite_template: Path, sqlite_url: str) -> str:
    shutil.copy(_sqlite_template, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture
def empty_postgresql_url(_postgresql_table: KeptTable) -> str:
    return _postgresql_table.emptied()


@pytest.fixture
def empty_mariadb_url(_mariadb_table: KeptTable) -> str:
    return _mariadb_table.emptied()


@pytest.fixture
def empty_mysqlclient_url(request: pytest.FixtureRequest) -> str:
    databases.need_mysqlclient()
    url: str = request.getfixturevalue("empty_mariadb_url")
    return url.replace("+pymysql:", "+mysqldb:", 1)


@pytest.fixture
def redis_prefix() -> Iterator[str]:
    """What the names of this test's keys in Redis begin with."""
    with databases.redis_prefix() as prefix:
        yield prefix


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each engine in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def migrated_url(database_url: str) -> str:
    """The URL of a database with the sessions table, on each engine in turn."""
    migrate.upgrade(database_url)
    return database_url


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once."""
    return wheels.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(params=ENGINES)
def empty_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with an empty sessions table, on each engine in turn, for tests that only use it."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url
