"""Migrations of the tables: one run at a time, and a comparison of a database with the expected schema.

`migrations/env.py` calls `run`. Other code calls `upgrade`, `downgrade`, `current`, `history` or `check`, or passes
`config()` to an Alembic command.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from configparser import InterpolationError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from alembic import command, context, op
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, NullPool, Table, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from prism_wsgi.errors import ConfigError, PrismError, StoreError, StoreUnavailable
from prism_wsgi.stores.sql.database import CredentialProvider, ask_for_credentials, make_engine, parse_url, place
from prism_wsgi.stores.sql.failures import advice
from prism_wsgi.stores.sql.migration_lock import LOCK_SECONDS, one_at_a_time
from prism_wsgi.stores.sql.schema import DEFAULT_TABLE_NAME, checked_schema, sessions_table, table_names
from prism_wsgi.stores.sql.store import SQLAlchemyStore
from prism_wsgi.stores.url_settings import split_settings

VERSION_TABLE = "prism_alembic_version"

# `one_at_a_time` begins SQLite's transaction and MySQL commits implicitly, so their drivers must not open one.
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
    """A comparison of a database with the expected schema; `current` is None before the first upgrade."""

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
    """Return the configuration for Alembic's commands.

    Missing arguments come from the environment: PRISM_DATABASE_URL, PRISM_TABLE_NAME. You may put an `engine` or a
    `connection` into `attributes` of the result; you then commit the connection's open transaction. `output`
    receives the SQL of offline mode.
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
    """Upgrade the schema to a revision; return the ids of the revisions applied, none if it was there already.

    Many may run at once: one works, and the others wait for up to a minute. `sql=True` needs no database and no
    driver: it writes the statements to `output` (standard output by default). Raises `ConfigError` for a wrong
    argument or setting, and `StoreError` for an error of the database.
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
    """Downgrade the schema to a revision, "base" for an empty one; return the ids of the revisions undone.

    "base" deletes every session. With `sql=True`, `revision` is a range: `0003:0001`.
    """
    settings = config(url, table_name=table_name, output=output)
    with _alembic_errors():
        command.downgrade(settings, revision, sql=sql)
    return tuple(settings.attributes["steps"])


def current(url: str | URL | None = None, *, table_name: str | None = None) -> str | None:
    """Return the id of a database's revision, None before the first upgrade; change nothing."""
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


def grants(url: str | URL, *, table_name: str | None = None, app: str, sweeper: str) -> list[str]:
    """Return the statements that give two roles (on MariaDB and MySQL: users) the rights on the tables.

    Raises ConfigError for SQLite, which has no roles.
    """
    parsed = parse_url(url)
    name = table_name or DEFAULT_TABLE_NAME
    dialect = parsed.get_dialect()()
    if dialect.name == "sqlite":
        raise ConfigError("SQLite has no roles to grant rights to; set the permissions of its file instead")
    quote = dialect.identifier_preparer.quote_identifier
    sessions, sweeps, events = table_names(name)
    version = VERSION_TABLE if name == DEFAULT_TABLE_NAME else f"{VERSION_TABLE}_{name}"
    rights = {
        sessions: "SELECT, INSERT, UPDATE, DELETE",
        sweeps: "SELECT, INSERT, DELETE",
        events: "SELECT, INSERT, UPDATE, DELETE",
        version: "SELECT",
    }
    roles = [quote(role) for role in dict.fromkeys([app, sweeper])]
    return [f"GRANT {right} ON {quote(table)} TO {role}" for role in roles for table, right in rights.items()]


def owns(name: str | None, *, table_name: str = DEFAULT_TABLE_NAME) -> bool:
    """Tell whether a table belongs to prism_wsgi, for the `include_name` of an application that uses Alembic itself.

    Without it, the application's autogenerate would propose to drop these tables.
    """
    return name is not None and (name in table_names(table_name) or name.startswith(VERSION_TABLE))


def run() -> None:
    """Run the current Alembic command; this is all that `migrations/env.py` does."""
    at_a_terminal = context.config.cmd_opts is not None
    if at_a_terminal:
        # Here and not in alembic.ini: a run configured by another project's pyproject.toml reads no alembic.ini.
        logging.basicConfig(format="%(message)s")
        logging.getLogger("alembic").setLevel(logging.INFO)
    try:
        target = _target(context.config, context.get_x_argument(as_dictionary=True))
        _migrate(target)
    except PrismError as error:
        if at_a_terminal:  # `alembic` prints a CommandError as one line, any other error as a traceback
            raise CommandError(str(error)) from error
        raise


def create_index(name: str, table_name: str, columns: list[str], *, where: str | None = None) -> None:
    """Create an index in a revision, unless an interrupted run created it; MySQL has no IF NOT EXISTS for indexes.

    `where` limits it to some rows on SQLite and PostgreSQL; other engines index all rows.
    """
    if context.is_offline_mode() or name not in _index_names(table_name):
        condition = None if where is None else text(where)
        op.create_index(name, table_name, columns, sqlite_where=condition, postgresql_where=condition)


def drop_index(name: str, table_name: str) -> None:
    """Drop an index in a revision, unless an interrupted run dropped it."""
    if context.is_offline_mode() or name in _index_names(table_name):
        op.drop_index(name, table_name=table_name)


def add_columns(table_name: str, columns: Mapping[str, TypeEngine[Any]]) -> None:
    """Add empty columns in a revision, except those that an interrupted run added.

    One ALTER TABLE adds them all and rewrites no row; SQLite needs one for each column.
    """
    dialect = op.get_context().dialect
    present = _column_names(table_name)
    _alter(
        table_name,
        [f"ADD COLUMN {name} {kind.compile(dialect)}" for name, kind in columns.items() if name not in present],
    )


def drop_columns(table_name: str, columns: Sequence[str]) -> None:
    """Drop columns in a revision, except those that an interrupted run dropped."""
    present = columns if context.is_offline_mode() else _column_names(table_name)
    _alter(table_name, [f"DROP COLUMN {name}" for name in columns if name in present])


@dataclass(frozen=True, slots=True)
class _Target:
    bind: URL | Engine | Connection
    table: Table
    schema: str | None
    credential_provider: CredentialProvider | None

    @property
    def search_path(self) -> str | None:
        """The statement that selects the URL's schema for one transaction."""
        return None if self.schema is None else f"SET LOCAL search_path TO {self.schema}"

    @property
    def options(self) -> dict[str, Any]:
        name = self.table.name
        return {
            "target_metadata": self.table.metadata,
            # Each sessions table has its history: if two shared one, the second would never be created.
            "version_table": VERSION_TABLE if name == DEFAULT_TABLE_NAME else f"{VERSION_TABLE}_{name}",
            "include_name": lambda found, kind, _: kind != "table" or found in table_names(name),
            "compare_type": True,
            # Alembic assumes that SQLite's DDL is not transactional, but `one_at_a_time` begins a transaction.
            "transactional_ddl": True if _dialect_name(self.bind) == "sqlite" else None,
        }


def _target(settings: Config, arguments: Mapping[str, str] | None = None) -> _Target:
    arguments = arguments or {}
    given = settings.attributes
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
    own: dict[str, Any] = {}
    if isinstance(bind, str):
        bind, own = split_settings(bind, SQLAlchemyStore.__init__)
    table_name = (
        given.get("table_name")
        or arguments.get("table_name")
        or os.environ.get("PRISM_TABLE_NAME")
        or own.get("table_name")
        or DEFAULT_TABLE_NAME
    )
    return _Target(
        bind if isinstance(bind, Engine | Connection) else parse_url(bind),
        sessions_table(table_name),
        checked_schema(own.get("schema")),
        own.get("credential_provider"),
    )


def _url_in_file(settings: Config) -> str | None:
    try:
        return settings.get_alembic_option("sqlalchemy.url")
    except InterpolationError:
        # Not chained: the parser's message quotes the URL with its password.
        raise ConfigError("sqlalchemy.url: % is special in an ini file; write each % twice") from None


def _engine(url: URL, credential_provider: CredentialProvider | None) -> Engine:
    options = {"timeout": LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
    engine = make_engine(url, poolclass=NullPool, connect_args=options)
    ask_for_credentials(engine, credential_provider)
    return engine


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
            if target.search_path is not None:
                context.execute(target.search_path)
            context.run_migrations(table_name=target.table.name)

    if context.is_offline_mode():
        url = target.bind if isinstance(target.bind, URL) else target.bind.engine.url
        run_with(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    else:
        with (
            _connected(target) as connection,
            one_at_a_time(connection, target.options["version_table"]),
        ):
            run_with(connection=connection)


@contextmanager
def _looking_at(target: _Target) -> Iterator[MigrationContext]:
    with _connected(target) as connection:
        if target.search_path is not None:
            connection.execute(text(target.search_path))
        yield MigrationContext.configure(connection, opts=target.options)


@contextmanager
def _connected(target: _Target) -> Iterator[Connection]:
    bind = target.bind
    if isinstance(bind, Connection):
        yield bind
        return
    engine = _engine(bind, target.credential_provider) if isinstance(bind, URL) else bind
    try:
        connection = engine.connect()
    except PrismError:
        raise
    except Exception as error:
        # PyMySQL can raise a RuntimeError, and a credential provider any exception.
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(f"cannot connect to {place(engine.url)}: {cause}{advice(cause)}") from error
    try:
        with connection:
            if isolation := _ISOLATION.get(engine.dialect.name):
                connection.execution_options(isolation_level=isolation)
            yield connection
    except DBAPIError as error:
        raise StoreError(f"{place(engine.url)} refused: {error.orig}") from error


def _alter(table_name: str, changes: list[str]) -> None:
    if op.get_context().dialect.name == "sqlite":
        for change in changes:
            op.execute(f"ALTER TABLE {table_name} {change}")
    elif changes:
        op.execute(f"ALTER TABLE {table_name} {', '.join(changes)}")


def _column_names(table_name: str) -> set[str]:
    if context.is_offline_mode():
        return set()
    return {column["name"] for column in inspect(op.get_bind()).get_columns(table_name)}


def _index_names(table_name: str) -> set[str | None]:
    return {index["name"] for index in inspect(op.get_bind()).get_indexes(table_name)}


def _describe(diff: Any) -> str:
    """Describe a difference that Alembic found in one line.

    It is like ("add_index", Index) or [("modify_type", ..., old, new), ...].
    """
    if isinstance(diff, list):
        return "; ".join(_describe(each) for each in diff)
    kind, *details = diff
    if kind.startswith("modify_"):
        _, table, column, _, found, wanted = details
        return f"{table}.{column}: {kind.removeprefix('modify_')} is {found!r}, should be {wanted!r}"
    verdict = "is missing" if kind.startswith("add_") else "is not expected"
    return f"{kind.split('_', 1)[1]} {getattr(details[-1], 'name', details[-1])} {verdict}"


@contextmanager
def _alembic_errors() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise ConfigError(str(error)) from error
