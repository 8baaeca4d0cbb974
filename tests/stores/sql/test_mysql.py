"""A real MySQL beside MariaDB: servers that do not commit by themselves, and MySQL's own authentication."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from prism_wsgi import SQLAlchemyStore, StoredSession, StoreUnavailable, migrate
from prism_wsgi.stores.base import StoredEvent
from tests.support import databases
from tests.support.command_line import run
from tests.support.newer_debian import own_mysql
from tests.support.own_servers import OwnServer, own_mariadb

pytestmark = pytest.mark.whole

Start = Callable[..., AbstractContextManager[OwnServer]]

ID, OTHER = "1" * 64, "2" * 64


@pytest.fixture(params=[own_mariadb, own_mysql], ids=["own mariadb", "own mysql"], scope="module")
def manual_server(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    """A server that commits nothing of a new connection by itself."""
    start: Start = request.param
    with start() as server:
        server.execute("SET GLOBAL autocommit=0")
        yield server


@pytest.fixture(params=["pymysql", "mysqldb"])
def manual_url(manual_server: OwnServer, request: pytest.FixtureRequest) -> str:
    if request.param == "mysqldb":
        databases.need_mysqlclient()
    manual_server.execute("DROP DATABASE sessions", "CREATE DATABASE sessions")
    return manual_server.url.replace("+pymysql:", f"+{request.param}:", 1)


@pytest.fixture(scope="module")
def mysql() -> Iterator[OwnServer]:
    with own_mysql() as server:
        yield server


def session(session_id: str = ID) -> StoredSession:
    now = int(time.time() * 1000)
    return StoredSession(session_id, b"data", 0, now, now + 3_600_000, "ada")


def rows(server: OwnServer, table: str = "prism_sessions") -> list[tuple[Any, ...]]:
    """Return what has been committed to a table."""
    return server.execute(f"SELECT * FROM sessions.{table}")


def stored_versions(server: OwnServer) -> list[int]:
    return [version for (version,) in server.execute("SELECT version FROM sessions.prism_sessions ORDER BY id")]


def test_migrations_are_committed_by_a_server_that_commits_nothing_by_itself(
    manual_server: OwnServer, manual_url: str
) -> None:
    migrate.upgrade(manual_url)
    assert rows(manual_server, "prism_alembic_version") == [(migrate.head(),)]
    assert migrate.check(manual_url).ok


@pytest.mark.parametrize("settings", [None, {}, {"isolation_level": "AUTOCOMMIT"}, {"pool_pre_ping": True}])
def test_each_verb_is_committed_by_a_server_that_commits_nothing_by_itself(
    manual_server: OwnServer, manual_url: str, settings: dict[str, Any] | None
) -> None:
    migrate.upgrade(manual_url)
    engine = None if settings is None else create_engine(manual_url, **settings)
    with closing(SQLAlchemyStore(manual_url if engine is None else engine)) as store:
        store.save(session())
        assert stored_versions(manual_server) == [1]
        loaded = store.load(ID)
        assert loaded is not None
        store.save(loaded)
        assert stored_versions(manual_server) == [2]
        store.save(session(OTHER))
        assert store.destroy_all("ada", except_id=ID) == 1
        assert stored_versions(manual_server) == [2]
        store.add_event(StoredEvent(timestamp=int(time.time() * 1000), kind="logged_in", user="ada"))
        assert len(rows(manual_server, "prism_sessions_events")) == 1
        assert store.sweep(int(time.time() * 1000) + 4_000_000, 10) == 1
        assert stored_versions(manual_server) == []
        store.save(session())
        store.destroy(ID)
        assert stored_versions(manual_server) == []
    if engine is not None:
        engine.dispose()


def with_password(server: OwnServer, name: str) -> str:
    """Return the URL of a user who logs in by MySQL's default authentication, for the first time."""
    server.execute(
        f"DROP USER IF EXISTS {name}", f"CREATE USER {name} IDENTIFIED BY 'a b'", f"GRANT ALL ON sessions.* TO {name}"
    )
    # Without TLS the password is encrypted with RSA, which PyMySQL leaves to cryptography.
    url = make_url(server.url).set(username=name, password="a b").update_query_dict({"ssl_disabled": "true"})
    return url.render_as_string(hide_password=False)


def test_default_authentication_of_mysql_works(mysql: OwnServer) -> None:
    url = with_password(mysql, "shop")
    migrate.upgrade(url)
    with closing(SQLAlchemyStore(url)) as store:
        store.save(session())
        assert store.load(ID) is not None


def test_missing_cryptography_is_one_sentence_that_says_what_to_install(
    mysql: OwnServer, monkeypatch: pytest.MonkeyPatch, empty_sqlite_url: str
) -> None:
    url = with_password(mysql, "bare")
    monkeypatch.setattr("pymysql._auth._have_cryptography", False)
    with pytest.raises(StoreUnavailable, match=r"pip install 'prism_wsgi\[mysql\]'"):
        SQLAlchemyStore(url).load(ID)
    for command in (("db", "upgrade"), ("doctor",), ("sweep",)):
        result = run(*command, "--url", url)
        assert result.exit_code == 1
        assert "pip install 'prism_wsgi[mysql]'" in result.output
    result = run("import", "flask-session", "--from", url, "--url", empty_sqlite_url)
    assert (result.exit_code, "pip install 'prism_wsgi[mysql]'" in result.stderr) == (1, True)


def test_doctor_finds_a_new_mysql_sound(mysql: OwnServer) -> None:
    migrate.upgrade(mysql.url)
    lines = run("doctor", "--url", mysql.url).stdout.splitlines()
    assert [line.split()[:2] for line in lines if "secret" not in line] == [
        ["ok", check] for check in ("database", "clock", "isolation", "schema", "writes", "sweeper")
    ]


def test_read_only_mysql_is_found_by_doctor_and_reported_by_the_store(mysql: OwnServer) -> None:
    migrate.upgrade(mysql.url)
    mysql.execute("SET GLOBAL read_only = 1")
    try:
        assert "fail  writes" in run("doctor", "--url", mysql.url).stdout
        with closing(SQLAlchemyStore(mysql.url)) as store, pytest.raises(StoreUnavailable):
            store.save(session())
    finally:
        mysql.execute("SET GLOBAL read_only = 0")
    with create_engine(mysql.url, poolclass=NullPool).connect() as connection:
        assert connection.exec_driver_sql("SELECT @@read_only").scalar_one() == 0
