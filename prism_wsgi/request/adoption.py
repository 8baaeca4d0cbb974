"""Adoption of an imported session: another package's cookie leads to it, and it moves to a new id."""

from dataclasses import replace

from prism_wsgi.errors import SerializationError, SessionConflict, SessionGone
from prism_wsgi.events import Reason
from prism_wsgi.persistence.imported_ids import adopted_secret, earlier_imported_id, imported_id
from prism_wsgi.request.peer_fallbacks import Earlier
from prism_wsgi.request.site import Site
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import TIME_BYTES, Token, session_id

JOIN_MS = 300_000
"""The time after the move for which the old cookie still leads to the session: the response with the new cookie may
be lost, and a page makes many requests at once. Afterwards the old cookie opens nothing."""
MAX_ATTEMPTS = 10  # the loser of a race finds the winner's marker at the second attempt, or soon after


def adopt(site: Site, earlier: Earlier) -> Token | None:
    """Return the token of the session that an old key leads to, None if there is no session.

    The session moves to a new id in one step. Of several requests at once, one moves it and the others join it.
    Raises StoreUnavailable.
    """
    origin, key = earlier.origin, earlier.key
    return _adopt(site, earlier, imported_id(origin, key)) or _adopt(site, earlier, earlier_imported_id(origin, key))


def _adopt(site: Site, earlier: Earlier, waiting: str) -> Token | None:
    """Return the token of the session that waits under an id, None if there is none."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            row = site.adapter.peek(waiting)
        except SerializationError as error:
            detail = f"{error}; imports are not encrypted, so set read_unencrypted"
            site.events.emit(Reason.UNREADABLE_DATA, waiting, detail)
            return None
        if row is None:
            return None
        secret = _secret_of(site, earlier, row.data.hex()) if row.superseded else _move(site, earlier, row)
        if secret is not None:
            return Token(secret, site.now() // 1000, outdated_key=True)
        if row.superseded:
            return None
        pause(attempt)
    return None


def _secret_of(site: Site, earlier: Earlier, new_id: str) -> str | None:
    """Return the secret of a session that moved to `new_id`, None once the old key may no longer lead there."""
    moved_at = int(new_id[: 2 * TIME_BYTES], 16)
    if site.now() >= moved_at + JOIN_MS:
        return None
    return adopted_secret(earlier.origin, earlier.key, moved_at)


def _move(site: Site, earlier: Earlier, row: StoredSession) -> str | None:
    """Move a session to a new id, leave a marker, and return its secret; None if another request was first."""
    secret = adopted_secret(earlier.origin, earlier.key, site.now())
    expires_at = site.lifetimes.expiry(site.now(), row.created_at, site.lifetimes.ttl, None)
    new = StoredSession(
        session_id(secret), row.data, 0, row.created_at, expires_at, row.user, last_seen_at=site.now()
    )
    # The marker stays as long as the session would have, so that a second import does not bring it back.
    marker = replace(row, data=bytes.fromhex(new.id), user=None, superseded=True)
    try:
        site.adapter.replace(marker, new, secret)
    except (SessionConflict, SessionGone):
        return None
    return secret
