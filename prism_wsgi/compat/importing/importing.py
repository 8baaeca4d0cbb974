"""The import of another package's sessions into a store, one by one; those that cannot be read are counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.compat.importing.peer import HARMLESS, Peer, PeerSession, Skip, SkippedError
from prism_wsgi.errors import SerializationError, SessionExists, SessionTooLarge
from prism_wsgi.persistence.document import Codec, Document
from prism_wsgi.persistence.imported_ids import earlier_imported_id, import_record_id, imported_id, waiting_prefix
from prism_wsgi.persistence.login import checked_user
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.stores.base import IndexedStore, ReplacingStore, SessionStore, StoredSession
from prism_wsgi.tokens import ID_LENGTH

UNLIMITED_MS = 30 * 24 * 3600 * 1000
"""The time in ms for which an imported session without an expiry waits for its visitor."""

PAGE = 10_000


@dataclass
class ImportResult:
    """The result of an import so far: the rows read, the sessions imported, the others by reason, and those ended.

    `ended` counts sessions of an earlier import that still wait for their visitors, and have ended in the package.
    """

    read: int = 0
    imported: int = 0
    ended: int = 0
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

    `user_key` is the key of the user in the other package's sessions. With `dry_run` nothing is stored or ended.

    You can repeat an import. A session that was imported before is not imported again, whether it is in use, waits,
    or was ended here. One that waits, and that the package has ended since, is ended. Raises StoreUnavailable when
    the store fails.
    """
    codec = Codec(TypedSerializer(), max_size)
    result = ImportResult()
    waiting = _waiting(store, peer.origin)
    for row in rows:
        result.read += 1
        now = milliseconds(clock)
        try:
            found = peer.read(row, now)
            waiting.discard(imported_id(peer.origin, found.key))
            _store(_to_store(found, peer.origin, codec, user_key, now), found, peer.origin, store, dry_run=dry_run)
            result.imported += 1
        except SkippedError as skipped:
            result.skipped[skipped.reason] += 1
            if skipped.reason not in HARMLESS:  # the package may still know it
                waiting.discard(imported_id(peer.origin, peer.key_of(row)))
        if on_row is not None:
            on_row(result)
    if result.read:  # an empty table is more likely the wrong one
        for session_id in waiting:
            result.ended += 1
            if not dry_run:
                store.destroy(session_id)
    return result


def _waiting(store: SessionStore, origin: str) -> set[str]:
    """Return the ids of the sessions that earlier imports have left waiting; none where the store lists nothing."""
    prefix, found = waiting_prefix(origin), list[str]()
    if isinstance(store, IndexedStore):
        while True:
            after = found[-1] if found else prefix.ljust(ID_LENGTH, "0")
            page = [one.id for one in store.find_all(limit=PAGE, after=after)]
            found += [one for one in page if one.startswith(prefix)]
            if len(page) < PAGE or not page[-1].startswith(prefix):
                break
    return set(found)


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


def _store(session: StoredSession, found: PeerSession, origin: str, store: SessionStore, *, dry_run: bool) -> None:
    # The record outlives the session: one that is ended here must not come back with the next import.
    record = replace(session, id=import_record_id(origin, found.key), data=b"", user=None, superseded=True)
    if store.load(earlier_imported_id(origin, found.key)) is not None:
        raise SkippedError(Skip.ALREADY_IMPORTED)
    if dry_run or not isinstance(store, ReplacingStore):
        if store.load(session.id) is not None or store.load(record.id) is not None:
            raise SkippedError(Skip.ALREADY_IMPORTED)
        if dry_run:
            return
    try:
        if isinstance(store, ReplacingStore):
            store.replace(record, session)
        else:
            store.save(session)
            store.save(record)
    except SessionExists:
        raise SkippedError(Skip.ALREADY_IMPORTED) from None
