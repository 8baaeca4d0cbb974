"""A fresh database on each engine for one run, dropped at its end."""

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy.exc import DBAPIError

from prism_wsgi import migrate

POSTGRESQL = os.environ.get("PRISM_BENCH_POSTGRESQL", "postgresql+psycopg://root@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("PRISM_BENCH_MARIADB", "mysql+mysqldb://root@127.0.0.1:3306/")
REDIS = os.environ.get("PRISM_BENCH_REDIS", "redis://127.0.0.1:6379/9")

ENGINES = ("memory", "sqlite", "postgresql", "mariadb", "redis", "cookie")

_SERVERS = {"postgresql": POSTGRESQL, "mariadb": MARIADB}

Places = dict[str, str]
"""The engines that can be measured, each with the place of its data: a URL, or "" for memory and cookies.

That of Redis has the beginning of this run's keys as `prefix` in its query, as RedisStore reads it.
"""


@contextmanager
def fresh_databases(engines: Iterable[str]) -> Iterator[Places]:
    """Yield the place of each engine; leave out those that do not answer, and print a line for each."""
    places: Places = {}
    with ExitStack() as stack:
        for engine in engines:
            try:
                if engine == "sqlite":
                    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="prism_bench_"))
                    places[engine] = f"sqlite:///{directory}/sessions.db"
                elif engine in _SERVERS:
                    places[engine] = stack.enter_context(_server_database(make_url(_SERVERS[engine])))
                elif engine == "redis":
                    places[engine] = stack.enter_context(_redis())
                else:
                    places[engine] = ""
            except (DBAPIError, ImportError, ConnectionError) as error:
                print(f"{engine} is left out: {str(error).splitlines()[0]}")
        for engine in ("sqlite", *_SERVERS):
            if engine in places:
                for table in ("prism_sessions", "floor_sessions"):
                    migrate.upgrade(places[engine], table_name=table)
        yield places


@contextmanager
def _server_database(server: URL) -> Iterator[str]:
    name = f"prism_bench_{secrets.token_hex(4)}"
    admin = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def execute(statement: str) -> None:
        with admin.connect() as connection:
            connection.exec_driver_sql(statement)

    execute(f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        execute(f"DROP DATABASE {name}{' WITH (FORCE)' if server.get_backend_name() == 'postgresql' else ''}")


@contextmanager
def _redis() -> Iterator[str]:
    import redis

    client = redis.Redis.from_url(REDIS)
    try:
        client.ping()
    except redis.ConnectionError as error:
        raise ConnectionError(f"{REDIS} does not answer") from error
    prefix = f"prism_bench_{secrets.token_hex(4)}:"
    try:
        yield f"{REDIS}{'&' if '?' in REDIS else '?'}prefix={prefix}"
    finally:
        for key in client.scan_iter(f"{prefix}*", count=1000):
            client.delete(key)


def set_sqlite_pragmas(connection: object, _: object) -> None:
    """Give a peer's connection to SQLite what prism_wsgi's have; listens to SQLAlchemy's "connect"."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
