"""Connecting: by whose rights, to which schema, through which pooler, and what is said where it fails."""

import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from prism_wsgi import ConfigError, SQLAlchemyStore, StoredSession, StoreUnavailable, migrate
from prism_wsgi.stores.sql.failures import Failure, classify
from prism_wsgi.sweeper import Sweeper
from tests.support.command_line import run
from tests.support.databases import Server, unavailable
from tests.support.newer_debian import command
from tests.support.served import free_port
from tests.support.visitors import run_at_once

ID = "7" * 64


def session(session_id: str = ID, user: str | None = "ada") -> StoredSession:
    now = int(time.time() * 1000)
    return StoredSession(session_id, b"data", 0, now, now + 3_600_000, user)


def saves_and_loads(store: SQLAlchemyStore) -> bool:
    store.save(session())
    found = store.load(ID)
    return found is not None and found.data == b"data"


@pytest.fixture
def database(postgresql_server: Server) -> str:
    """The URL of a PostgreSQL database without options."""
    return postgresql_server.url.set(database=postgresql_server.name).render_as_string(hide_password=False)


@pytest.fixture
def schema(postgresql_url: str) -> str:
    """The name of an empty schema in `database`."""
    return str(make_url(postgresql_url).query["options"]).partition("=")[2]


@pytest.fixture(params=["", "trixie", "sid"], ids=["installed", "of Debian trixie", "of Debian sid"])
def bouncer(postgresql_server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Start a PgBouncer in transaction mode; calling it returns the URL of the database behind it."""
    suite = request.param
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None and not suite:
        unavailable("pgbouncer", "it is not installed")
    started = []

    def start(*settings: str) -> str:
        folder, port = Path("/tmp") / f"prism_bouncer_{os.getpid()}_{free_port()}", free_port()
        folder.mkdir()
        server = postgresql_server.url
        lines = ["[databases]", f"{postgresql_server.name} = host={server.host} port={server.port or 5432} user=root"]
        lines += ["[pgbouncer]", "listen_addr=127.0.0.1", f"listen_port={port}", "unix_socket_dir=", "auth_type=any"]
        lines += ["pool_mode=transaction", "default_pool_size=2", f"logfile={folder}/log", *settings]
        (folder / "ini").write_text("\n".join(lines))
        whose: dict[str, Any] = {}
        if os.getuid() == 0:  # it does not run as root
            whose = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
            for one in (folder, folder / "ini"):
                shutil.chown(one, **whose)
        start = [str(program), "-q", str(folder / "ini")]
        if suite:
            start, whose = command(suite, "nobody", "/usr/sbin/pgbouncer", *start[1:]), {}
        started.append((subprocess.Popen(start, stderr=subprocess.DEVNULL, **whose), folder))
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        return f"postgresql+psycopg://root@127.0.0.1:{port}/{postgresql_server.name}"

    yield start
    for process, folder in started:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder)


def test_the_schema_of_the_url_is_migrated_checked_and_used(database: str, schema: str) -> None:
    url = f"{database}?schema={schema}"
    assert migrate.upgrade(url)[-1] == migrate.head()
    assert migrate.check(url).ok
    store = SQLAlchemyStore(url)
    assert saves_and_loads(store)
    assert [one.id for one in store.find(user="ada")] == [ID]
    assert store.estimate() is None
    assert store.sweep(int(time.time() * 1000) + 4_000_000, 10) == 1
    store.close()
    with create_engine(database, poolclass=NullPool).connect() as connection:
        tables = connection.exec_driver_sql(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")
        assert "prism_sessions" in tables.scalars().all()
    assert run("doctor", "--url", url).exit_code == 0


@pytest.mark.parametrize("name", ["", "Auth", "a b", "user", "a.b", 5])
def test_a_schema_that_is_no_plain_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="schema must be a plain name"):
        SQLAlchemyStore("postgresql://root@127.0.0.1/nowhere", schema=name)


def test_a_schema_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="PostgreSQL"):
        SQLAlchemyStore("sqlite:///sessions.db", schema="auth")


class Provider:
    """Gives out the credentials of the tests' servers, and counts how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> tuple[str, str]:
        self.asked += 1
        return "root", ""


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysqlclient"])
def test_credentials_are_asked_for_at_each_connection(engine: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    migrate.upgrade(url)
    provider = Provider()
    store = SQLAlchemyStore(make_url(url).set(username="nobody_at_all"), credential_provider=provider)
    assert saves_and_loads(store)
    assert provider.asked == 1
    store.close()
    store.load(ID)
    assert provider.asked == 2
    store.close()


def test_a_url_may_name_who_provides_the_credentials(postgresql_url: str) -> None:
    named = f"{__name__}:Provider"
    url = make_url(postgresql_url).set(username="nobody_at_all").render_as_string(hide_password=False)
    url += f"&credential_provider={named}"
    migrate.upgrade(url)
    store = SQLAlchemyStore(url)
    assert saves_and_loads(store)
    store.close()


def test_listeners_of_do_connect_are_honoured(postgresql_url: str) -> None:
    migrate.upgrade(postgresql_url)
    store = SQLAlchemyStore(make_url(postgresql_url).set(username="nobody_at_all"))

    @event.listens_for(store.engine, "do_connect")
    def give_credentials(_: object, __: object, ___: object, named: dict[str, Any]) -> None:
        named["user"] = "root"

    assert saves_and_loads(store)
    store.close()


def test_whatever_a_provider_of_credentials_raises_is_the_store_s_failure(postgresql_url: str) -> None:
    def fail() -> tuple[str, str]:
        raise KeyError("token")

    with pytest.raises(StoreUnavailable, match="KeyError"):
        SQLAlchemyStore(postgresql_url, credential_provider=fail).load(ID)
    with pytest.raises(StoreUnavailable, match=r"\(user, password\)"):
        SQLAlchemyStore(postgresql_url, credential_provider=lambda: ("root",)).load(ID)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("threshold", ["0", "2", "None"])
def test_the_url_may_say_when_psycopg_prepares(postgresql_url: str, threshold: str) -> None:
    url = f"{postgresql_url}&prepare_threshold={threshold}"
    migrate.upgrade(url)
    store = SQLAlchemyStore(url)
    assert saves_and_loads(store)
    store.close()


@pytest.mark.parametrize(
    "setting", ["?transaction_pooling=true", "?transaction_pooling=true&prepare_threshold=0", ""]
)
def test_behind_a_pooler_sessions_are_migrated_used_swept_and_ended(
    bouncer: Callable[..., str], schema: str, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{bouncer()}{setting or '?'}&schema={schema}"
    migrate.upgrade(url)
    assert migrate.check(url).ok
    store = SQLAlchemyStore(url)
    ids = [f"{number:064x}" for number in range(40)]

    def work(part: list[str]) -> None:
        for one in part:
            store.save(session(one))
            found = store.load(one)
            assert found is not None
            store.save(found)

    run_at_once([lambda part=ids[first::4]: work(part) for first in range(4)])  # type: ignore[misc]
    assert store.count() == 40
    assert store.destroy_all("ada", except_id=ids[0]) == 39
    assert Sweeper(store, clock=lambda: time.time() + 2, older_than=0).sweep().error is None
    assert store.sweep(int(time.time() * 1000) + 4_000_000, 10) == 1
    told = [one for one in caplog.records if "transaction_pooling" in one.getMessage()]
    assert [one.levelno for one in told] == ([] if setting else [logging.WARNING])
    assert run("doctor", "--url", url).exit_code == 0
    store.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_a_long_timeout_connects(engine: str, request: pytest.FixtureRequest) -> None:
    store = SQLAlchemyStore(request.getfixturevalue(f"empty_{engine}_url"), timeout=3600)
    store.ping()
    store.close()


@pytest.mark.parametrize("engine", ["mariadb", "mysqlclient"])
@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"])
def test_what_a_server_that_does_not_commit_by_itself_is_given_is_kept(
    engine: str, level: str | None, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    migrate.upgrade(url)
    own = create_engine(url, **({"isolation_level": level} if level else {}))

    @event.listens_for(own, "checkout")
    def stop_committing(connection: Any, _: object, __: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION autocommit=0")

    by_url = SQLAlchemyStore(f"{url}?init_command=SET SESSION autocommit=0, max_error_count=7")
    by_engine = SQLAlchemyStore(own)
    by_url.save(session("1" * 64))
    by_engine.save(session("2" * 64))
    other = SQLAlchemyStore(url)
    assert other.load("1" * 64) is not None
    assert other.load("2" * 64) is not None
    with by_url.engine.connect() as connection:
        variables = "SELECT @@autocommit, @@max_error_count, @@innodb_lock_wait_timeout"
        assert connection.exec_driver_sql(variables).one() == (1, 7, 5)
    by_url.close()
    other.close()
    own.dispose()


@pytest.mark.parametrize("engine", ["mariadb", "mysqlclient"])
def test_a_row_that_changed_behind_the_snapshot_of_a_transaction_is_worth_another_attempt(
    engine: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    migrate.upgrade(url)
    own = create_engine(url, poolclass=NullPool)
    store = SQLAlchemyStore(url)
    store.save(session())
    with own.connect() as connection:
        try:
            connection.exec_driver_sql("SET SESSION innodb_snapshot_isolation = ON")
        except DBAPIError:
            pytest.skip("this server has no innodb_snapshot_isolation")
        change = "UPDATE prism_sessions SET version = version + 1"
        connection.exec_driver_sql("SELECT * FROM prism_sessions").all()
        with own.connect() as other:
            other.exec_driver_sql(change)
            other.commit()
        with pytest.raises(DBAPIError) as raised:
            connection.exec_driver_sql(change)
        driver = connection.connection.dbapi_connection
        assert classify(own.dialect, raised.value, driver) is Failure.BUSY
    store.close()


@pytest.fixture
def ascii_url(postgresql_server: Server) -> Iterator[str]:
    """The URL of a PostgreSQL database that knows no encoding."""
    name = f"{postgresql_server.name}_ascii"
    encoding = "ENCODING SQL_ASCII TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgresql_server.execute(f"CREATE DATABASE {name} {encoding}")
    yield postgresql_server.url.set(database=name).render_as_string(hide_password=False)
    postgresql_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_in_sql_ascii_is_migrated_checked_and_used(ascii_url: str) -> None:
    migrate.upgrade(ascii_url)
    assert migrate.check(ascii_url).ok
    store = SQLAlchemyStore(ascii_url)
    store.save(session(user="Zoë"))
    assert [one.user for one in store.find(user="Zoë")] == ["Zoë"]
    assert run("doctor", "--url", ascii_url).exit_code == 0
    store.close()


def test_an_engine_that_cannot_read_a_database_in_sql_ascii_is_told_how(ascii_url: str) -> None:
    migrate.upgrade(ascii_url)
    own = create_engine(ascii_url, poolclass=NullPool)
    with pytest.raises(StoreUnavailable, match=r"append \?client_encoding=utf8"):
        SQLAlchemyStore(own).load(ID)
    told = create_engine(f"{ascii_url}?client_encoding=utf8", poolclass=NullPool)
    assert saves_and_loads(SQLAlchemyStore(told))


def test_a_file_that_is_deleted_while_it_is_used_is_noticed_and_said(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    migrate.upgrade(sqlite_url)
    store = SQLAlchemyStore(sqlite_url)
    assert saves_and_loads(store)
    file = Path(str(make_url(sqlite_url).database))
    store._connections._next_look = 0.0  # type: ignore[attr-defined]
    store.load(ID)
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()
    store._connections._next_look = 0.0  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="prism-wsgi db upgrade"):
        store.load(ID)
    assert [f"{file} was deleted" in one.getMessage() for one in caplog.records].count(True) == 1
    migrate.upgrade(sqlite_url)
    assert saves_and_loads(store)
    store.close()


def test_a_directory_that_is_not_there_is_said_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="the directory must exist, and this user must have the right"):
        SQLAlchemyStore(f"sqlite:///{tmp_path}/none/sessions.db").load(ID)


def test_the_row_of_another_session_is_not_used(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(sqlite_url)
    store = SQLAlchemyStore(sqlite_url)
    store.save(session())
    store.save(session("8" * 64, "bob"))
    statement, asked = store._statements.select, []

    def run_another(cursor: Any, values: dict[str, object]) -> int:
        asked.append(values)
        return type(statement).run(
            statement, cursor, {"p_id": bytes.fromhex("8" * 64)} if len(asked) == 1 else values
        )

    monkeypatch.setattr(statement, "run", run_another)
    found = store.load(ID)
    assert found is not None
    assert found.user == "ada"
    assert len(asked) == 2
    store.close()
