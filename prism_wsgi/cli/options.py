"""The options that several commands have, and the store they lead to."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from prism_wsgi.clock import Clock, system_clock

if TYPE_CHECKING:
    from prism_wsgi import SQLAlchemyStore

STORE_TIMEOUT = 60.0
"""Seconds. Commands read whole tables where requests read one row."""

DEFAULT_TABLE_NAME = "prism_sessions"  # schema.py has it too, behind SQLAlchemy

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])

option = partial(click.option, show_envvar=True)

url_option = option(
    "--url",
    envvar="PRISM_DATABASE_URL",
    required=True,
    help="The database, for example sqlite:///sessions.db or postgresql://user:password@host/database.",
)
table_name_option = option(
    "--table-name",
    envvar="PRISM_TABLE_NAME",
    default=DEFAULT_TABLE_NAME,
    show_default=True,
    help="The table of the sessions.",
)
json_option = option("--json", is_flag=True, help="Print JSON, one object a line.")


def database_options(command: _CommandT) -> _CommandT:
    """Add the options that say where the sessions are."""
    return url_option(table_name_option(command))


def open_store(url: str, table_name: str, *, clock: Clock = system_clock) -> "closing[SQLAlchemyStore]":
    """Return the store, to be closed at the end of a `with`. Ends the command when it cannot be one."""
    from prism_wsgi import SQLAlchemyStore

    store = SQLAlchemyStore(url, table_name=table_name, timeout=STORE_TIMEOUT, clock=clock)
    place = store.engine.url
    name = place.database or ""
    # SQLite creates a file that is missing; after a slip of the pen that would hide what is wrong.
    is_file = place.get_backend_name() == "sqlite" and not name.startswith((":memory:", "file:"))
    if is_file and name and not Path(name).exists():
        raise click.ClickException(
            f"There is no database {name}; check --url, or create it with `prism-wsgi db upgrade`"
        )
    return closing(store)
