"""`prism-wsgi events`: a user's events in the audit trail; and the reports of other commands to it."""

import getpass
from collections.abc import Iterable
from json import dumps
from typing import Any

import click

from prism_wsgi.cli.listing import AnyStore
from prism_wsgi.cli.options import database_options, json_option, open_database, option
from prism_wsgi.cli.text import instant, one_line
from prism_wsgi.clock import milliseconds, system_clock
from prism_wsgi.errors import SchemaMissing, StoreError
from prism_wsgi.events import Ending, Kind
from prism_wsgi.stores.base import SessionSummary, StoredEvent, StoredSession, TrailStore

PAGE = 1000
"""The number of events in one query."""


@click.group
def events() -> None:
    """List the events of a user's logins and sessions, if an AuditTrail records them."""


@events.command("list")
@database_options
@option("--user", required=True, help="The user whose events are listed.")
@option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@json_option
def list_events(url: str, table_name: str | None, user: str, limit: int, json: bool) -> None:
    """List the events of a user, and those in which the user impersonated another one, the newest first."""
    with open_database(url, table_name) as store:
        found = store.find_events(user=user, limit=limit)
    for event in found:
        click.echo(dumps(as_json(event)) if json else _line(event))


def all_events(store: AnyStore, user: str) -> list[StoredEvent]:
    """Return every event of a user, the newest first; none if the store keeps no trail."""
    found: list[StoredEvent] = []
    if isinstance(store, TrailStore):
        while page := list(store.find_events(user=user, limit=PAGE, before=found[-1].number if found else None)):
            found += page
    return found


def report_ended(store: AnyStore, ended: Iterable[StoredSession | SessionSummary], reason: Ending) -> None:
    """Write into the trail, if the store keeps one, that this command has ended sessions."""
    if not isinstance(store, TrailStore):
        return
    try:
        for session in ended:
            store.add_event(
                StoredEvent(
                    timestamp=milliseconds(system_clock),
                    kind=Kind.ENDED,
                    reason=reason,
                    session_id=session.id,
                    user=session.user,
                    actor=session.actor,
                    author=f"cli:{getpass.getuser()}",
                )
            )
    except SchemaMissing:
        return  # a database of an earlier release has no table of events
    except StoreError as error:
        click.echo(f"The sessions have ended, but the audit trail missed it: {one_line(str(error))}", err=True)


def as_json(event: StoredEvent) -> dict[str, Any]:
    """Return an event as an object for JSON."""
    return {
        "timestamp": instant(event.timestamp),
        "kind": event.kind,
        "reason": event.reason,
        "session_id": event.session_id,
        "previous_id": event.previous_id,
        "user": event.user,
        "actor": event.actor,
        "client_address": event.client_address,
        "user_agent": event.user_agent,
        "author": event.author,
    }


def _line(event: StoredEvent) -> str:
    words = [instant(event.timestamp), event.kind if event.reason is None else f"{event.kind} ({event.reason})"]
    words.append(f"session {event.session_id or '-'}")
    for name, value in (("user", event.user), ("actor", event.actor), ("by", event.author)):
        if value is not None:
            words.append(f"{name} {one_line(value)}")
    if event.client_address is not None:
        words.append(f"from {one_line(event.client_address)}, {one_line(event.user_agent or '')}")
    return "  ".join(words)
