"""The migrations: which database they go to, one run at a time, and whether a schema is as it should be.

`migrations/env.py` calls `run`; everybody else calls `upgrade`, `downgrade`, `current`, `history` or
`check`, or hands `config()` to a command of Alembic's.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from configparser import InterpolationError
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from alembic import command, context, op
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from prism_wsgi.errors import ConfigError, PrismError, StoreError, StoreUnavailable
from prism_wsgi.schema import DEFAULT_TABLE_NAME, sessions_table

VERSION_TABLE = "prism_alembic_version"

LOCK_SECONDS = 60

_DRIVER_EXTRAS = {"psycopg": "postgresql", "pymysql": "mariadb", "MySQLdb": "mysqlclient"}

# SQLite's own BEGIN IMMEDIATE and MySQL's implicit commits go past the driver's idea of a transaction.
_ISOLATION = {
    "postgresql": "READ COMMITTED",
    "sqlite": "AUTOCOMMIT",
    "mysql": "AUTOCOMMIT",
    "mariadb": "AUTOCOMMIT",
}


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema's history."""

    id: str
    summary: str


@dataclass(frozen=True, slots=True)
class SchemaCheck:
    """What a database has (`current`: None before the first upgrade) beside what it should have."""

    current: str | None
    head: str
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Tell whether the schema is the newest and nobody has changed it by hand."""
        return self.current == self.head and not self.differences


def config_path() -> Path:
    """Return the alembic.ini of this installation: in the package (a wheel) or beside it (a checkout)."""
    package = Path(__file__).parent
    for directory in (package, package.parent):
        if (directory / "migrations" / "env.py").exists():
            return directory / "alembic.ini"
    raise ConfigError(f"the migrations are missing from this installation ({package}); install prism_wsgi again")


def config(url: str | URL | None = None, *, table_name: str | None = None, output: TextIO | None = None) -> Config:
    """Return the configuration that Alembic's own commands take.

    What is not given here comes from the environment: PRISM_DATABASE_URL, PRISM_TABLE_NAME. `attributes`
    of the result may also hold an `engine`, or a `connection` (whose open transaction is left to you to
    commit). `output` receives the SQL of offline mode.
    """
    attributes = {"url": url, "table_name": table_name}
    return Config(config_path(), output_buffer=output, attributes=attributes)


def upgrade(
    url: str | URL | None = None,
    *,
    revision: str = "head",
    table_name: str | None = None,
    sql: bool = False,
    output: TextIO | None = None,
) -> tuple[str, ...]:
    """Bring the schema to a revision; return the ids of the steps this run did, none when it was there.

    Safe to run many at once: one works, the others wait up to a minute. `sql=True` needs no database and no
    driver: it writes the statements to `output` (standard output by default). Raises `ConfigError` for what
    the caller can mend and `StoreError` for what the database refuses.
    """
    settings = config(url, table_name=table_name, output=output)
    with _alembic_errors():
        command.upgrade(settings, revision, sql=sql)
    return tuple(settings.attributes["steps"])


def downgrade(
    url: str | URL | None = None,
    *,
    revision: str,
    table_name: str | None = None,
    sql: bool = False,
    output: TextIO | None = None,
) -> tuple[str, ...]:
    """Take the schema back to a revision, "base" for nothing; return the ids of the steps undone.

    Going below 0001 deletes every session. With `sql=True`, `revision` is a range: `0003:0001`.
    """
    settings = config(url, table_name=table_name, output=output)
    with _alembic_errors():
        command.downgrade(settings, revision, sql=sql)
    return tuple(settings.attributes["steps"])


def current(url: str | URL | None = None, *, table_name: str | None = None) -> str | None:
    """Return the id of the revision a database is at, None before the first upgrade; change nothing."""
    with _looking_at(_target(config(url, table_name=table_name))) as migrations:
        return migrations.get_current_revision()


def history() -> tuple[Revision, ...]:
    """Return every revision, oldest first."""
    steps = reversed(list(ScriptDirectory.from_config(config()).walk_revisions()))
    return tuple(Revision(step.revision, step.doc) for step in steps)


def head() -> str:
    """Return the id of the newest revision."""
    return history()[-1].id


def check(url: str | URL | None = None, *, table_name: str | None = None) -> SchemaCheck:
    """Compare a database with the schema this version expects; change nothing."""
    target = _target(config(url, table_name=table_name))
    with _looking_at(target) as migrations:
        differences = tuple(_describe(diff) for diff in compare_metadata(migrations, target.table.metadata))
        return SchemaCheck(migrations.get_current_revision(), head(), differences)


def owns(name: str | None, *, table_name: str = DEFAULT_TABLE_NAME) -> bool:
    """Tell whether a table is ours, for the `include_name` of an application with its own Alembic.

    Without it, that application's autogenerate would propose to drop what it finds of ours.
    """
    return name is not None and (name == table_name or name.startswith(VERSION_TABLE))


def run() -> None:
    """Do what the Alembic command under way asks for: all of `migrations/env.py`."""
    at_a_terminal = context.config.cmd_opts is not None
    if at_a_terminal:
        # Here and not in alembic.ini: who starts from a pyproject.toml of his own reads no ini of ours.
        logging.basicConfig(format="%(message)s")
        logging.getLogger("alembic").setLevel(logging.INFO)
    try:
        target = _target(context.config, context.get_x_argument(as_dictionary=True))
        _migrate(target)
    except PrismError as error:
        if at_a_terminal:  # `alembic` prints this one as a line, any other as a traceback
            raise CommandError(str(error)) from error
        raise


def create_index(name: str, table_name: str, columns: list[str]) -> None:
    """Create an index in a revision, unless a run that was cut off has; MySQL has no IF NOT EXISTS here."""
    if context.is_offline_mode() or name not in _index_names(table_name):
        op.create_index(name, table_name, columns)


def drop_index(name: str, table_name: str) -> None:
    """Drop an index in a revision, unless a run that was cut off has."""
    if context.is_offline_mode() or name in _index_names(table_name):
        op.drop_index(name, table_name=table_name)


@dataclass(frozen=True, slots=True)
class _Target:
    bind: URL | Engine | Connection
    table: Table

    @property
    def options(self) -> dict[str, Any]:
        name = self.table.name
        return {
            "target_metadata": self.table.metadata,
            # Each table has a history of its own: sharing one, the second would never be created.
            "version_table": VERSION_TABLE if name == DEFAULT_TABLE_NAME else f"{VERSION_TABLE}_{name}",
            "include_name": lambda found, kind, _: kind != "table" or found == name,
            "compare_type": True,
            # Alembic takes SQLite's for not transactional, since the driver opens no transaction. We do.
            "transactional_ddl": True if _dialect_name(self.bind) == "sqlite" else None,
        }


def _target(settings: Config, arguments: Mapping[str, str] | None = None) -> _Target:
    arguments = arguments or {}
    given = settings.attributes
    table_name = (
        given.get("table_name")
        or arguments.get("table_name")
        or os.environ.get("PRISM_TABLE_NAME")
        or DEFAULT_TABLE_NAME
    )
    bind = (
        given.get("connection")
        or given.get("engine")
        or given.get("url")
        or arguments.get("url")
        or os.environ.get("PRISM_DATABASE_URL")
        or _url_in_file(settings)
    )
    if not bind:
        raise ConfigError(
            "no database URL; give one by url=... in Python (--url to prism-wsgi), by `-x url=...` to "
            "alembic, by PRISM_DATABASE_URL in the environment, or by sqlalchemy.url in alembic.ini"
        )
    return _Target(bind if isinstance(bind, Engine | Connection) else _url(bind), sessions_table(table_name))


def _url_in_file(settings: Config) -> str | None:
    try:
        return settings.get_alembic_option("sqlalchemy.url")
    except InterpolationError:
        # Not chained: the message of the parser quotes the URL, password and all.
        raise ConfigError("sqlalchemy.url: an ini file takes % for its own; write each % twice") from None


def _url(given: str | URL) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Not chained, since what cannot be parsed may have its password in any part.
        raise ConfigError(
            "the database URL cannot be read; write it like postgresql://user:password@host/database or "
            "sqlite:////path/to/sessions.db, with %40 for an @ in the password"
        ) from None
    try:
        url.get_dialect()
    except NoSuchModuleError as error:
        hint = "write postgresql://" if url.drivername == "postgres" else "check the part before ://"
        raise ConfigError(f"SQLAlchemy knows no database called {url.drivername!r}; {hint}") from error
    return url


def _engine(url: URL) -> Engine:
    options = {"timeout": LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
    try:
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options)
    except ImportError as error:
        raise ConfigError(_missing_driver(url, error)) from error
    except ArgumentError:
        raise ConfigError(
            f"{_place(url)} is no URL for this database; SQLite takes sqlite:///relative.db or "
            "sqlite:////absolute/path.db, the others name://user:password@host/database"
        ) from None


def _missing_driver(url: URL, error: ImportError) -> str:
    extra = _DRIVER_EXTRAS.get(error.name or "")
    if extra is None:
        return f"the driver for {url.drivername}:// cannot be loaded ({error}); install it"
    other = f", or write {url.get_backend_name()}+pymysql:// for PyMySQL" if extra == "mysqlclient" else ""
    return f"the driver for {url.drivername}:// is not installed; pip install 'prism_wsgi[{extra}]'{other}"


def _place(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _dialect_name(bind: URL | Engine | Connection) -> str:
    return bind.get_backend_name() if isinstance(bind, URL) else bind.dialect.name


def _migrate(target: _Target) -> None:
    steps: list[str] = context.config.attributes.setdefault("steps", [])

    def run_with(**where: Any) -> None:
        context.configure(
            **where,
            **target.options,
            on_version_apply=lambda *, step, **_: steps.extend(step.up_revision_ids),
        )
        with context.begin_transaction():
            context.run_migrations(table_name=target.table.name)

    if context.is_offline_mode():
        url = target.bind if isinstance(target.bind, URL) else target.bind.engine.url
        run_with(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    else:
        with (
            _connected(target.bind) as connection,
            _one_at_a_time(connection, target.options["version_table"]),
        ):
            run_with(connection=connection)


@contextmanager
def _looking_at(target: _Target) -> Iterator[MigrationContext]:
    with _connected(target.bind) as connection:
        yield MigrationContext.configure(connection, opts=target.options)


@contextmanager
def _connected(bind: URL | Engine | Connection) -> Iterator[Connection]:
    if isinstance(bind, Connection):
        yield bind
        return
    engine = _engine(bind) if isinstance(bind, URL) else bind
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise StoreUnavailable(f"cannot connect to {_place(engine.url)}: {error.orig}") from error
    try:
        with connection:
            if isolation := _ISOLATION.get(engine.dialect.name):
                connection.execution_options(isolation_level=isolation)
            yield connection
    except DBAPIError as error:
        raise StoreError(f"{_place(engine.url)} refused: {error.orig}") from error


@contextmanager
def _one_at_a_time(connection: Connection, name: str) -> Iterator[None]:
    """Let one run at the schema and have the others wait; without it 5 of 8 upgrades at once failed.

    Alembic leaves a transaction alone that it finds open: on SQLite and PostgreSQL a run is all or nothing.
    """
    locks = {
        "sqlite": _sqlite_lock,
        "postgresql": _postgresql_lock,
        "mysql": _mysql_lock,
        "mariadb": _mysql_lock,
    }
    lock = locks.get(connection.dialect.name, lambda *_: nullcontext())
    transaction = nullcontext() if connection.in_transaction() else connection.begin()
    with transaction, lock(connection, name):
        yield


@contextmanager
def _sqlite_lock(connection: Connection, _: str) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # the caller's own
        yield
        return
    _use_wal(connection)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if driver.in_transaction:
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _use_wal(connection: Connection) -> None:
    """Let readers and the writer work side by side; SQLite keeps this in the file."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError:
            # Going from a read lock to the exclusive one, SQLite does not wait for its busy timeout.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _postgresql_lock(connection: Connection, name: str) -> Iterator[None]:
    # Held by the transaction, not by the session: behind a pooler such as PgBouncer, sessions are shared.
    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{LOCK_SECONDS}s"})
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    yield


@contextmanager
def _mysql_lock(connection: Connection, name: str) -> Iterator[None]:
    # The server has these locks in common between its databases, and their names end at 64 characters.
    # In a Galera cluster each node has its own: upgrade through one node only.
    database = connection.scalar(text("SELECT DATABASE()"))
    digest = hashlib.sha256(f"{database}.{name}".encode()).hexdigest()[:32]
    lock = {"name": f"prism_wsgi.{digest}", "wait": LOCK_SECONDS}
    if connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), lock) != 1:
        raise StoreUnavailable(f"another run at {name} has held its lock for {LOCK_SECONDS} s; try again")
    try:
        yield
        # No more than each DDL statement does: who has the lock next must see the version.
        connection.exec_driver_sql("COMMIT")
    finally:
        with suppress(DBAPIError):  # a lost connection has let go of it
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)


def _index_names(table_name: str) -> set[str | None]:
    return {index["name"] for index in inspect(op.get_bind()).get_indexes(table_name)}


def _describe(diff: Any) -> str:
    """Say in one line what Alembic found: ("add_index", Index) or [("modify_type", ..., old, new), ...]."""
    if isinstance(diff, list):
        return "; ".join(_describe(each) for each in diff)
    kind, *details = diff
    if kind.startswith("modify_"):
        _, table, column, _, found, wanted = details
        return f"{table}.{column}: {kind.removeprefix('modify_')} is {found!r}, should be {wanted!r}"
    verdict = "is missing" if kind.startswith("add_") else "is not ours"
    return f"{kind.split('_', 1)[1]} {getattr(details[-1], 'name', details[-1])} {verdict}"


@contextmanager
def _alembic_errors() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise ConfigError(str(error)) from error
