"""Lease: what a request inside `atomic()` holds, so that one at a time is."""

import secrets
import time
from contextlib import suppress

from prism_wsgi.errors import (
    SerializationError,
    SessionConflict,
    SessionGone,
    SessionTooLarge,
    StoreError,
)
from prism_wsgi.persistence.document import Document
from prism_wsgi.request.saving import catch_up, save, write
from prism_wsgi.request.state import GONE, SessionState
from prism_wsgi.retry import pause

LEASE_SECONDS = 5.0
"""How long one request may stay inside `atomic()` before another takes it for dead."""
LOCK_SECONDS = 30.0
"""How long `atomic()` waits for its turn."""


class Lease:
    """The sole right to be inside `atomic()` of one session.

    It stands as a random number in the stored document, so that compare-and-swap guards it on every store,
    no connection is held meanwhile, and whoever loses it cannot save.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._number = 1 + secrets.randbits(63)
        self._seen = 0
        self._since = 0.0

    def acquire(self) -> None:
        """Re-read the session and take its lease, waiting while another request holds it.

        Raises StoreUnavailable when the store fails, or after LOCK_SECONDS.
        """
        state = self._state
        if not state.is_unshared():
            self._wait()
        state.lease = self._number
        self._data = state.repository.codec.encode(state.document)
        self._identity = (state.secret, state.token, state.row, state.retired)
        self._user = state.user

    def release(self) -> None:
        """Save the document and give the lease back.

        When that fails, nothing since `acquire()` is saved; SessionConflict says that another request took the lease.
        """
        state = self._state
        try:
            if state.phase is not GONE and (state.document.lease or state.is_changed()):
                state.document.lease = 0
                save(state)
        except (SerializationError, SessionTooLarge):
            self.abandon()
            raise
        except StoreError:
            self._restore()
            raise
        finally:
            state.lease = 0

    def abandon(self) -> None:
        """Return to how the session was after `acquire()`, and give the lease back."""
        state = self._state
        self._restore()
        if state.document.lease and state.phase is not GONE:
            state.document.lease = 0
            # What ended the block is the error to be seen; a lease that stays runs out.
            with suppress(StoreError):
                save(state)
        state.lease = 0

    def _wait(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        attempt = 0
        while not self._try_to_take():
            if time.monotonic() > deadline:
                raise self._state.repository.unavailable(
                    f"session {self._state.id} stayed locked by others for {LOCK_SECONDS:.0f} seconds"
                )
            pause(min(attempt, 4))
            attempt += 1

    def _try_to_take(self) -> bool:
        state = self._state
        theirs = state.repository.load(state.id, state.secret)
        if (theirs is None and state.row is not None) or (theirs is not None and theirs.superseded):
            state.drop()
            state.document, state.user = Document(), None
            return True
        if theirs is not None:
            catch_up(state, theirs)
            if state.document.lease and not self._is_abandoned(state.document.lease):
                return False
        found, state.document.lease = state.document.lease, self._number
        try:
            write(state)
        except (SessionConflict, SessionGone):
            state.document.lease = found
            if theirs is None and state.repository.load(state.id, state.secret) is None:
                state.leave_blocked_id()
            return False
        except BaseException:
            state.document.lease = found  # it must not be saved later, with nobody inside the block
            raise
        return True

    def _is_abandoned(self, number: int) -> bool:
        """Tell whether another's lease has been seen for so long that its holder must be dead.

        That is measured here, while waiting: servers' clocks may differ.
        """
        if number != self._seen:
            self._seen, self._since = number, time.monotonic()
        return time.monotonic() - self._since > LEASE_SECONDS

    def _restore(self) -> None:
        state = self._state
        if state.lease != self._number:  # the session was ended inside; what came after is dropped
            state.document, state.user = Document(), None
            return
        secret, state.token, state.row, state.retired = self._identity
        state.take_identity(secret)
        state.user = self._user
        state.document = state.repository.codec.decode(self._data)
