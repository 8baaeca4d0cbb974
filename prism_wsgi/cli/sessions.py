"""`prism-wsgi sessions`: whose sessions there are, and ending them. Never shows what is in them."""

import re
from json import dumps
from typing import Any

import click

from prism_wsgi.cli.options import database_options, json_option, open_store, option
from prism_wsgi.cli.text import instant, one_line, size
from prism_wsgi.stores.base import StoredSession

_SESSION_ID = re.compile(r"[0-9a-f]{64}")


def _checked_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    # Without the value: it may be a cookie, pasted by mistake.
    if value is not None and not _SESSION_ID.fullmatch(value):
        raise click.BadParameter("a session id is 64 lower-case hex digits; `prism-wsgi sessions list` shows them")
    return value


@click.group
def sessions() -> None:
    """List, show and revoke sessions; what is in them is never shown."""


@sessions.command("list")
@database_options
@option("--user", help="Only the sessions of this user.")
@option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@json_option
def list_sessions(url: str, table_name: str, user: str | None, limit: int, json: bool) -> None:
    """List live sessions, the oldest first."""
    with open_store(url, table_name) as store:
        found = store.find(user=user, limit=limit)
    if json:
        for session in found:
            click.echo(dumps(_as_json(session)))
        return
    for session in found:
        click.echo(
            f"{session.id}  until {instant(session.expires_at)}  {size(len(session.data)):>9}  {_user(session)}"
        )
    if len(found) == limit:
        click.echo(f"There may be more than {limit}; ask for them with --limit", err=True)


@sessions.command
@database_options
@option("--id", "session_id", required=True, callback=_checked_id, help="The session's id.")
@json_option
def show(url: str, table_name: str, session_id: str, json: bool) -> None:
    """Show one live session."""
    with open_store(url, table_name) as store:
        session = _live(store.load(session_id))
    if json:
        click.echo(dumps(_as_json(session)))
        return
    click.echo(f"id       {session.id}")
    click.echo(f"user     {_user(session)}")
    click.echo(f"created  {instant(session.created_at)}")
    click.echo(f"expires  {instant(session.expires_at)}")
    click.echo(f"size     {size(len(session.data))}")
    click.echo(f"version  {session.version}")


@sessions.command
@database_options
@option("--user", help="End every session of this user.")
@option("--id", "session_id", callback=_checked_id, help="End the session of this id.")
@option("--yes", is_flag=True, help="Do not ask.")
@json_option
def revoke(url: str, table_name: str, user: str | None, session_id: str | None, yes: bool, json: bool) -> None:
    """End sessions: the browsers that have them are logged out."""
    if (user is None) == (session_id is None):
        raise click.UsageError("Give either --user or --id")
    with open_store(url, table_name) as store:
        if session_id is not None:
            _live(store.load(session_id))
            _confirm(f"End session {session_id}?", yes)
            store.destroy(session_id)
            revoked = 1
        else:
            assert user is not None
            _confirm(f"End every session of {one_line(user)}?", yes)
            revoked = store.destroy_all(user)
    click.echo(dumps({"revoked": revoked}) if json else f"Revoked: {revoked}")


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        click.confirm(f"{question} (--yes does not ask)", abort=True, err=True)


def _live(session: StoredSession | None) -> StoredSession:
    if session is None or session.superseded:
        raise click.ClickException("No live session has this id; `prism-wsgi sessions list` shows those there are")
    return session


def _as_json(session: StoredSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "created_at": instant(session.created_at),
        "expires_at": instant(session.expires_at),
        "size": len(session.data),
        "version": session.version,
    }


def _user(session: StoredSession) -> str:
    return "-" if session.user is None else one_line(session.user)
