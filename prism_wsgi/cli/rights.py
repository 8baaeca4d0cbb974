"""`prism-wsgi sessions export` and `erase`: the data that a person may ask to see, or to have removed."""

import base64
import secrets
from dataclasses import replace
from json import dumps
from typing import Any

import click

from prism_wsgi.cli.events import all_events, as_json, report_ended
from prism_wsgi.cli.listing import AnyStore
from prism_wsgi.cli.options import json_option, open_store, option, store_options
from prism_wsgi.cli.text import instant, one_line
from prism_wsgi.errors import SerializationError
from prism_wsgi.events import Ending, Events
from prism_wsgi.persistence.adapter import StoreAdapter
from prism_wsgi.persistence.document import Codec
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.settings import DEFAULT_MAX_SIZE, Encryption, session_cipher
from prism_wsgi.stores.base import StoredSession, TrailStore

PAGE = 100


@click.command
@store_options
@option("--user", required=True, help="Whose sessions and events.")
@option(
    "--encryption-key",
    envvar="PRISM_ENCRYPTION_KEY",
    help="The key that encrypts the sessions; several stand one to a line.",
)
def export(url: str, table_name: str | None, user: str, encryption_key: str | None) -> None:
    """Print the data that is stored of a user as JSON: their sessions with the data in them, and their events.

    The data of a session in which the user impersonates another one is left out, because it is the other user's.
    Data that needs the visitor's cookie to decrypt, or another serializer to read, is null; "unreadable" says why.
    """
    keys = None if encryption_key is None else [line for line in encryption_key.splitlines() if line.strip()]
    cipher = session_cipher(keys, Encryption.SERVER, read_unencrypted=keys is not None)
    with open_store(url, table_name) as store:
        adapter = StoreAdapter(store, cipher, Events())
        found = {
            "user": user,
            "sessions": [_session(adapter, row, user) for row in adapter.sessions_of(user)],
            "events": [as_json(event) for event in all_events(store, user)],
        }
    click.echo(dumps(found, indent=2, default=_as_text))


@click.command
@store_options
@option("--user", required=True, help="Whose sessions and events.")
@option("--keep-events", is_flag=True, help="Keep the events, with a random name in place of the user's.")
@option("--yes", is_flag=True, help="Do not ask.")
@json_option
def erase(url: str, table_name: str | None, user: str, keep_events: bool, yes: bool, json: bool) -> None:
    """End the sessions of a user and remove their events.

    An event in which the user impersonated another one is also the other user's: it stays, without the user's name.
    Address and user agent are removed from every event that stays.
    """
    with open_store(url, table_name) as store:
        if not yes:
            click.confirm(
                f"End every session of {one_line(user)} and remove the events? (--yes does not ask)",
                abort=True,
                err=True,
            )
        alias = f"erased-{secrets.token_hex(8)}" if keep_events else None
        renamed = [
            replace(
                session,
                user=alias if session.user == user else session.user,
                actor=alias if session.actor == user else session.actor,
            )
            for session in _live_sessions(store, user)
        ]
        ended = store.destroy_all(user)
        erased = store.erase_events(user, alias) if isinstance(store, TrailStore) else 0
        report_ended(store, renamed, Ending.ERASED)
    click.echo(
        dumps({"sessions": ended, "events": erased, "alias": alias})
        if json
        else f"Ended: {ended} sessions, erased from {erased} events" + (f", which name {alias} now" if alias else "")
    )


def _live_sessions(store: AnyStore, user: str) -> list[StoredSession]:
    found: list[StoredSession] = []
    while page := list(store.find(user=user, limit=PAGE, after=found[-1].id if found else None)):
        found += page
    return found


def _session(adapter: StoreAdapter, row: StoredSession, user: str) -> dict[str, Any]:
    facts = {
        "id": row.id,
        "user": row.user,
        "actor": row.actor,
        "created_at": instant(row.created_at),
        "expires_at": instant(row.expires_at),
        "last_seen_at": _moment(row.last_seen_at),
        "authenticated_at": _moment(row.authenticated_at),
        "auth_method": row.auth_method,
        "client_address": row.client_address,
        "user_agent": row.user_agent,
    }
    if row.user != user:
        return facts
    try:
        document = Codec(TypedSerializer(), DEFAULT_MAX_SIZE).decode(adapter.opened(row))
    except SerializationError as error:
        return {**facts, "data": None, "unreadable": str(error)}
    return {**facts, "data": document.values}


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else instant(milliseconds)


def _as_text(value: object) -> Any:
    """Return a value for JSON, which lacks its type."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)
