"""Persistence: one session's way from the store and back during one request."""

import secrets
import time
from contextlib import suppress
from enum import Enum, auto
from typing import NamedTuple

from prism_wsgi.clock import pause
from prism_wsgi.document import Document
from prism_wsgi.errors import (
    SerializationError,
    SessionConflict,
    SessionExists,
    SessionGone,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from prism_wsgi.events import Reason
from prism_wsgi.repository import Repository
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import Token, issued_at, new_secret, session_id

MAX_ATTEMPTS = 40
LEASE_SECONDS = 5.0
"""How long one request may stay inside `atomic()` before another takes it for dead."""
LOCK_SECONDS = 30.0
"""How long `atomic()` waits for its turn."""


class Phase(Enum):
    """What is known of the session in the store."""

    UNREAD = auto()
    """The cookie names it; the store has not been asked."""
    NEW = auto()
    """Nothing is stored under the id."""
    STORED = auto()
    """Loaded or saved: `row` is what the store holds, as far as we know."""
    GONE = auto()
    """Ended by another request while this one was under way: reads empty, writes go nowhere, no cookie."""


class Persistence:
    """Keeps one session's document and identity in step with the store."""

    document: Document
    """What the request works on; there once the session has been read."""
    created_at: int
    row: StoredSession | None = None
    retired: StoredSession | None = None
    """What `regenerate()` will put a marker in place of, at the next save."""
    user: str | None = None
    is_new = False
    saved = False
    """Whether this request has written the session."""
    touched = False
    """Whether this request has recorded activity."""
    destroyed = False
    """Whether the application ended the session, and nothing was saved since."""
    failed = False
    """Whether the store failed at the last attempt to load or destroy."""
    destroy_failed = False
    """Whether a session that the application ended may still be there."""
    reachable = False
    """Whether the browser holds, or is being sent, the cookie of this id."""
    lease = 0
    """The number under which this request is inside `atomic()`."""
    _dropped = False
    _unreadable_id: str | None = None
    _checkpoint: "_Checkpoint | None" = None
    _origin: tuple[str, Token | None, StoredSession | None] | None = None

    def __init__(self, repository: Repository, token: Token | None) -> None:
        self.repository = repository
        self.token = token
        """The verified cookie this session came with; None once the session has an id of its own."""
        if token is None:
            self.start_over()
        else:
            self.phase = Phase.UNREAD
            self.reachable = True
            self._take_identity(token.secret)

    @property
    def ttl(self) -> int:
        """The idle lifetime in seconds."""
        return self.document.ttl or self.repository.ttl

    @property
    def persistent(self) -> bool:
        """Whether the cookie outlives the browser's session."""
        chosen = self.document.persistent
        return self.repository.persistent if chosen is None else chosen

    @property
    def expires_at(self) -> int:
        """When the session ends without more activity, in Unix ms."""
        if self.row is not None:
            return self.row.expires_at
        return self.repository.expiry(self.created_at, self.repository.ttl)

    def load(self) -> None:
        """Ask the store, once, what the cookie's session holds."""
        assert self.token is not None
        self.failed = True
        row = self.repository.load(self.id)
        self.failed = False
        self.document, self.created_at = Document(), issued_at(self.secret)
        if row is None and self.token.refreshed == 0:
            # Issued by us and never stored: the one id that may be written under without being held.
            self.phase, self.is_new = Phase.NEW, True
        elif row is None:
            self.repository.events.emit(Reason.UNKNOWN_ID, self.id)
            self.start_over()
        elif row.superseded:
            self.repository.events.emit(Reason.SUPERSEDED_ID, self.id)
            self.phase = Phase.GONE
        else:
            try:
                self._hold(row)
            except SerializationError as error:
                self.repository.events.emit(Reason.UNREADABLE_DATA, self.id, str(error))
                self._unreadable_id = self.id
                self.start_over()

    def start_over(self) -> None:
        """Become a new, empty session under a new id."""
        self.token = self.row = self.retired = self.user = None
        self.document = Document()
        self.phase, self.is_new, self.saved, self.reachable = Phase.NEW, True, False, False
        self.lease, self._checkpoint = 0, None
        self.created_at = self.repository.now()
        self._take_identity(new_secret(self.created_at))

    def is_changed(self) -> bool:
        """Tell whether the document differs from what is stored."""
        if self.row is None:
            stored_before = self.retired is not None and self.retired.version > 0
            return stored_before or self.user is not None or not self.document.is_blank()
        return not self.repository.codec.is_unchanged(self.document, self.row.data)

    def fresh_token(self) -> Token:
        """Return what the cookie of a session saved or touched just now says."""
        now = self.repository.now() // 1000
        return Token(self.secret, now, self.document.ttl, self.document.persistent)

    def is_cookie_stale(self) -> bool:
        """Tell whether what was saved or touched has to be told to the browser."""
        if not (self.saved or self.touched):
            return False
        return (
            self.touched
            or self.token is None
            or self.token.ttl != self.document.ttl
            or self.token.persistent != self.document.persistent
            or self.is_touch_due()
        )

    def is_touch_due(self) -> bool:
        """Tell whether the cookie was last renewed a touch interval ago."""
        return self.token is not None and self.repository.is_touch_due(self.token.refreshed)

    def touch(self) -> None:
        """Record activity, unless another request has just done so."""
        if self.saved or self.touched:
            return
        assert self.row is not None
        if self.repository.touch(self.row, self.ttl):
            self.touched = True
        else:
            self._drop()

    def report_dropped_write(self) -> None:
        """Log, once, that this request's changes went nowhere."""
        if not self._dropped:
            ended = self.retired or self.row
            self.repository.events.emit(Reason.LATE_WRITE_DROPPED, self.id if ended is None else ended.id)
            self._dropped = True

    def regenerate(self) -> None:
        """Move to a new id; the old one is retired when the session is saved."""
        now = self.repository.now()
        if self.retired is None:
            self._origin = (self.secret, self.token, self.row)
            if self.row is not None:
                self.retired = self.row
            elif self.token is not None:
                # Nothing stored yet, but another request may be about to store under the same cookie.
                self.retired = StoredSession(self.id, b"", 0, self.created_at, now)
        self.token = self.row = None
        self._redraw()

    def destroy(self) -> None:
        """Delete what is stored, at once, and start over."""
        self.destroy_failed = True
        if self.phase is Phase.UNREAD:
            self.load()
        if self.phase is Phase.GONE:
            # The browser holds, or is about to get, a newer cookie: this answer must not delete it.
            self.destroy_failed = False
            return
        self.failed = True
        if self._unreadable_id is not None:
            self.repository.destroy(self._unreadable_id)
        if self.retired is not None:
            self.repository.destroy(self.retired.id)
        elif self.row is not None or self.token is not None:
            self.repository.destroy(self.id)
        self.failed = self.destroy_failed = False
        self.start_over()
        self.destroyed = True

    def save(self) -> bool:
        """Write the document, merging what other requests saved; False when the session has ended meanwhile.

        Raises SerializationError, SessionTooLarge, and StoreUnavailable when the store fails or rivals never
        cease; nothing is saved then.
        """
        for attempt in range(MAX_ATTEMPTS):
            try:
                self._write()
            except SessionGone:
                self._drop()
            except SessionConflict as conflict:
                self._reconcile(conflict)
            if self.phase is Phase.GONE:
                return False
            if self.saved:
                return True
            pause(attempt)
        raise StoreUnavailable(f"Session {self.id} changed under each of {MAX_ATTEMPTS} attempts to save it")

    def lock(self) -> None:
        """Re-read the session and take its lease, waiting while another request holds it.

        The lease stands in the stored document, so compare-and-swap guards it on every store, and no
        connection is held meanwhile. Raises StoreUnavailable after LOCK_SECONDS.
        """
        if not self._is_unshared():
            self._take_lease()
        data = self.repository.codec.encode(self.document)
        self._checkpoint = _Checkpoint(data, self.secret, self.token, self.row, self.retired, self.user)

    def is_locked(self) -> bool:
        """Tell whether this request is inside `atomic()`."""
        return self._checkpoint is not None

    def unlock(self) -> None:
        """Save the document and give the lease back.

        When that fails nothing since `lock()` is saved; SessionConflict says that another request took the lease.
        """
        try:
            if self.phase is not Phase.GONE and (self.lease or self.is_changed()):
                self.document.lease = 0
                self.save()
        except (SerializationError, SessionTooLarge):
            self.abandon()
            raise
        except StoreError:
            self._restore_checkpoint()
            raise
        finally:
            self.lease, self._checkpoint = 0, None

    def abandon(self) -> None:
        """Return to how the session was when `lock()` returned, and give the lease back."""
        self._restore_checkpoint()
        if self.lease and self.phase is not Phase.GONE:
            self.document.lease = 0
            # What ended the block is the error to be seen; a lease that stays runs out.
            with suppress(StoreError):
                self.save()
        self.lease, self._checkpoint = 0, None

    def roll_back(self) -> None:
        """Forget every change that has not been saved, a new id included."""
        if self.retired is not None and self._origin is not None:
            secret, self.token, self.row = self._origin
            self._take_identity(secret)
            self.retired = None
        if self.row is not None:
            self._hold(self.row)
        else:
            self.document, self.user = Document(), None

    def _take_lease(self) -> None:
        queue = _LeaseQueue()
        for attempt in range(1_000_000):
            if self._try_lock(queue):
                return
            if queue.waited() > LOCK_SECONDS:
                break
            pause(min(attempt, 4))
        raise StoreUnavailable(f"Session {self.id} stayed locked by others for {LOCK_SECONDS:.0f} seconds")

    def _try_lock(self, queue: "_LeaseQueue") -> bool:
        theirs = self.repository.load(self.id)
        if (theirs is None and self.row is not None) or (theirs is not None and theirs.superseded):
            self._drop()
            return True
        if theirs is not None:
            self._catch_up(theirs)
            if self.document.lease and not queue.is_abandoned(self.document.lease):
                return False
        found = self.document.lease
        self.lease = self.document.lease = 1 + secrets.randbits(63)
        try:
            self._write()
        except (SessionConflict, SessionGone):
            self.lease, self.document.lease = 0, found
            if theirs is None and self.repository.load(self.id) is None:
                self._leave_blocked_id()
            return False
        return True

    def _restore_checkpoint(self) -> None:
        if self._checkpoint is None:  # the session was ended inside; what came after is dropped
            self.document, self.user = Document(), None
            return
        data, secret, self.token, self.row, self.retired, self.user = self._checkpoint
        self._take_identity(secret)
        self.document = self.repository.codec.decode(data)

    def _is_unshared(self) -> bool:
        """Tell whether no other request can reach what this one will save."""
        return self.phase is Phase.GONE or self.retired is not None or (self.row is None and self.token is None)

    def _write(self) -> None:
        if self.retired is not None:
            self.document.lease = 0  # whoever is inside atomic() under the old id will find it retired
        data = self.repository.codec.encode(self.document)
        row = StoredSession(
            id=self.id,
            data=data,
            version=0 if self.row is None else self.row.version,
            created_at=self.created_at,
            expires_at=self.repository.expiry(self.created_at, self.ttl),
            user=self.user,
        )
        self.saved = False
        if self.retired is not None:
            self.repository.replace(self.retired, row)
        else:
            self.repository.save(row)
        row.version += 1
        self.row, self.retired, self.saved, self.destroyed, self.phase = row, None, True, False, Phase.STORED

    def _reconcile(self, conflict: SessionConflict) -> None:
        """Make the next attempt possible: merge with what is stored now, or draw another id."""
        contested = self.retired or self.row
        if contested is None and self.token is None:
            self._redraw()  # an id drawn in this request is taken: by chance, or not ours to have
            return
        theirs = self.repository.load(self.id if contested is None else contested.id)
        if theirs is None and contested is not None and contested.version:
            self._drop()
        elif theirs is None:
            self._leave_blocked_id()
        elif theirs.superseded:
            self._drop()
        elif self.retired is not None and isinstance(conflict, SessionExists) and self.retired.version:
            self._redraw()
        else:
            self._catch_up(theirs)
            self.repository.events.emit(Reason.CONFLICT_MERGED, theirs.id)

    def _catch_up(self, theirs: StoredSession) -> None:
        """Carry this request's changes over to what is stored now."""
        codec = self.repository.codec
        base = self.retired or self.row
        # Nothing was loaded when the first write of two raced: both started from nothing.
        before = codec.decode(base.data) if base is not None and base.version else Document()
        after = codec.decode(theirs.data)
        if self.lease and after.lease != self.lease:
            raise SessionConflict(
                f"Session {self.id} was changed by another request inside atomic(), because this one stayed there "
                f"for more than {LEASE_SECONDS:.0f} seconds; nothing was saved. Keep slow work outside atomic()"
            )
        self.document = codec.merge(before, self.document, after)
        if self.retired is not None:
            self.retired = theirs
        else:
            self.row, self.user, self.created_at = theirs, theirs.user, theirs.created_at

    def _leave_blocked_id(self) -> None:
        # What blocks the id is an expired marker: nothing is stored for it, and nothing will be.
        self.token = self.retired = None
        self._redraw()

    def _redraw(self) -> None:
        """Take a new id; the session is as old as it was."""
        self._take_identity(new_secret(self.repository.now()))

    def _drop(self) -> None:
        self.report_dropped_write()
        self.phase = Phase.GONE

    def _hold(self, row: StoredSession) -> None:
        self.document = self.repository.codec.decode(row.data)
        self.row, self.user, self.created_at = row, row.user, row.created_at
        self.phase = Phase.STORED

    def _take_identity(self, secret: str) -> None:
        self.secret = secret
        self.id = session_id(secret)


class _Checkpoint(NamedTuple):
    """What `atomic()` returns to when its block fails."""

    data: bytes
    secret: str
    token: Token | None
    row: StoredSession | None
    retired: StoredSession | None
    user: str | None


class _LeaseQueue:
    """Watches, while we wait, whether the lease we wait for is still being used.

    Time is measured here, by how long the same lease has been seen: servers' clocks may differ.
    """

    def __init__(self) -> None:
        self._began = self._since = time.monotonic()
        self._seen = 0

    def waited(self) -> float:
        return time.monotonic() - self._began

    def is_abandoned(self, lease: int) -> bool:
        if self._seen != lease:
            self._seen, self._since = lease, time.monotonic()
        return time.monotonic() - self._since > LEASE_SECONDS
