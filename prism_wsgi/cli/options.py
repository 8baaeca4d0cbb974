"""The options that several commands share, and the store that they name."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from prism_wsgi.clock import Clock
from prism_wsgi.stores import url_settings, urls
from prism_wsgi.stores.memory import MemoryStore

if TYPE_CHECKING:
    from sqlalchemy import URL  # noqa: TID251 - for its name only

    from prism_wsgi import RedisStore, SQLAlchemyStore

STORE_TIMEOUT = 60.0
"""The timeout of commands in seconds: they read whole tables, while requests read one row."""

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])

option = partial(click.option, show_envvar=True)


def _checked_database(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if urls.is_redis(value):
        raise click.UsageError(
            f"`{context.command_path}` is for databases. Redis needs no such command: it has no table to migrate, "
            "and deletes expired sessions by itself",
            context,
        )
    return _checked_store(context, parameter, value)


def _checked_store(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001
    if urls.is_memory(value):
        raise click.UsageError("A MemoryStore keeps its sessions in the process that serves them, not here", context)
    return value


_url_option = partial(option, "--url", envvar="PRISM_DATABASE_URL", required=True)
database_url_option = _url_option(
    callback=_checked_database,
    help="The database, for example sqlite:///sessions.db or postgresql://user:password@host/database.",
)
store_url_option = _url_option(
    callback=_checked_store,
    help="The database or Redis, for example sqlite:///sessions.db, postgresql://user:password@host/database or "
    "redis://host/0.",
)
table_name_option = option(
    "--table-name",
    envvar="PRISM_TABLE_NAME",
    help=f"The table of the sessions.  [default: {url_settings.DEFAULT_TABLE_NAME}]",
)
json_option = option("--json", is_flag=True, help="Print JSON, one object a line.")


def database_options(command: _CommandT) -> _CommandT:
    """Add the options that name the database of the sessions."""
    return database_url_option(table_name_option(command))


def store_options(command: _CommandT) -> _CommandT:
    """Add the options that name the database or Redis of the sessions."""
    return store_url_option(table_name_option(command))


def open_store(
    url: str, table_name: str | None, *, clock: Clock | None = None
) -> "closing[SQLAlchemyStore] | closing[RedisStore]":
    """Return the store, for a `with` statement that closes it. Ends the command if the store cannot be opened."""
    store = urls.open_store(url, table_name=table_name, timeout=STORE_TIMEOUT, clock=clock)
    assert not isinstance(store, MemoryStore)  # _checked_store has refused it
    if urls.is_redis(url):
        return closing(cast("RedisStore", store))
    database = cast("SQLAlchemyStore", store)
    refuse_missing_file(database.engine.url, "--url", "create it with `prism-wsgi db upgrade`")
    return closing(database)


def open_database(url: str, table_name: str | None, *, clock: Clock | None = None) -> "closing[SQLAlchemyStore]":
    """Return the store of a database; see `open_store`."""
    return cast("closing[SQLAlchemyStore]", open_store(url, table_name, clock=clock))


def refuse_missing_file(url: "URL", parameter: str, otherwise: str) -> None:
    """End the command if SQLite would create a file, which would hide a typing error."""
    name = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and not name.startswith((":memory:", "file:"))
    if is_file and name and not Path(name).exists():
        raise click.ClickException(f"There is no database {name}; check {parameter}, or {otherwise}")
