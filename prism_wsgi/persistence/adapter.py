"""The store adapter: any store, with the rules of failure, encryption and moving that hold for every session."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from prism_wsgi.errors import ConfigError, SessionConflict, SessionGone, StoreError, StoreUnavailable
from prism_wsgi.events import Events, Reason, StoreCall
from prism_wsgi.persistence.encryption import Cipher
from prism_wsgi.persistence.identity import Identity
from prism_wsgi.retry import repetitions
from prism_wsgi.stores.base import (
    IndexedStore,
    ReplacingStore,
    RevokingStore,
    SessionStore,
    StoredSession,
    TouchingStore,
)

SUPERSEDED_MS = 10_000
"""The lifetime of a marker in ms: requests that are under way with the old cookie must find it."""
PAGE = 100
MAX_ATTEMPTS = 40
"""The largest number of loads of a session that is being ended, while other requests save and move it."""

_ResultT = TypeVar("_ResultT")


class StoreAdapter:
    """A store with every operation that requests need; those that it lacks are done with its three verbs.

    With a `cipher`, data is encrypted on its way to the store and decrypted on its way back, so callers see it
    decrypted. SessionConflict and SessionGone pass; any other error of a store becomes StoreUnavailable, logged once.
    """

    def __init__(self, store: SessionStore, cipher: Cipher | None, events: Events) -> None:
        self.store = store
        self._cipher = cipher
        self._events = events
        self._touch = store.touch if isinstance(store, TouchingStore) else None
        self._replace = store.replace if isinstance(store, ReplacingStore) else None

    def load(self, identity: Identity) -> StoredSession | None:
        """Return what is stored under an id, a marker included.

        Raises SerializationError for data that the cipher cannot open.
        """
        return self._opened(self._ask(self.store.load, identity.id), identity.secret)

    def peek(self, session_id: str) -> StoredSession | None:
        """Return what is stored under an id whose secret is not known. Raises as `load` does."""
        return self._opened(self._ask(self.store.load, session_id), None)

    def opened(self, row: StoredSession) -> StoredSession:
        """Return a listed session, decrypted. Raises SerializationError if only its cookie can decrypt it."""
        return row if self._cipher is None else replace(row, data=self._cipher.open(row, None))

    def save(self, identity: Identity, row: StoredSession) -> None:
        """Insert or replace by compare-and-swap."""
        self._ask(self.store.save, self._sealed(row, identity.secret))

    def touch(self, identity: Identity, row: StoredSession) -> bool:
        """Record the use of a session if it is stored in the version of `row`; tell whether it was."""
        if self._touch is not None:
            return self._ask(self._touch, row)
        try:
            self.save(identity, row)
        except (SessionConflict, SessionGone):
            return False
        row.version += 1
        return True

    def move(self, old: Identity, new: Identity, row: StoredSession, now: int) -> None:
        """Insert `row` under the new id, and leave a marker under the old one for a few seconds: both or neither."""
        version, user = (0, None) if old.stored is None else (old.stored.version, old.stored.user)
        marker = StoredSession(
            id=old.id,
            data=bytes.fromhex(new.id),
            version=version,
            created_at=row.created_at,
            expires_at=now + SUPERSEDED_MS,
            user=user,
            superseded=True,
        )
        self.replace(marker, row, new.secret)

    def replace(self, marker: StoredSession, row: StoredSession, secret: str) -> None:
        """Insert `row`, which `secret` opens, and put the marker where the session was: both or neither."""
        new = self._sealed(row, secret)
        if self._replace is not None:
            self._ask(self._replace, marker, new)
            return
        # Without a transaction the new session comes first: if we die in between, the old one still opens,
        # and nobody has ever seen the secret of the new one.
        self._ask(self.store.save, new)
        try:
            self._ask(self.store.save, marker)
        except StoreError as error:
            if isinstance(error, StoreUnavailable) and self._stands(marker):
                return  # the marker was saved, and only the answer was lost
            self._ask(self.store.destroy, row.id)
            raise

    def _stands(self, marker: StoredSession) -> bool:
        """Tell whether a marker is stored although its save has failed."""
        stored = self._ask(self.store.load, marker.id)
        return stored is not None and stored.superseded and stored.data == marker.data

    def end(self, session_id: str) -> None:
        """Delete what is stored under an id, and where it moved, as long as the same user is logged in there."""
        # A store that moves sessions in one step looks for markers in its own `destroy`.
        # The marker last: as long as it is stored, a failed call can be repeated.
        for ended in [session_id] if self._replace is not None else reversed(self._retired(session_id)):
            self._ask(self.store.destroy, ended)

    def live_behind(self, session_id: str) -> StoredSession | None:
        """Return the stored session that `end` would end: the one under this id, or the one that it moved to."""
        row = self._ask(self.store.load, session_id)
        if row is not None and row.superseded:
            moved = self._moved_from(session_id)
            row = self._ask(self.store.load, moved[0]) if moved else None
        return None if row is None or row.superseded else row

    # A user's other sessions

    def sessions_of(self, user: str) -> list[StoredSession]:
        """Return every live session of a user, as stored. Raises ConfigError for a store without `find`."""
        store = self._indexed()
        found: list[StoredSession] = []
        while True:
            page = list(self._ask(store.find, user=user, limit=PAGE, after=found[-1].id if found else None))
            found += page
            if len(page) < PAGE:
                return found

    def revoke(self, session_id: str, user: str) -> bool:
        """End a session if it is this user's; tell whether it was."""
        if isinstance(self.store, RevokingStore):
            return self._ask(self.store.revoke, session_id, user=user)
        row = self.live_behind(session_id)
        if row is None or not row.concerns(user):
            return False
        self.end(session_id)
        return True

    def destroy_all(self, user: str, except_id: str) -> int:
        """End every session of a user but one; return how many. Raises ConfigError for a store without `find`."""
        return self._ask(self._indexed().destroy_all, user, except_id)

    def unavailable(self, failure: str) -> StoreUnavailable:
        """Log that the store failed, and return the error that says so."""
        self._events.emit(Reason.STORE_FAILED, detail=failure)
        return StoreUnavailable(failure)

    def _indexed(self) -> IndexedStore:
        if not isinstance(self.store, IndexedStore):
            raise ConfigError(
                f"{type(self.store).__name__} cannot list a user's sessions; give it `find` and `destroy_all`"
            )
        return self.store

    def _moved_from(self, session_id: str) -> list[str]:
        """Return the ids that this session moved to, last first, as far as the same user is logged in there."""
        row, ids = self._ask(self.store.load, session_id), [session_id]
        while row is not None and row.moved_to is not None and row.moved_to not in ids:
            following = self._ask(self.store.load, row.moved_to)
            if following is None or following.user != row.user:
                break
            ids.append(following.id)
            row = following
        return ids[:0:-1]

    def _retired(self, session_id: str) -> list[str]:
        """Retire the session behind an id; return the id and those it moved to, as long as the user is the same.

        A request that is about to move the session has read it already. A mere delete might delete that request's
        marker, and the session would live on under its new id. Once the session is retired, no request can move it.
        """
        ids = [session_id]
        user: str | None = None
        for _ in range(MAX_ATTEMPTS):
            row = self._ask(self.store.load, ids[-1])
            if len(ids) > 1 and (row is None or row.user != user):
                return ids[:-1]
            if row is None or (not row.superseded and self._retire(row)):
                break
            if row.superseded:
                if row.moved_to is None or row.moved_to in ids:
                    break
                ids.append(row.moved_to)
                user = row.user
        return ids

    def _retire(self, row: StoredSession) -> bool:
        """Replace a session by a marker that leads nowhere; return False if another request saved it meanwhile."""
        try:
            self._ask(self.store.save, replace(row, data=b"", superseded=True))
        except SessionConflict:
            return False
        except (SessionGone, StoreUnavailable):
            pass  # a full store may still delete it
        return True

    def _sealed(self, row: StoredSession, secret: str | None) -> StoredSession:
        if self._cipher is None:
            return row
        return replace(row, data=self._cipher.seal(row, secret))

    def _opened(self, row: StoredSession | None, secret: str | None) -> StoredSession | None:
        if self._cipher is None or row is None or row.superseded:
            return row
        return replace(row, data=self._cipher.open(row, secret))

    def _ask(self, verb: Callable[..., _ResultT], *arguments: Any, **named: Any) -> _ResultT:
        try:
            return verb(*arguments, **named)
        except StoreUnavailable as error:
            self._events.emit(Reason.STORE_FAILED, detail=str(error))
            raise
        except (SessionConflict, SessionGone):
            raise
        except Exception as error:
            raise self.unavailable(
                f"{type(self.store).__name__}.{verb.__name__} raised {type(error).__name__}"
            ) from error


class ObservedStoreAdapter(StoreAdapter):
    """A store adapter that times each call of the store and tells the observers."""

    def _ask(self, verb: Callable[..., _ResultT], *arguments: Any, **named: Any) -> _ResultT:
        outcome, before, started = "failed", repetitions.get(), time.perf_counter()
        try:
            result = super()._ask(verb, *arguments, **named)
            outcome = "ok"
            return result
        except SessionConflict:
            outcome = "conflict"
            raise
        except SessionGone:
            outcome = "gone"
            raise
        finally:
            duration = time.perf_counter() - started
            call = StoreCall(verb.__name__, outcome, duration, 1 + repetitions.get() - before)
            self._events.tell_call(call)
