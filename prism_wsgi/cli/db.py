"""`prism-wsgi db`: the schema, by the migrations that `alembic upgrade head` runs too."""

import sys

import click

from prism_wsgi.cli.options import database_options, option

sql_option = option("--sql", is_flag=True, help="Print the SQL instead of running it; needs no database.")


@click.group
def db() -> None:
    """Create, change and check the sessions table."""


@db.command(context_settings={"ignore_unknown_options": True})
@database_options
@sql_option
@click.argument("revision", default="head")
def upgrade(url: str, table_name: str | None, sql: bool, revision: str) -> None:
    """Upgrade the schema to REVISION, the newest unless given.

    Many may run at once: one works, the others wait.
    """
    from prism_wsgi import migrate

    done = migrate.upgrade(url, revision=revision, table_name=table_name, sql=sql, output=sys.stdout)
    if not sql:
        click.echo(f"Upgraded: {', '.join(done)}" if done else "Nothing to upgrade")


@db.command(context_settings={"ignore_unknown_options": True})
@database_options
@sql_option
@click.argument("revision")
def downgrade(url: str, table_name: str | None, sql: bool, revision: str) -> None:
    """Downgrade the schema to REVISION.

    "base" drops the tables, and with them every session. With --sql, REVISION is a range: 0003:0001.
    """
    from prism_wsgi import migrate

    done = migrate.downgrade(url, revision=revision, table_name=table_name, sql=sql, output=sys.stdout)
    if not sql:
        click.echo(f"Downgraded: {', '.join(done)}" if done else "Nothing to downgrade")


@db.command
@database_options
def current(url: str, table_name: str | None) -> None:
    """Print the revision of the database, or "none"."""
    from prism_wsgi import migrate

    click.echo(migrate.current(url, table_name=table_name) or "none")


@db.command
@database_options
@click.pass_context
def check(context: click.Context, url: str, table_name: str | None) -> None:
    """Compare the database with the schema that this version expects.

    Exits with 0 if they agree, with 1 if not.
    """
    from prism_wsgi import migrate

    found = migrate.check(url, table_name=table_name)
    if found.ok:
        click.echo(f"The schema is at {found.head}, as it should be")
        return
    if found.current != found.head:
        click.echo(f"The schema is at {found.current or 'none'}, not at {found.head}; run `prism-wsgi db upgrade`")
    for difference in found.differences:
        click.echo(difference)
    context.exit(1)


@db.command
@database_options
@option("--app", required=True, help="The role or user that the application connects as.")
@option("--sweeper", help="The role or user of `prism-wsgi sweep`; the application's unless given.")
def grants(url: str, table_name: str | None, app: str, sweeper: str | None) -> None:
    """Print the SQL that gives the application and the sweeper the rights that they need, and no more.

    The owner of the tables runs it, after `prism-wsgi db upgrade`. `prism-wsgi doctor` works with these rights too.
    """
    from prism_wsgi import migrate

    for statement in migrate.grants(url, table_name=table_name, app=app, sweeper=sweeper or app):
        click.echo(f"{statement};")


@db.command
def history() -> None:
    """List the revisions, oldest first."""
    from prism_wsgi import migrate

    for revision in migrate.history():
        click.echo(f"{revision.id}  {revision.summary}")


@db.command("config-path")
def config_path() -> None:
    """Print the path of this installation's alembic.ini.

    \b
    alembic -c "$(prism-wsgi db config-path)" upgrade head
    """
    from prism_wsgi import migrate

    click.echo(migrate.config_path())
