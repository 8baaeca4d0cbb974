"""SQLAlchemyStore on real databases: statements, failures of the server, forks, and engines that are not its own."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import psycopg.errors
import pymysql
import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, make_url, select, text

from prism_wsgi import (
    ConfigError,
    SchemaMissing,
    SessionConflict,
    SessionExists,
    SessionGone,
    SQLAlchemyStore,
    StoredSession,
    StoreUnavailable,
    migrate,
    retry,
)
from prism_wsgi.stores.kept import MAX_CONNECTIONS, ConnectionLease
from prism_wsgi.stores.sql import store as sql
from prism_wsgi.stores.sql.connections import Connection
from prism_wsgi.stores.sql.schema import HOUR_MS
from prism_wsgi.testing import ManualClock, loaded, marker_of, new_session, race
from tests.support import databases

SERVERS = ["postgresql", "mariadb", "mysqlclient"]


@pytest.fixture
def store(empty_url: str) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(empty_url)
    yield store
    store.close()


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with an empty sessions table, on each engine that is a server."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture
def on_server(server_url: str) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(server_url)
    yield store
    store.close()


def dialect_of(store: SQLAlchemyStore) -> str:
    return store.engine.dialect.name.replace("mariadb", "mysql")


def later(session: StoredSession, version: int = 1) -> StoredSession:
    """The session as it was stored in that version, used a second later."""
    return replace(session, version=version, expires_at=session.expires_at + 1000)


def give_back(*leases: ConnectionLease[Connection]) -> None:
    for lease in leases:
        with lease:
            pass


# What is wrong when the store is made, or before the migrations have run


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.load("0" * 64),
        lambda store: store.save(new_session()),
        lambda store: store.destroy("0" * 64),
        lambda store: store.touch(new_session(version=1)),
        lambda store: store.replace(new_session(), new_session()),
        lambda store: store.sweep(1, 1),
        lambda store: store.find_all(),
        lambda store: store.destroy_all("alice"),
        lambda store: store.stats(),
    ],
    ids=["load", "save", "destroy", "touch", "replace", "sweep", "find", "destroy_all", "stats"],
)
def test_missing_table_names_the_command_that_makes_it(
    database_url: str, use: Callable[[SQLAlchemyStore], object]
) -> None:
    store = SQLAlchemyStore(database_url, timeout=1)
    with pytest.raises(SchemaMissing, match="prism-wsgi db upgrade") as error:
        use(store)
    assert "prism_sessions" in str(error.value)
    store.close()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "cannot be read"),
        ("not a url", "cannot be read"),
        ("postgres://localhost/db", "postgresql://"),
        ("nosuch://localhost/db", "nosuch"),
        ("sqlite+pysqlcipher:///x.db", "install"),
        ("sqlite://", "MemoryStore"),
        ("sqlite:///:memory:", "MemoryStore"),
        ("mysql+mysqlconnector://localhost/db", "install"),
        (None, "cannot be read"),
        (5, "cannot be read"),
    ],
)
def test_url_that_cannot_work_is_a_configuration_error(url: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SQLAlchemyStore(url)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("timeout", 0), ("timeout", True), ("timeout", "5"), ("sqlite_synchronous", "OFF"), ("table_name", "a; DROP")],
)
def test_setting_that_cannot_work_is_a_configuration_error(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        SQLAlchemyStore("sqlite:///x.db", **{setting: value})


def test_nothing_is_connected_before_the_first_use() -> None:
    store = SQLAlchemyStore("postgresql://nobody@127.0.0.1:1/nowhere")
    assert "nowhere" in repr(store)


@pytest.mark.whole
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql", "mysql+mysqldb"])
def test_unreachable_server_is_reported_without_the_password(driver: str) -> None:
    if driver == "mysql+mysqldb":
        databases.need_mysqlclient()
    store = SQLAlchemyStore(f"{driver}://user:hunter2@127.0.0.1:1/db", timeout=1)
    with pytest.raises(StoreUnavailable) as error:
        store.load("0" * 64)
    told = "".join(traceback.format_exception(error.value)) + repr(store) + str(error.value)
    assert "hunter2" not in told


def test_wrong_password_is_not_shown(on_server: SQLAlchemyStore, server_url: str) -> None:
    if dialect_of(on_server) == "postgresql":
        pytest.skip("this server trusts everybody")
    store = SQLAlchemyStore(make_url(server_url).set(username="nobody", password="hunter2"))
    with pytest.raises(StoreUnavailable) as error:
        store.load("0" * 64)
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


def test_error_of_the_database_shows_no_data(store: SQLAlchemyStore) -> None:
    session = new_session(data=b"canary-data", user="canary-user\0" + "x" * 300)
    if dialect_of(store) == "sqlite":
        store.save(replace(session, user=None))
        session = replace(session, user="canary-user")
    with pytest.raises((StoreUnavailable, SessionExists)) as error:
        store.save(session)
    told = "".join(traceback.format_exception(error.value))
    assert "canary" not in str(error.value)
    assert "canary-data" not in told
    assert store.load(new_session().id) is None


def test_taken_id_is_reported_without_the_row(store: SQLAlchemyStore) -> None:
    session = new_session(data=b"canary", user="canary")
    store.save(session)
    with pytest.raises(SessionExists) as error:
        store.save(session)
    assert "canary" not in "".join(traceback.format_exception(error.value))


# Statements


@dataclass
class Wire:
    """What goes over a store's cursors, and what is made to go wrong there."""

    statements: list[str] = field(default_factory=list)
    faults: list[tuple[str, str, Callable[[Any], None]]] = field(default_factory=list)

    def fail(self, when: str, statement: str, fault: Callable[[Any], None], times: int = 1) -> None:
        """Let `fault` happen before or after the next statement that begins so."""
        self.faults += [(when, statement, fault)] * times

    def happen(self, when: str, statement: str, cursor: Any) -> None:
        for fault in self.faults:
            if fault[0] == when and statement.startswith(fault[1]):
                self.faults.remove(fault)
                fault[2](cursor)
                return


class WatchedCursor:
    """A driver's cursor under watch."""

    def __init__(self, cursor: Any, wire: Wire) -> None:
        self._cursor = cursor
        self._wire = wire

    def execute(self, statement: str, *parameters: object) -> object:
        self._wire.statements.append(statement.split()[0])
        self._wire.happen("before", statement, self._cursor)
        result = self._cursor.execute(statement, *parameters)
        self._wire.happen("after", statement, self._cursor)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[SQLAlchemyStore], Wire]:
    """Put the cursors of a store under watch."""

    def start(store: SQLAlchemyStore) -> Wire:
        wire, acquire = Wire(), store._connections.acquire

        def watched() -> ConnectionLease[Connection]:
            lease = acquire()
            if not isinstance(lease.connection.cursor, WatchedCursor):
                lease.connection.cursor = WatchedCursor(lease.connection.cursor, wire)
            return lease

        monkeypatch.setattr(store._connections, "acquire", watched)
        return wire

    return start


Watch = Callable[[SQLAlchemyStore], Wire]


def test_each_verb_takes_as_few_statements_as_it_can(store: SQLAlchemyStore, watch: Watch) -> None:
    session, wire = new_session(), watch(store)

    def statements_of(verb: Callable[[], object]) -> list[str]:
        wire.statements.clear()
        verb()
        return list(wire.statements)

    assert statements_of(lambda: store.load(session.id)) == ["SELECT"]
    assert statements_of(lambda: store.save(session)) == ["INSERT"]
    assert statements_of(lambda: store.load(session.id)) == ["SELECT"]
    assert statements_of(lambda: store.save(replace(session, version=1))) == ["UPDATE"]
    assert statements_of(lambda: store.touch(later(session, version=2))) == ["UPDATE"]
    new = new_session()
    marker = replace(marker_of(session), version=2)
    assert statements_of(lambda: store.replace(marker, new)) == ["BEGIN", "UPDATE", "INSERT"]
    assert statements_of(lambda: store.destroy(new.id)) == ["DELETE"]
    assert statements_of(lambda: store.destroy(session.id)) == ["DELETE", "SELECT", "DELETE"]  # a marker


def test_load_is_one_command_on_the_wire(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver: Any = pymysql.connections.Connection
    migrate.upgrade(mariadb_url)
    store, session = SQLAlchemyStore(mariadb_url), new_session()
    store.save(session)
    commands: list[str] = []
    send = driver._execute_command

    def counted(connection: Any, command: int, statement: Any) -> None:
        commands.append(statement.decode().split()[0] if isinstance(statement, bytes) else statement)
        send(connection, command, statement)

    monkeypatch.setattr(driver, "_execute_command", counted)
    store.load(session.id)
    store.save(replace(session, version=1))
    store.touch(later(session, version=2))
    assert commands == ["SELECT", "UPDATE", "UPDATE"]
    store.close()


def test_two_statements_of_sqlite_take_the_write_lock_at_once(empty_sqlite_url: str) -> None:
    store, session, traced = SQLAlchemyStore(empty_sqlite_url), new_session(), list[str]()
    store.save(session)
    lease = store._connections.acquire()
    driver: Any = lease.connection.pooled.dbapi_connection
    driver.set_trace_callback(lambda statement: traced.append(statement.split("_")[0].split("\n")[0]))
    give_back(lease)
    store.replace(marker_of(session), new_session())
    assert [statement.split(" prism")[0] for statement in traced] == [
        "BEGIN IMMEDIATE",
        "UPDATE",
        "INSERT INTO",
        "COMMIT",
    ]
    store.close()


@pytest.mark.parametrize(("setting", "level"), [("NORMAL", 1), ("FULL", 2)])
def test_sqlite_writes_ahead_and_waits_for_locks(empty_sqlite_url: str, setting: str, level: int) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, timeout=3, sqlite_synchronous=setting)
    store.load("0" * 64)
    with closing(store.engine.raw_connection()) as connection:
        cursor = connection.cursor()
        found = [
            cursor.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert found == [("wal",), (level,), (3000,)]
    store.close()


def test_many_may_be_the_first_to_open_a_sqlite_file(empty_sqlite_url: str) -> None:
    with closing(sqlite3.connect(str(make_url(empty_sqlite_url).database))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    stores = [SQLAlchemyStore(empty_sqlite_url) for _ in range(16)]
    assert set(race([lambda store=store: store.save(new_session()) for store in stores])) == {None}  # type: ignore[misc]
    assert stores[0].stats().live == 16
    for store in stores:
        store.close()


# Bytes


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"])
@pytest.mark.parametrize("size", [65_535, 65_536, 70_000, 1_000_000])
def test_data_is_never_cut_even_where_mariadb_is_not_strict(
    driver: str, size: int, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{driver}_url")
    migrate.upgrade(url)
    lenient = make_url(url).update_query_dict({"init_command": "SET SESSION sql_mode=''"})
    store, session = SQLAlchemyStore(lenient), new_session(data=os.urandom(size))
    store.save(session)
    assert loaded(store, session).data == session.data
    store.save(replace(session, version=1, data=session.data[::-1]))
    assert loaded(store, session).data == session.data[::-1]
    store.close()


def stored_bucket(store: SQLAlchemyStore) -> int:
    with store.engine.connect() as connection:
        return int(connection.scalar(select(store.table.c.sweep_bucket)) or 0)


def write_expiry(store: SQLAlchemyStore, session: StoredSession, verb: str) -> StoredSession:
    """Touch or save the session with the expiry that it has, and return it as it is stored then."""
    if verb == "touch":
        assert store.touch(session)
    else:
        store.save(session)
    return loaded(store, session)


@pytest.mark.parametrize("verb", ["touch", "save"])
def test_row_is_always_in_a_bucket_that_covers_its_expiry(store: SQLAlchemyStore, verb: str) -> None:
    """Or sweeps would pass over it again and again, or never come to it."""
    session, step = new_session(), HOUR_MS // 4
    store.save(session)
    session, buckets = loaded(store, session), []
    for _ in range(20):
        session = write_expiry(store, replace(session, expires_at=session.expires_at + step), verb)
        hour = -(-session.expires_at // HOUR_MS)
        assert hour <= stored_bucket(store) <= hour + 2
        buckets.append(stored_bucket(store))
    assert len(set(buckets)) <= 3, "five hours, three to a bucket"


def test_row_that_is_to_expire_much_sooner_gets_another_bucket(store: SQLAlchemyStore) -> None:
    session = new_session()
    store.save(replace(session, expires_at=session.expires_at + 24 * HOUR_MS))
    store.save(replace(session, version=1))
    assert stored_bucket(store) <= -(-session.expires_at // HOUR_MS) + 2


def test_touch_that_comes_late_moves_neither_expiry_nor_bucket_back(store: SQLAlchemyStore) -> None:
    session = new_session()
    kept = replace(session, expires_at=session.expires_at + 24 * HOUR_MS)
    store.save(kept)
    before = stored_bucket(store)
    assert store.touch(replace(session, version=1, last_seen_at=5))
    assert store.load(session.id) == replace(kept, version=1, last_seen_at=5)
    assert stored_bucket(store) == before


def test_oldest_expired_is_found_where_its_bucket_is_not_the_lowest(store: SQLAlchemyStore) -> None:
    moment = 1_000_000 * HOUR_MS
    for number, (hours, bucket) in enumerate([(-0.1, 1_000_000), (-0.9, 1_000_002), (5.0, 1_000_006)]):
        session = replace(new_session(), id=f"{number:064x}", expires_at=moment + int(hours * HOUR_MS))
        store.save(session)
        with store.engine.begin() as connection:
            connection.execute(
                store.table.update().where(store.table.c.id == bytes.fromhex(session.id)).values(sweep_bucket=bucket)
            )
    assert store.oldest_expired(moment) == moment - int(0.9 * HOUR_MS)
    assert store.sweep(moment, 10) == 2


def test_expiry_of_the_far_future_has_a_bucket(store: SQLAlchemyStore) -> None:
    session = new_session(expires_at=2**62)
    store.save(session)
    assert store.touch(replace(session, version=1, expires_at=2**62 + 1))
    assert loaded(store, session).expires_at == 2**62 + 1


@pytest.mark.parametrize(
    "session_id", ["", "0", "0" * 63, "0" * 66, "A" * 64, "g" * 64, " " * 64, "é" * 64, "0" * 62 + "\n\n", None, 5]
)
def test_what_cannot_be_an_id_is_not_stored_and_asks_nothing(session_id: Any, watch: Watch) -> None:
    store = SQLAlchemyStore("postgresql://nobody@127.0.0.1:1/nowhere")
    assert store.load(session_id) is None
    assert store.touch(replace(new_session(), id=session_id)) is False
    store.destroy(session_id)


@pytest.mark.parametrize("version", [0, 1])
def test_session_under_what_cannot_be_an_id_is_refused(store: SQLAlchemyStore, version: int) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        store.save(replace(new_session(version=version), id="A" * 64))


def test_other_spelling_of_an_id_is_another_id(store: SQLAlchemyStore) -> None:
    session = replace(new_session(), id="ab" * 32)
    store.save(session)
    assert store.load("AB" * 32) is None
    store.destroy("AB" * 32)
    assert store.load(session.id) is not None


# Users


def plan_of(store: SQLAlchemyStore, user: str) -> str:
    """Return how the database looks for a user's sessions."""
    statements: list[tuple[str, Any]] = []

    @event.listens_for(store.engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, values: object, *___: object) -> None:
        statements.append((statement, values))

    store.find(user=user)
    event.remove(store.engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if dialect_of(store) == "sqlite" else "EXPLAIN"
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statements[0][0]}", statements[0][1]).all()
    return "\n".join(str(value) for row in rows for value in row)  # the text of a whole row would be shortened


def test_sessions_of_a_user_and_of_an_actor_are_found_by_their_indexes(store: SQLAlchemyStore) -> None:
    rows = [
        {
            "id": bytes.fromhex(f"{number:064x}"),
            "data": b"x" * 100,
            "version": 1,
            "user_id": f"user{number}" if number % 2 else None,
            "actor_id": f"actor{number}" if number % 500 == 1 else None,
            "created_at": 1,
            "expires_at": 2**40,
            "sweep_bucket": 2**20,
            "superseded": False,
        }
        for number in range(5000)
    ]
    analyze = {"mysql": "ANALYZE TABLE prism_sessions"}.get(dialect_of(store), "ANALYZE prism_sessions")
    with store.engine.begin() as connection:
        connection.execute(store.table.insert(), rows)
    with store.engine.connect() as connection:
        connection.exec_driver_sql(analyze).close()
    plan = plan_of(store, "user7")
    assert "ix_prism_sessions_user_id" in plan
    assert "ix_prism_sessions_actor_id" in plan
    assert 2500 <= (store.estimate() or 0) <= 10_000


def test_user_whose_name_ends_in_spaces_is_another_user(store: SQLAlchemyStore) -> None:
    for user, actor in (("ada", "root"), ("ada ", "root "), ("bob", None)):
        store.save(replace(new_session(user=user), actor=actor))
    assert [store.count(user=name) for name in ("ada", "ada ", "root", "root ", "bob")] == [1] * 5
    assert store.destroy_all("root ") == 1
    assert [one.user for one in store.find(user="ada")] == ["ada"]
    assert store.count(user="ada ") == 0


def test_estimate_is_none_where_there_are_no_statistics(empty_sqlite_url: str) -> None:
    store = SQLAlchemyStore(empty_sqlite_url)
    assert store.estimate() is None
    store.close()


READING_ONLY: dict[str, dict[str, str]] = {
    "postgresql": {"options": "-c default_transaction_read_only=on"},
    "mariadb": {"init_command": "SET SESSION TRANSACTION READ ONLY"},
    "sqlite": {"mode": "ro", "uri": "true"},
}


@pytest.mark.parametrize("driver", READING_ONLY)
def test_ping_fails_where_sessions_are_read_and_not_written(driver: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{driver}_url")
    migrate.upgrade(url)
    target = make_url(url)
    if driver == "sqlite":
        target = target.set(database=f"file:{target.database}")
    options = READING_ONLY[driver]
    if "options" in target.query:
        options = {"options": f"{target.query['options']} {options['options']}"}
    store = SQLAlchemyStore(target.update_query_dict(options), timeout=1)
    assert store.load(new_session().id) is None
    with pytest.raises(StoreUnavailable):
        store.ping()
    store.close()


@pytest.mark.parametrize("missing", ["UPDATE", "SELECT"])
def test_ping_fails_where_the_database_user_lacks_a_right(postgresql_url: str, missing: str) -> None:
    migrate.upgrade(postgresql_url)
    admin, role = create_engine(postgresql_url), f"prism_test_{os.getpid()}_{missing.lower()}"
    rights = ", ".join({"SELECT", "INSERT", "UPDATE", "DELETE"} - {missing})
    with admin.begin() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        connection.exec_driver_sql(f"GRANT {rights} ON prism_sessions TO {role}")
    store = SQLAlchemyStore(make_url(postgresql_url).set(username=role), timeout=1)
    try:
        with pytest.raises(StoreUnavailable, match="permission denied"):
            store.ping()
    finally:
        store.close()
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        admin.dispose()


# Connections


@pytest.mark.parametrize(("setting", "value"), [("max_connections", 0), ("max_connections", 1.5), ("max_idle", 0)])
def test_number_of_connections_that_cannot_work_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        SQLAlchemyStore("sqlite:///x.db", **{setting: value})


def test_settings_of_connections_do_not_go_with_the_applications_engine() -> None:
    with pytest.raises(ConfigError, match="pool_size"):
        SQLAlchemyStore(create_engine("sqlite:///x.db"), max_connections=3)


def test_maintenance_takes_no_connection_beyond_the_limit(empty_url: str) -> None:
    store = SQLAlchemyStore(empty_url, max_connections=1, timeout=0.2)
    with store._connections.acquire(), pytest.raises(StoreUnavailable, match="max_connections"):
        store.stats()
    assert store.stats().live == 0
    store.close()


def test_role_that_may_have_few_connections_is_waited_for(postgresql_url: str) -> None:
    migrate.upgrade(postgresql_url)
    admin, role = create_engine(postgresql_url), f"prism_test_{os.getpid()}_few"
    with admin.begin() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    store = SQLAlchemyStore(make_url(postgresql_url).set(username=role), timeout=30)
    sessions = [new_session() for _ in range(12)]
    try:
        assert set(race([lambda session=session: store.save(session) for session in sessions])) == {None}  # type: ignore[misc]
        assert store.count() == 12
    finally:
        store.close()
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        admin.dispose()


def test_every_connection_is_back_after_each_use(store: SQLAlchemyStore) -> None:
    session = new_session()
    store.save(session)
    for use in VERBS.values():
        with suppress(SessionGone, SessionConflict):
            use(store, session)
    with pytest.raises(SessionGone):
        store.replace(marker_of(new_session()), new_session())
    held = [store._connections.acquire() for _ in range(MAX_CONNECTIONS)]
    give_back(*held)


def test_wait_for_a_connection_is_bounded(empty_sqlite_url: str) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, timeout=0.2)
    held = [store._connections.acquire() for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(StoreUnavailable):
        store.load("0" * 64)
    give_back(*held)
    assert store.load("0" * 64) is None
    store.close()


def test_many_threads_share_few_connections(store: SQLAlchemyStore) -> None:
    sessions = [new_session(data=b"%d" % number) for number in range(40)]

    def use(session: StoredSession) -> bool:
        store.save(session)
        for version in range(1, 6):
            stored = loaded(store, session)
            assert (stored.data, stored.version) == (session.data, version)
            store.save(stored)
        return True

    assert race([lambda session=session: use(session) for session in sessions]) == [True] * 40  # type: ignore[misc]


def kill_idle_connections(store: SQLAlchemyStore) -> int:
    """Let the server close every connection to the store's database; return how many there were."""
    admin = create_engine(store.engine.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        if dialect_of(store) == "postgresql":
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            killed = len(connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}")).all())
            while connection.scalar(text(f"SELECT count(*) {others}")):
                pass
        else:
            others = "FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
            found = connection.scalars(text(f"SELECT id {others}")).all()
            killed = len(found)
            for number in found:
                connection.execute(text(f"KILL {number}"))
            while connection.scalar(text(f"SELECT count(*) {others}")):
                pass
    admin.dispose()
    return killed


VERBS: dict[str, Callable[[SQLAlchemyStore, StoredSession], object]] = {
    "load": lambda store, session: store.load(session.id),
    "insert": lambda store, session: store.save(new_session()),
    "update": lambda store, session: store.save(replace(session, version=1)),
    "destroy": lambda store, session: store.destroy(session.id),
    "touch": lambda store, session: store.touch(later(session)),
    "replace": lambda store, session: store.replace(marker_of(session), new_session()),
    "find": lambda store, session: store.find_all(),
    "destroy_all": lambda store, session: store.destroy_all("alice"),
    "sweep": lambda store, session: store.sweep(1, 1),
    "stats": lambda store, session: store.stats(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("own_engine", [False, True], ids=["by URL", "on an engine"])
def test_idle_connection_killed_by_the_server_goes_unnoticed(server_url: str, verb: str, own_engine: bool) -> None:
    engine = create_engine(server_url) if own_engine else None
    store, session = SQLAlchemyStore(engine or server_url), new_session()
    store.save(session)
    store.stats()
    assert kill_idle_connections(store) >= 1
    VERBS[verb](store, session)
    store.close()
    store.engine.dispose()


@pytest.mark.parametrize("callers", [1, 16])
def test_many_idle_connections_killed_by_the_server_go_unnoticed(on_server: SQLAlchemyStore, callers: int) -> None:
    session = new_session()
    on_server.save(session)
    begun = threading.Barrier(MAX_CONNECTIONS)
    acquire = on_server._connections.acquire

    def open_one() -> None:
        with acquire():
            begun.wait(30)

    race([open_one] * MAX_CONNECTIONS)
    assert kill_idle_connections(on_server) >= MAX_CONNECTIONS > sql.MAX_ATTEMPTS
    found = race([lambda: on_server.load(session.id)] * callers)
    assert found == [replace(session, version=1)] * callers


# Faults


def drop_connection(cursor: Any) -> None:
    """What a driver does when the server goes away in the middle of an answer."""
    connection = cursor.connection
    if "psycopg" in type(connection).__module__:
        connection.close()
        raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")
    if "pymysql" in type(connection).__module__:
        connection._force_close()
        raise pymysql.OperationalError(2013, "Lost connection to MySQL server during query")
    import MySQLdb

    connection.close()
    raise MySQLdb.OperationalError(2013, "Lost connection to server during query")


def raising(store: SQLAlchemyStore, sqlstate: str, number: int) -> Callable[[Any], None]:
    """A fault that raises an error of the store's driver."""

    def fault(_: Any) -> None:
        if dialect_of(store) == "postgresql":
            raise psycopg.errors.lookup(sqlstate)("injected")
        driver: Any = store.engine.dialect.loaded_dbapi
        raise driver.OperationalError(number, "injected")

    return fault


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["insert", "update", "destroy", "touch"])
def test_connection_lost_around_a_statement_leaves_exactly_one_effect(
    on_server: SQLAlchemyStore, watch: Watch, verb: str, when: str
) -> None:
    session = new_session()
    if verb != "insert":
        on_server.save(session)
    wire = watch(on_server)
    statement = {"insert": "INSERT", "update": "UPDATE", "destroy": "DELETE", "touch": "UPDATE"}[verb]
    wire.fail(when, statement, drop_connection)
    changed = replace(session, data=b"changed", version=0 if verb == "insert" else 1)
    used = later(session)
    if verb in ("insert", "update"):
        on_server.save(changed)
        assert on_server.load(session.id) == replace(changed, version=changed.version + 1)
    elif verb == "touch":
        assert on_server.touch(used) is True
        assert on_server.load(session.id) == used
    else:
        on_server.destroy(session.id)
        assert on_server.load(session.id) is None
    assert wire.faults == []


@pytest.mark.parametrize("statement", ["BEGIN", "UPDATE", "INSERT"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_lost_inside_a_replacement_leaves_exactly_one_effect(
    on_server: SQLAlchemyStore, watch: Watch, statement: str, when: str
) -> None:
    session, new = new_session(), new_session()
    on_server.save(session)
    wire = watch(on_server)
    wire.fail(when, statement, drop_connection)
    on_server.replace(marker_of(session), new)
    assert loaded(on_server, session).superseded
    assert loaded(on_server, session).version == 2
    assert on_server.load(new.id) == replace(new, version=1)
    assert wire.faults == []


class LosingCommit:
    """A connection that commits, and is lost before the answer."""

    def __init__(self, pooled: Any, commits: list[str]) -> None:
        self._pooled = pooled
        self._commits = commits

    def commit(self) -> None:
        self._pooled.commit()
        self._commits.append("commit")
        drop_connection(self._pooled.cursor())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pooled, name)


def test_commit_whose_answer_is_lost_is_found_to_have_happened(on_server: SQLAlchemyStore) -> None:
    session, new = new_session(), new_session()
    on_server.save(session)
    lease, commits = on_server._connections.acquire(), list[str]()
    lease.connection.pooled = LosingCommit(lease.connection.pooled, commits)  # type: ignore[assignment]
    give_back(lease)
    on_server.replace(marker_of(session), new)
    assert commits == ["commit"]
    assert loaded(on_server, session).version == 2
    assert on_server.load(new.id) == replace(new, version=1)


def test_rival_that_saved_while_the_answer_was_lost_is_not_overwritten(
    on_server: SQLAlchemyStore, watch: Watch
) -> None:
    session = new_session()
    on_server.save(session)
    rival = SQLAlchemyStore(on_server.engine.url)

    def lose_to_rival(cursor: Any) -> None:
        rival.save(replace(session, version=1, data=b"rival"))
        drop_connection(cursor)

    watch(on_server).fail("before", "UPDATE", lose_to_rival)
    with pytest.raises(SessionConflict):
        on_server.save(replace(session, version=1, data=b"mine"))
    assert loaded(on_server, session).data == b"rival"
    rival.close()


@pytest.mark.parametrize(
    ("sqlstate", "number"),
    [("40001", 1213), ("40P01", 1213), ("55P03", 1205)],
    ids=["serialisation failure", "deadlock", "lock wait"],
)
def test_save_is_repeated_after_a_deadlock(
    on_server: SQLAlchemyStore, watch: Watch, sqlstate: str, number: int
) -> None:
    session, new, wire = new_session(), new_session(), watch(on_server)
    wire.fail("before", "INSERT", raising(on_server, sqlstate, number), times=3)
    on_server.save(session)
    wire.fail("before", "INSERT", raising(on_server, sqlstate, number), times=3)
    on_server.replace(marker_of(session), new)
    assert loaded(on_server, session).version == 2
    assert loaded(on_server, new).version == 1


def test_deadlocks_without_end_are_given_up(on_server: SQLAlchemyStore, watch: Watch) -> None:
    session, wire = new_session(), watch(on_server)
    wire.fail("before", "INSERT", raising(on_server, "40P01", 1213), times=1000)
    with pytest.raises(StoreUnavailable):
        on_server.save(session)
    assert len(wire.statements) <= sql.MAX_ATTEMPTS
    wire.faults.clear()
    assert on_server.load(session.id) is None


def test_connection_that_failed_as_nobody_expected_is_not_used_again(
    on_server: SQLAlchemyStore, watch: Watch
) -> None:
    lease = on_server._connections.acquire()
    failed = lease.connection
    give_back(lease)
    watch(on_server).fail("before", "INSERT", raising(on_server, "XX000", 1105))
    with pytest.raises(StoreUnavailable):
        on_server.save(new_session())
    with on_server._connections.acquire() as lease:
        assert lease.connection is not failed


def test_connection_that_cannot_even_roll_back_is_not_used_again(
    on_server: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, refuse = new_session(), raising(on_server, "XX000", 1105)
    on_server.save(session)
    lease = on_server._connections.acquire()
    failed = lease.connection
    give_back(lease)
    monkeypatch.setattr(failed.pooled, "rollback", lambda: refuse(None))
    with pytest.raises(SessionConflict):
        on_server.replace(replace(marker_of(session), version=9), new_session())
    with on_server._connections.acquire() as lease:
        assert lease.connection is not failed


def test_attempts_that_take_long_are_given_up_at_the_timeout(
    on_server: SQLAlchemyStore, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, wire = [0.0], watch(on_server)
    deadlock = raising(on_server, "40P01", 1213)

    def fail_slowly(cursor: Any) -> None:
        seconds[0] += 2
        deadlock(cursor)

    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=lambda _: None))
    wire.fail("before", "INSERT", fail_slowly, times=1000)
    with pytest.raises(StoreUnavailable):
        on_server.save(new_session())
    assert len(wire.statements) == 3  # timeout=5


def test_pauses_between_attempts_grow(
    on_server: SQLAlchemyStore, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(retry, "pause", lambda number, **_: pauses.append(number))
    watch(on_server).fail("before", "INSERT", raising(on_server, "40P01", 1213), times=3)
    on_server.save(new_session())
    assert pauses == [0, 1, 2]


@pytest.mark.parametrize("own_engine", [False, True], ids=["by URL", "on an engine"])
@pytest.mark.parametrize("verb", ["insert", "update", "touch", "replace", "destroy", "destroy_all"])
def test_server_that_became_read_only_is_left_for_its_successor(server_url: str, verb: str, own_engine: bool) -> None:
    engine = create_engine(server_url, pool_size=1) if own_engine else None
    store, session = SQLAlchemyStore(engine or server_url), new_session()
    store.save(session)
    command = "SET SESSION TRANSACTION READ ONLY"
    if dialect_of(store) == "postgresql":
        command = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    with store._connections.acquire() as lease:
        lease.connection.cursor.execute(command)
        if not lease.connection.is_autocommit:
            lease.connection.pooled.commit()
    VERBS[verb](store, session)
    store.close()
    store.engine.dispose()


@pytest.mark.parametrize(("sqlstate", "number"), [("25006", 1290), ("25006", 1047), ("25006", 1836)])
def test_server_that_stays_read_only_is_reported(
    on_server: SQLAlchemyStore, watch: Watch, sqlstate: str, number: int
) -> None:
    wire = watch(on_server)
    wire.fail("before", "INSERT", raising(on_server, sqlstate, number), times=1000)
    with pytest.raises(StoreUnavailable):
        on_server.save(new_session())
    assert 1 < len(wire.statements) <= sql.MAX_ATTEMPTS


@contextmanager
def holding_lock(store: SQLAlchemyStore, session: StoredSession) -> Iterator[None]:
    """Hold, in a transaction of somebody else's, the lock that a save of the session needs."""
    other = create_engine(store.engine.url)
    with other.connect() as connection:
        if dialect_of(store) == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(
                store.table.update().where(store.table.c.id == bytes.fromhex(session.id)).values(user_id="other")
            )
        yield
        connection.rollback()
    other.dispose()


def test_wait_for_a_lock_is_bounded(empty_url: str) -> None:
    store, session = SQLAlchemyStore(empty_url, timeout=0.3), new_session()
    store.save(session)
    with holding_lock(store, session):
        with pytest.raises(StoreUnavailable):
            store.save(replace(session, version=1, data=b"late"))
        assert loaded(store, session).data == session.data
    store.save(replace(session, version=1, data=b"in time"))
    assert loaded(store, session).data == b"in time"
    store.close()


class Interrupted(BaseException):
    """What a server raises into a worker that took too long."""


@pytest.mark.parametrize("driver", ["postgresql", "mariadb"])
def test_connection_interrupted_in_the_middle_of_an_answer_is_not_used_again(
    driver: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{driver}_url")
    migrate.upgrade(url)
    store, session = SQLAlchemyStore(url), new_session()
    store.save(session)

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with holding_lock(store, session):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                store.save(replace(session, version=1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert loaded(store, session).id == session.id
    stored = loaded(store, session)
    store.save(replace(stored, data=b"after"))
    assert loaded(store, session).data == b"after"
    store.close()


# Forks


def use_in_child(store: SQLAlchemyStore, number: int) -> None:
    session = new_session(data=b"%d" % number)
    store.save(session)
    for version in range(1, 51):
        stored = loaded(store, session)
        assert (stored.data, stored.version) == (b"%d" % number, version)
        store.save(stored)
    store.stats()


def connection_name(store: SQLAlchemyStore) -> object:
    """What the server calls the connection that the store uses next."""
    function = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()", "sqlite": "1"}[dialect_of(store)]
    with store._connections.acquire() as lease:
        lease.connection.cursor.execute(f"SELECT {function}")
        return lease.connection.cursor.fetchall()[0]


@pytest.mark.parametrize("own_engine", [False, True], ids=["by URL", "on an engine"])
def test_store_used_before_a_fork_works_in_every_process(empty_url: str, own_engine: bool) -> None:
    engine = create_engine(empty_url) if own_engine else None
    store, session = SQLAlchemyStore(engine or empty_url), new_session(data=b"parent")
    store.save(session)
    store.stats()
    before = connection_name(store)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                use_in_child(store, number)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        children.append(child)
    for _ in range(50):
        assert loaded(store, session).data == b"parent"
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert connection_name(store) == before
    assert store.stats().live == 5
    if dialect_of(store) == "sqlite":
        with closing(store.engine.raw_connection()) as connection:
            assert connection.cursor().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()
    store.engine.dispose()


def test_fork_while_every_connection_is_lent_leaves_the_child_able_to_work(empty_url: str) -> None:
    store, session = SQLAlchemyStore(empty_url, timeout=2), new_session()
    store.save(session)
    held = [store._connections.acquire() for _ in range(MAX_CONNECTIONS)]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if loaded(store, session).data == session.data else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    give_back(*held)
    assert loaded(store, session).data == session.data
    store.close()


# An engine of the application's


@pytest.fixture(params=[{}, {"isolation_level": "AUTOCOMMIT"}], ids=["as it comes", "autocommit"])
def engine(migrated_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = create_engine(migrated_url, **request.param)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


def orders(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM orders ORDER BY id")))


def test_transaction_of_the_application_is_its_own(engine: Engine) -> None:
    if engine.dialect.name == "sqlite" and engine.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        pytest.skip("SQLite has one writer at a time, and the application is it")
    store, session = SQLAlchemyStore(engine), new_session(user="alice")
    store.save(session)
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        store.save(replace(session, version=1, data=b"saved"))
        store.load(session.id)
        store.touch(later(session, version=2))
        store.destroy_all("nobody")
        with pytest.raises(SessionConflict):
            store.save(replace(session, version=1))
        with pytest.raises(SessionExists):
            store.save(session)
        assert connection.in_transaction()
        connection.rollback()
    assert orders(engine) == []
    assert loaded(store, session).data == b"saved"


def test_application_that_only_reads_keeps_its_transaction(engine: Engine) -> None:
    store, session = SQLAlchemyStore(engine), new_session()
    with engine.connect() as connection:
        connection.execute(text("SELECT * FROM orders")).all()
        store.save(session)
        assert connection.in_transaction()
    assert store.load(session.id) is not None


def test_connection_goes_back_to_the_applications_pool_after_each_use(engine: Engine) -> None:
    store, session = SQLAlchemyStore(engine), new_session()
    for use in VERBS.values():
        with suppress(SessionGone, SessionConflict):
            use(store, session)
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_closing_the_store_leaves_the_engine_open(engine: Engine) -> None:
    store = SQLAlchemyStore(engine)
    store.save(new_session())
    idle = engine.pool.checkedin()  # type: ignore[attr-defined]
    store.close()
    assert engine.pool.checkedin() == idle > 0  # type: ignore[attr-defined]


def test_engine_with_one_connection_for_everything_is_refused() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    for shared in (engine, create_engine("sqlite://")):
        with pytest.raises(ConfigError, match="connection"):
            SQLAlchemyStore(shared)


def test_sessions_of_two_tables_are_apart(database_url: str) -> None:
    clock = ManualClock()
    for name in ("first_sessions", "second_sessions"):
        migrate.upgrade(database_url, table_name=name)
    first, second = (
        SQLAlchemyStore(database_url, table_name=name, clock=clock) for name in ("first_sessions", "second_sessions")
    )
    session = new_session()
    first.save(session)
    assert second.load(session.id) is None
    second.save(session)
    first.destroy(session.id)
    assert second.load(session.id) is not None
    first.close()
    second.close()


@pytest.mark.parametrize("malformed", ["", "x", "G" * 64, "A" * 64])
def test_what_cannot_be_an_id_is_refused_where_one_is_to_be_spared_or_continued_from(
    store: SQLAlchemyStore, malformed: str
) -> None:
    with pytest.raises(ValueError, match="except_id must be the id of a session: 64 lower-case hex digits"):
        store.destroy_all("alice", except_id=malformed)
    with pytest.raises(ValueError, match="after must be the id of a session"):
        store.find_all(after=malformed)


def test_a_sweep_passes_over_what_another_transaction_has_locked(on_server: SQLAlchemyStore, server_url: str) -> None:
    expired = sorted((replace(new_session(), expires_at=1_000_000 + n) for n in range(5)), key=lambda one: one.id)
    for session in expired:
        on_server.save(session)
    locked = bytes.fromhex(expired[0].id)
    table = on_server.table
    other = create_engine(server_url)
    with other.begin() as connection:
        connection.execute(select(table.c.id).where(table.c.id == locked).with_for_update()).all()
        assert on_server.sweep(2_000_000, 3) == 3
        assert on_server.sweep(2_000_000, 3) == 1
        assert on_server.sweep(2_000_000, 3) == 0
    other.dispose()
    assert on_server.sweep(2_000_000, 3) == 1


@pytest.mark.whole
def test_where_processes_cannot_be_forked_sqlite_works_all_the_same(empty_sqlite_url: str) -> None:
    program = f"""
import os
del os.fork, os.register_at_fork  # as on Windows
from prism_wsgi import SQLAlchemyStore
from prism_wsgi.testing import new_session
store, session = SQLAlchemyStore({empty_sqlite_url!r}), new_session()
store.save(session)
print(store.load(session.id).version)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
