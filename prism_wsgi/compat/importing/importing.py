"""The import of another package's sessions into a store, one by one; those that cannot be read are counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.compat.importing.peer import HARMLESS, Peer, PeerSession, Skip, SkippedError
from prism_wsgi.errors import SerializationError, SessionExists, SessionTooLarge
from prism_wsgi.persistence.document import Codec, Document
from prism_wsgi.persistence.imported_ids import imported_id
from prism_wsgi.persistence.login import checked_user
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.stores.base import SessionStore, StoredSession

UNLIMITED_MS = 30 * 24 * 3600 * 1000
"""The time in ms for which an imported session without an expiry waits for its visitor."""


@dataclass
class ImportResult:
    """The result of an import so far: the rows read, the sessions imported, and the others by reason."""

    read: int = 0
    imported: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether every session that is still valid could be imported."""
        return not self.skipped.keys() - HARMLESS


def import_sessions(
    peer: Peer,
    rows: Iterable[Mapping[str, Any]],
    store: SessionStore,
    *,
    user_key: str | None,
    max_size: int,
    dry_run: bool = False,
    on_row: Callable[[ImportResult], None] | None = None,
    clock: Clock = system_clock,
) -> ImportResult:
    """Store each session that can be read, under an id made from the key in its visitor's cookie.

    `user_key` is the key of the user in the other package's sessions. With `dry_run` nothing is stored. Sessions that
    are stored already stay as they are, so you can repeat an import. Raises StoreUnavailable when the store fails.
    """
    codec = Codec(TypedSerializer(), max_size)
    result = ImportResult()
    for row in rows:
        result.read += 1
        now = milliseconds(clock)
        try:
            session = _to_store(peer.read(row, now), peer.origin, codec, user_key, now)
            _store(session, store, dry_run=dry_run)
            result.imported += 1
        except SkippedError as skipped:
            result.skipped[skipped.reason] += 1
        if on_row is not None:
            on_row(result)
    return result


def _to_store(found: PeerSession, origin: str, codec: Codec, user_key: str | None, now: int) -> StoredSession:
    try:
        data = codec.encode(Document(found.values, persistent=found.persistent))
    except SerializationError:
        raise SkippedError(Skip.UNSTORABLE) from None
    except SessionTooLarge:
        raise SkippedError(Skip.TOO_LARGE) from None
    return StoredSession(
        imported_id(origin, found.key),
        data,
        version=0,
        created_at=now if found.created_at is None else found.created_at,
        expires_at=now + UNLIMITED_MS if found.expires_at is None else found.expires_at,
        user=_user(found.values.get(user_key)) if user_key else None,
    )


def _user(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SkippedError(Skip.BAD_USER)
    try:
        return checked_user(str(value))
    except ValueError:
        raise SkippedError(Skip.BAD_USER) from None


def _store(session: StoredSession, store: SessionStore, *, dry_run: bool) -> None:
    if dry_run:
        if store.load(session.id) is not None:
            raise SkippedError(Skip.ALREADY_IMPORTED)
        return
    try:
        store.save(session)
    except SessionExists:
        raise SkippedError(Skip.ALREADY_IMPORTED) from None
