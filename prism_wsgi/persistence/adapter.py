"""Repository: the store with the rules of time, expiry and failure that hold for every session and every store."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import SerializationError, SessionConflict, SessionGone, StoreError, StoreUnavailable
from prism_wsgi.events import EventLog, Reason
from prism_wsgi.persistence.client import Client
from prism_wsgi.persistence.document import Codec
from prism_wsgi.persistence.encryption import Cipher
from prism_wsgi.stores.base import ReplacingStore, SessionStore, StoredSession, TouchingStore

SUPERSEDED_MS = 10_000
"""How long a marker stays where a regenerated session was, for requests already under way with its cookie."""

_ResultT = TypeVar("_ResultT")


class Repository:
    """Loads, saves, touches, replaces and destroys; what a store does not offer is done with its three verbs.

    Data is encrypted on its way to the store and decrypted on its way back, where a `cipher` is given; on this side
    it never is. `secret` is the one in the session's cookie, which the cipher may need.

    Whatever a store raises beyond SessionConflict and SessionGone comes out as StoreUnavailable, logged once.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        codec: Codec,
        ttl: int,
        max_lifetime: int | None,
        touch_interval: float,
        persistent: bool,
        events: EventLog,
        cipher: Cipher | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.store = store
        self.codec = codec
        self.ttl = ttl
        self.persistent = persistent
        self.events = events
        self._max_lifetime_ms = None if max_lifetime is None else max_lifetime * 1000
        self._cipher = cipher
        self._clock = clock
        self._touch_interval_ms = touch_interval * 1000
        self._store_touch = store.touch if isinstance(store, TouchingStore) else None
        self._store_replace = store.replace if isinstance(store, ReplacingStore) else None
        self.is_move_followed = self._store_replace is not None
        """Whether the store's own `destroy` ends a session where it has moved."""

    def now(self) -> int:
        """Return the current time in Unix milliseconds."""
        return milliseconds(self._clock)

    def expiry(self, created_at: int, ttl: int) -> int:
        """Return when a session active now expires, in Unix ms; never past its absolute lifetime."""
        return self.capped(self.now() + ttl * 1000, created_at)

    def is_touch_due(self, refreshed: int, ttl: int) -> bool:
        """Tell whether activity last recorded at the Unix second `refreshed` should be recorded again."""
        return self.now() - refreshed * 1000 >= self._touch_interval_of(ttl)

    def load(self, session_id: str, secret: str | None = None) -> StoredSession | None:
        """Return what is stored under an id, a marker of `regenerate()` included.

        Raises SerializationError for data that the cipher cannot open.
        """
        row = self._ask(self.store.load, session_id)
        # A store may lack a clock of its own, and max_lifetime may have been lowered since the row was written.
        if row is None or self.capped(row.expires_at, row.created_at) <= self.now():
            return None
        return self._opened(row, secret)

    def save(self, row: StoredSession, secret: str | None = None) -> None:
        """Insert or replace by compare-and-swap."""
        self._ask(self.store.save, self._sealed(row, secret))

    def client_of(self, row: StoredSession) -> Client | None:
        """Return who last used a session as the store has it; None when that is not recorded or not readable."""
        try:
            return self.codec.decode(self._opened(row, None).data).client
        except SerializationError:
            return None

    def destroy(self, session_id: str) -> None:
        """Delete what is stored under an id."""
        self._ask(self.store.destroy, session_id)

    def destroy_successor(self, session_id: str) -> None:
        """End the session where another request, logged in as the same user, has just moved it."""
        row = self._ask(self.store.load, session_id)
        if row is not None and row.moved_to is not None:
            self.destroy_successor(row.moved_to)
            self.destroy(row.moved_to)

    def touch(self, row: StoredSession, ttl: int, secret: str | None = None) -> bool:
        """Record activity when it is due; False when the session is gone.

        The expiry moves in whole quanta, so that requests racing to record the same activity write it once.
        """
        interval = self._touch_interval_of(ttl)
        expires_at = self.expiry(row.created_at, ttl)
        expires_at -= expires_at % max(1, min(1000, int(interval)))
        if expires_at - row.expires_at < interval:
            return True
        if self._store_touch is not None:
            touched = self._ask(self._store_touch, row.id, expires_at)
        else:
            touched = self._touch_by_saving(row, expires_at, secret)
        if touched:
            row.expires_at = expires_at
        return touched

    def replace(self, old: StoredSession, new: StoredSession, secret: str | None = None) -> None:
        """Retire `old`, leaving a marker for a few seconds, and insert `new`: both or neither."""
        marker = StoredSession(
            id=old.id,
            # For `destroy`. Not of a visitor nobody knows, whose cookie may have been planted before a login.
            data=b"" if old.user is None else bytes.fromhex(new.id),
            version=old.version,
            created_at=old.created_at,
            expires_at=self.now() + SUPERSEDED_MS,
            superseded=True,
        )
        if self._store_replace is not None:
            self._ask(self._store_replace, marker, self._sealed(new, secret))
            return
        # Without a transaction the new session comes first: if we die in between, the old one still opens,
        # and nobody has ever seen the secret of the new one.
        self.save(new, secret)
        try:
            self.save(marker)
        except StoreError:
            self.destroy(new.id)
            raise

    def unavailable(self, failure: str) -> StoreUnavailable:
        """Log that the store failed, and return the error that says so."""
        self.events.emit(Reason.STORE_UNAVAILABLE, detail=failure)
        return StoreUnavailable(failure)

    def _touch_interval_of(self, ttl: int) -> float:
        # A session that chose a short lifetime would end while it is used, were it touched as rarely as the others.
        return self._touch_interval_ms if ttl >= self.ttl else self._touch_interval_ms * ttl / self.ttl

    def _touch_by_saving(self, row: StoredSession, expires_at: int, secret: str | None) -> bool:
        try:
            self.save(replace(row, expires_at=expires_at), secret)
        except SessionConflict:
            return True  # whoever saved has recorded activity too
        except SessionGone:
            return False
        row.version += 1
        return True

    def _sealed(self, row: StoredSession, secret: str | None) -> StoredSession:
        if self._cipher is None or row.superseded:
            return row
        return replace(row, data=self._cipher.seal(row.data, row.id, row.user, secret))

    def _opened(self, row: StoredSession, secret: str | None) -> StoredSession:
        if self._cipher is None or row.superseded:
            return row
        return replace(row, data=self._cipher.open(row.data, row.id, row.user, secret))

    def capped(self, expires_at: int, created_at: int) -> int:
        """Return an expiry, brought forward to the end of the absolute lifetime where that is sooner."""
        if self._max_lifetime_ms is None:
            return expires_at
        return min(expires_at, created_at + self._max_lifetime_ms)

    def _ask(self, verb: Callable[..., _ResultT], *arguments: Any) -> _ResultT:
        try:
            return verb(*arguments)
        except StoreUnavailable as error:
            self.events.emit(Reason.STORE_UNAVAILABLE, detail=str(error))
            raise
        except (SessionConflict, SessionGone):
            raise
        except Exception as error:
            raise self.unavailable(
                f"{type(self.store).__name__}.{verb.__name__} raised {type(error).__name__}"
            ) from error
