"""`prism-wsgi sessions`: listing and ending sessions. Only `export` shows the data in them."""

import re
from json import dumps
from typing import Any

import click

from prism_wsgi.cli.events import report_ended
from prism_wsgi.cli.listing import AnyStore, batch_size, destroy_many, summaries, summary_of
from prism_wsgi.cli.options import json_option, open_store, option, store_options
from prism_wsgi.cli.rights import erase, export
from prism_wsgi.cli.text import instant, one_line, size
from prism_wsgi.clock import milliseconds, system_clock
from prism_wsgi.events import Ending
from prism_wsgi.stores.base import SessionSummary, StoredSession

MOST_REPORTED = 10_000
"""The largest number of one user's sessions that are reported as ended."""

_SESSION_ID = re.compile(r"[0-9a-f]{64}")


def _checked_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    # Without the value: it may be a cookie, pasted by mistake.
    if value is not None and not _SESSION_ID.fullmatch(value):
        raise click.BadParameter("a session id is 64 lower-case hex digits; `prism-wsgi sessions list` shows them")
    return value


@click.group
def sessions() -> None:
    """List, show and revoke sessions. Only `export` shows the data in them."""


sessions.add_command(export)
sessions.add_command(erase)


older_than_option = option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Only sessions that began at least this many seconds ago.",
)


@sessions.command("list")
@store_options
@option("--user", help="Only the sessions of this user.")
@older_than_option
@option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@option("--after", callback=_checked_id, help="Continue after this id, the last one of the previous list.")
@json_option
def list_sessions(
    url: str,
    table_name: str | None,
    user: str | None,
    older_than: float | None,
    limit: int,
    after: str | None,
    json: bool,
) -> None:
    """List live sessions, the oldest first."""
    with open_store(url, table_name) as store:
        found = summaries(store, user=user, created_before=_before(older_than), limit=limit, after=after)
    if json:
        for session in found:
            click.echo(dumps(_as_json(session)))
        return
    for session in found:
        click.echo(
            f"{session.id}  until {instant(session.expires_at)}  last used {_moment(session.last_seen_at)}"
            f"  login {_moment(session.authenticated_at)} by {_text(session.auth_method)}"
            f"  from {_text(session.client_address)}, {_text(session.user_agent)}"
            f"  {size(session.size):>9}  {_user(session)}"
        )
    if len(found) == limit:
        click.echo(f"There may be more than {limit}; continue with --after {found[-1].id}", err=True)


@sessions.command
@store_options
@option("--id", "session_id", required=True, callback=_checked_id, help="The session's id.")
@json_option
def show(url: str, table_name: str | None, session_id: str, json: bool) -> None:
    """Show one live session."""
    with open_store(url, table_name) as store:
        session = summary_of(_live(store.load(session_id)))
    if json:
        click.echo(dumps(_as_json(session)))
        return
    click.echo(f"id       {session.id}")
    click.echo(f"user     {_user(session)}")
    click.echo(f"created  {instant(session.created_at)}")
    click.echo(f"expires  {instant(session.expires_at)}")
    click.echo(f"used     {_moment(session.last_seen_at)}")
    click.echo(f"login    {_moment(session.authenticated_at)}")
    click.echo(f"method   {_text(session.auth_method)}")
    click.echo(f"actor    {'-' if session.actor is None else one_line(session.actor)}")
    click.echo(f"address  {_text(session.client_address)}")
    click.echo(f"browser  {_text(session.user_agent)}")
    click.echo(f"size     {size(session.size)}")
    click.echo(f"version  {session.version}")


@sessions.command
@store_options
@option("--user", help="End the sessions of this user.")
@older_than_option
@option("--id", "session_id", callback=_checked_id, help="End the session of this id.")
@option("--all", "everybody", is_flag=True, help="End every session.")
@option("--yes", is_flag=True, help="Do not ask.")
@json_option
def revoke(
    url: str,
    table_name: str | None,
    user: str | None,
    older_than: float | None,
    session_id: str | None,
    everybody: bool,
    yes: bool,
    json: bool,
) -> None:
    """End sessions, which logs their browsers out.

    Give --user, --older-than, or both for a user's old sessions; or --id for one session; or --all.
    """
    narrowed = user is not None or older_than is not None
    if narrowed + (session_id is not None) + everybody != 1:
        raise click.UsageError("Give --user, --older-than or both, or --id, or --all")
    with open_store(url, table_name) as store:
        if session_id is not None:
            session = _live(store.load(session_id))
            _confirm(f"End session {session_id}?", yes)
            revoked = destroy_many(store, [session_id])
            report_ended(store, [session], Ending.REVOKED)
        else:
            _confirm(_question(user, older_than), yes)
            revoked = (
                _revoke_in_batches(store, user, _before(older_than))
                if user is None or older_than is not None
                else _revoke_user(store, user)
            )
    click.echo(dumps({"revoked": revoked}) if json else f"Revoked: {revoked}")


def _revoke_in_batches(store: AnyStore, user: str | None, created_before: int | None) -> int:
    revoked, last = 0, None
    while found := summaries(store, user=user, created_before=created_before, limit=batch_size(store), after=last):
        last = found[-1].id
        revoked += destroy_many(store, [session.id for session in found])
        report_ended(store, found, Ending.REVOKED)
    return revoked


def _revoke_user(store: AnyStore, user: str) -> int:
    """End all sessions of a user at once, also those that have begun since the question."""
    found = summaries(store, user=user, limit=MOST_REPORTED)
    revoked = store.destroy_all(user)
    report_ended(store, found, Ending.REVOKED)
    return revoked


def _question(user: str | None, older_than: float | None) -> str:
    whose = "" if user is None else f" of {one_line(user)}"
    begun = "" if older_than is None else f" that began before {instant(_before(older_than) or 0)}"
    return f"End every session{whose}{begun}?"


def _before(older_than: float | None) -> int | None:
    """Return the moment (Unix ms) that was `older_than` seconds ago."""
    return None if older_than is None else milliseconds(system_clock, ago=older_than)


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        click.confirm(f"{question} (--yes does not ask)", abort=True, err=True)


def _live(session: StoredSession | None) -> StoredSession:
    if session is None or session.superseded:
        raise click.ClickException("No live session has this id; `prism-wsgi sessions list` shows the live sessions")
    return session


def _as_json(session: SessionSummary) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "created_at": instant(session.created_at),
        "expires_at": instant(session.expires_at),
        "last_seen_at": None if session.last_seen_at is None else instant(session.last_seen_at),
        "authenticated_at": None if session.authenticated_at is None else instant(session.authenticated_at),
        "auth_method": session.auth_method,
        "actor": session.actor,
        "client_address": session.client_address,
        "user_agent": session.user_agent,
        "size": session.size,
        "version": session.version,
    }


def _user(session: SessionSummary) -> str:
    user = "-" if session.user is None else one_line(session.user)
    return user if session.actor is None else f"{user} (impersonated by {one_line(session.actor)})"


def _moment(milliseconds: int | None) -> str:
    return "unknown" if milliseconds is None else instant(milliseconds)


def _text(value: str | None) -> str:
    return "unknown" if value is None else one_line(value)
