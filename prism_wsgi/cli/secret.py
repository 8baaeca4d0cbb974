"""`prism-wsgi secret`: a fresh signing secret."""

import secrets

import click

SECRET_BYTES = 48


@click.command
def secret() -> None:
    """Print a fresh signing secret, and nothing else.

    \b
    export SESSION_SECRET="$(prism-wsgi secret)"
    """
    click.echo(secrets.token_urlsafe(SECRET_BYTES))
