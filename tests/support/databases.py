"""Real databases for the tests: where the servers are, and a fresh, empty database for each test."""

import importlib.util
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import redis
from sqlalchemy import URL, Engine, NullPool, create_engine, inspect, make_url
from sqlalchemy.exc import OperationalError

from prism_wsgi import migrate

POSTGRESQL = os.environ.get("PRISM_TEST_POSTGRESQL") or "postgresql+psycopg://root@127.0.0.1:5432/test"
MARIADB = os.environ.get("PRISM_TEST_MARIADB") or "mysql+pymysql://root@127.0.0.1:3306/"
REDIS = os.environ.get("PRISM_TEST_REDIS") or "redis://127.0.0.1:6379/15"

REQUIRED = {name.strip() for name in os.environ.get("PRISM_TEST_REQUIRE", "").split(",") if name.strip()}


@dataclass
class Server:
    """A running server, and the databases this run has made on it."""

    url: URL
    admin: Engine
    name: str = field(default_factory=lambda: f"prism_test_{secrets.token_hex(6)}")
    made: int = 0

    def execute(self, statement: str) -> None:
        with self.admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def fresh_schema(self) -> str:
        """Return the URL of a new schema in this run's PostgreSQL database: 3 ms, where a database is 60."""
        self.made += 1
        schema = f"test_{self.made}"
        url = self.url.set(database=self.name)
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        return _text(url.update_query_dict({"options": f"-csearch_path={schema}"}))

    def fresh_database(self) -> str:
        """Return the URL of a new MariaDB database."""
        self.made += 1
        name = f"{self.name}_{self.made}"
        self.execute(f"CREATE DATABASE {name}")
        return _text(self.url.set(database=name))


class KeptTable:
    """A migrated database that tests use in turn: to empty it takes a millisecond or two, to migrate another 300."""

    def __init__(self, url: str) -> None:
        migrate.upgrade(url)
        self._url = url
        # A test may have ended the connections of everybody.
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        self._tables = [name for name in inspect(self._engine).get_table_names() if name != migrate.VERSION_TABLE]

    def emptied(self) -> str:
        """Delete all rows but the schema's version, and return the database's URL."""
        with self._engine.connect() as connection:
            for table in self._tables:
                connection.exec_driver_sql(f"DELETE FROM {table}")
        return self._url

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Yield the PostgreSQL server with a database for this run, dropped at the end."""
    server = _reach("postgresql", POSTGRESQL)
    server.execute(f"CREATE DATABASE {server.name}")
    yield server
    # FORCE: a connection that a failed test left open must not keep the run from ending.
    server.execute(f"DROP DATABASE {server.name} WITH (FORCE)")


@contextmanager
def mariadb_server() -> Iterator[Server]:
    """Yield the MariaDB (or MySQL) server; the databases made on it are dropped at the end."""
    server = _reach("mariadb", MARIADB)
    yield server
    with server.admin.connect() as connection:
        # A transaction that a failed test left open holds its table; do not wait a day for it.
        connection.exec_driver_sql("SET lock_wait_timeout = 10")
        for number in range(1, server.made + 1):
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {server.name}_{number}")


@contextmanager
def redis_prefix() -> Iterator[str]:
    """Yield the beginning of the keys that one test may use in Redis, deleted at the end."""
    with redis.Redis.from_url(REDIS, protocol=2) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            unavailable("redis", f"{REDIS} does not answer: {error}")
        prefix = f"prism_test_{secrets.token_hex(6)}:"
        yield prefix
        if keys := list(client.scan_iter(f"{prefix}*", count=1000)):
            client.delete(*keys)


def need_mysqlclient() -> None:
    """Skip the test where mysqlclient is not installed: it has to be built, so `dev.py` does without."""
    if importlib.util.find_spec("MySQLdb") is None:
        unavailable("mysqlclient", "the driver is not installed")


def unavailable(engine: str, reason: str) -> None:
    """Skip the test, or fail it where PRISM_TEST_REQUIRE names the engine."""
    if engine in REQUIRED:
        pytest.fail(f"{engine} is in PRISM_TEST_REQUIRE, but {reason}", pytrace=False)
    pytest.skip(f"no {engine}: {reason}")


def _reach(engine: str, address: str) -> Server:
    url = make_url(address)
    admin = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        admin.connect().close()
    except OperationalError as error:
        unavailable(engine, f"{url.render_as_string()} does not answer: {error.orig}")
    return Server(url, admin)


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
