"""The fields of a Redis hash that hold a StoredSession. A value of None has no field."""

import re
from collections.abc import Iterable, Mapping

from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import ID_LENGTH

_ID = re.compile(rb"[0-9a-f]{%d}" % ID_LENGTH)

Value = str | bytes | int

USE = ("last_seen_at", "client_address", "user_agent")
"""The fields that a touch records besides the expiry."""

_MAY_BE_NONE = (*USE, "authenticated_at", "auth_method", "actor", "device_key")


def named(user: str | None) -> bytes:
    """Return a user as the field `user` holds them: "=" and the name, empty if nobody is logged in."""
    return b"" if user is None else b"=" + user.encode()


def fields_of(session: StoredSession) -> list[Value]:
    """Return the fields that a save of the session stores, names and values in turn."""
    fields, _ = present_and_absent(session, _MAY_BE_NONE)
    if session.superseded:
        fields += ("superseded", 1)
    return [
        *("version", session.version + 1),
        *("data", session.data),
        *("created_at", session.created_at),
        *("expires_at", session.expires_at),
        # Without a user too, because workers of earlier releases read the field always.
        *("user", named(session.user)),
        *fields,
    ]


def present_and_absent(session: StoredSession, names: Iterable[str]) -> tuple[list[Value], list[str]]:
    """Return the session's fields, names and values in turn, and the names of those that are None."""
    present: list[Value] = []
    absent = []
    for name in names:
        value = getattr(session, name)
        if value is None:
            absent.append(name)
        else:
            present += (name, value)
    return present, absent


def session_of(session_id: str, fields: Mapping[bytes, bytes]) -> StoredSession | None:
    """Return the session in these fields, or None if they are missing or cannot be read."""
    find = fields.get
    try:
        user, actor, method = find(b"user"), find(b"actor"), find(b"auth_method")
        address, agent = find(b"client_address"), find(b"user_agent")
        return StoredSession(
            session_id,
            fields[b"data"],
            int(fields[b"version"]),
            int(fields[b"created_at"]),
            int(fields[b"expires_at"]),
            user[1:].decode() if user else None,
            find(b"superseded") == b"1",
            None if (seen := find(b"last_seen_at")) is None else int(seen),
            None if (proven := find(b"authenticated_at")) is None else int(proven),
            None if method is None else method.decode(),
            None if actor is None else actor.decode(),
            None if address is None else address.decode(),
            None if agent is None else agent.decode(),
            find(b"device_key"),
        )
    except (KeyError, ValueError):
        return None


def ids_in(names: Iterable[bytes]) -> list[str]:
    """Return the names that are session ids; a shared server may hold any other name."""
    return [name.decode() for name in names if _ID.fullmatch(name)]
