"""The command line, `prism-wsgi`, with one module for each group of commands.

The imports here are light; a command loads SQLAlchemy and Alembic when it runs.
"""

from typing import Any

import click

from prism_wsgi.cli.db import db
from prism_wsgi.cli.demo.command import demo
from prism_wsgi.cli.doctor.command import doctor
from prism_wsgi.cli.events import events
from prism_wsgi.cli.imports import imports
from prism_wsgi.cli.secret import secret
from prism_wsgi.cli.sessions import sessions
from prism_wsgi.cli.stats import stats
from prism_wsgi.cli.sweep import sweep
from prism_wsgi.cli.text import explain
from prism_wsgi.errors import PrismError


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PrismError as error:
            raise click.ClickException(explain(error)) from error


@click.group(
    cls=_Commands,
    commands=[db, sweep, stats, sessions, events, imports, secret, doctor, demo],
    context_settings={"auto_envvar_prefix": "PRISM", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="prism_wsgi", prog_name="prism-wsgi")
def commands() -> None:
    """Maintain the sessions of prism_wsgi.

    Each option can also be set by the environment variable shown in the help of its command. Commands exit
    with 0 for success, 1 for a failure, with an error in one line, and 2 for wrong usage.
    """


def main() -> None:
    """Run the command line; the entry point of `prism-wsgi`."""
    commands(prog_name="prism-wsgi")
