"""The row of a session: its key, the columns that it is read from, and the condition that finds a user's rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, or_

from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import ID_LENGTH

FACTS = ("last_seen_at", "authenticated_at", "auth_method", "actor_id", "client_address", "user_agent", "device_key")
"""The columns that are NULL if unknown, in the order of StoredSession's fields."""


def key_of(session_id: str) -> bytes | None:
    """Return an id as it is stored, None for a text that is no id."""
    try:
        key = bytes.fromhex(session_id)
    except (TypeError, ValueError):
        return None
    return key if 2 * len(key) == ID_LENGTH == len(session_id) and key.hex() == session_id else None


def required_key(argument: str, session_id: str) -> bytes:
    """Return an id as it is stored. Raises ValueError, which names the argument, for a text that is no id."""
    key = key_of(session_id)
    if key is None:
        raise ValueError(f"{argument} must be the id of a session: {ID_LENGTH} lower-case hex digits")
    return key


def concerns(table: Table, user: str) -> ColumnElement[bool]:
    """Return the condition that a row of sessions or events has the user as its user or its actor."""
    return or_(holds_user(table.c.user_id, user), holds_user(table.c.actor_id, user))


def holds_user(column: ColumnElement[Any], user: str) -> ColumnElement[bool]:
    """Return the condition that a column holds exactly this user."""
    # MariaDB ignores trailing spaces in comparisons, so append a character; the first comparison uses the index.
    return and_(column == user, column + "." == user + ".")


def loaded_columns(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns that `stored_session` takes, in its order."""
    return [
        table.c[name] for name in ("data", "version", "created_at", "expires_at", "user_id", "superseded", *FACTS)
    ]


def stored_session(session_id: str, columns: Sequence[Any]) -> StoredSession:
    """Return the session of that id from its columns."""
    data, version, created_at, expires_at, user, superseded, seen, proved, method, actor, address, agent, key = (
        columns
    )
    return StoredSession(
        session_id,
        bytes(data),
        version,
        created_at,
        expires_at,
        user,
        bool(superseded),
        seen,
        proved,
        method,
        actor,
        address,
        agent,
        None if key is None else bytes(key),
    )
