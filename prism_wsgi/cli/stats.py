"""`prism-wsgi stats`: what is stored."""

from dataclasses import asdict
from json import dumps

import click

from prism_wsgi.cli.options import database_options, json_option, open_store
from prism_wsgi.cli.text import instant, size


@click.command
@database_options
@json_option
def stats(url: str, table_name: str, json: bool) -> None:
    """Count the sessions; reads the whole table."""
    with open_store(url, table_name) as store:
        counted = store.stats()
    oldest = None if counted.oldest_expired is None else instant(counted.oldest_expired)
    if json:
        click.echo(dumps(asdict(counted) | {"oldest_expired": oldest}))
        return
    click.echo(f"live        {counted.live}")
    click.echo(f"logged in   {counted.logged_in}")
    click.echo(f"superseded  {counted.superseded}")
    click.echo(f"expired     {counted.expired}" + (f", the oldest at {oldest}" if oldest else ""))
    click.echo(f"data        {size(counted.data_bytes)}")
