"""The lock that a request holds inside `atomic()`, where only one request at a time may be."""

import secrets
import time
from contextlib import suppress

from prism_wsgi.errors import SerializationError, SessionConflict, SessionGone, SessionTooLarge, StoreError
from prism_wsgi.request.phases import GONE
from prism_wsgi.request.saving import save, save_changes, write
from prism_wsgi.request.state import SessionState
from prism_wsgi.retry import pause

HOLD_SECONDS = 5.0
"""The time that one request may stay inside `atomic()` before another may take the lock."""
WAIT_SECONDS = 30.0
"""The longest wait of `atomic()` for the lock."""
PATIENT_WAITERS = 4
"""The number of requests for one session in a process that may wait for WAIT_SECONDS."""
IMPATIENT_SECONDS = 2 * HOLD_SECONDS
"""The longest wait of further requests, so that a visitor with many connections cannot occupy every thread."""

# The numbers of the waiting locks of this process, by session id. Adding to a set and discarding are atomic.
_waiting: dict[str, set[int]] = {}


class Lock:
    """The sole right to be inside `atomic()` of one session.

    It is a random number in the stored session. So compare-and-swap guards it on every store, a request inside holds
    no connection, and a request that lost the lock cannot save.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._number = 1 + secrets.randbits(63)
        self._seen = 0
        self._since = 0.0

    def acquire(self) -> None:
        """Re-read the session and take its lock, waiting while another request holds it.

        Raises StoreUnavailable when the store fails, or after WAIT_SECONDS.
        """
        state = self._state
        state.follow_user_key()  # before the lock is written: that would store the key under the old id
        if not state.is_unshared:
            self._wait()
        state.lock_as(self._number)
        self._snapshot = state.snapshot()

    def release(self) -> None:
        """Save the session and give the lock back.

        When that fails, nothing since `acquire()` is saved; SessionConflict says that another request took the lock.
        """
        state = self._state
        try:
            if state.document.lock and state.phase is not GONE:
                state.document.lock = 0
                state.follow_user_key()
                save(state)
            else:
                save_changes(state)
        except (SerializationError, SessionTooLarge):
            self.abandon()
            raise
        except StoreError:
            self._restore()
            raise
        finally:
            state.lock_as(0)

    def abandon(self) -> None:
        """Return to how the session was after `acquire()`, and give the lock back."""
        state = self._state
        self._restore()
        if state.document.lock and state.phase is not GONE:
            state.document.lock = 0
            # The application must see the error that ended the block; a lock that stays ends with HOLD_SECONDS.
            with suppress(StoreError):
                save(state)
        state.lock_as(0)

    def _wait(self) -> None:
        session_id = self._state.identity.id
        waiters = _waiting.setdefault(session_id, set())
        seconds = WAIT_SECONDS if len(waiters) < PATIENT_WAITERS else min(IMPATIENT_SECONDS, WAIT_SECONDS)
        waiters.add(self._number)
        deadline = time.monotonic() + seconds
        attempt = 0
        try:
            while not self._try_to_take():
                if time.monotonic() > deadline:
                    raise self._state.site.adapter.unavailable(
                        f"session {session_id} stayed locked by others for {seconds:.0f} seconds"
                    )
                pause(min(attempt, 4))
                attempt += 1
        finally:
            waiters.discard(self._number)
            if not waiters:
                _waiting.pop(session_id, None)

    def _try_to_take(self) -> bool:
        state = self._state
        adapter, identity = state.site.adapter, state.identity
        theirs = adapter.load(identity)
        if (theirs is None and identity.stored is not None) or (theirs is not None and theirs.superseded):
            state.drop()
            state.empty()
            return True
        if theirs is not None:
            state.join(theirs)
            if state.document.lock and not self._is_abandoned(state.document.lock):
                return False
        found, state.document.lock = state.document.lock, self._number
        try:
            write(state)
        except (SessionConflict, SessionGone):
            state.document.lock = found
            if theirs is None and adapter.load(identity) is None:
                state.leave_blocked_id()
            return False
        except BaseException:
            state.document.lock = found  # it must not be saved later, with nobody inside the block
            raise
        return True

    def _is_abandoned(self, number: int) -> bool:
        """Tell whether another request has held the lock for longer than HOLD_SECONDS.

        The waiting request measures that time itself, because servers' clocks may differ.
        """
        if number != self._seen:
            self._seen, self._since = number, time.monotonic()
        return time.monotonic() - self._since > HOLD_SECONDS

    def _restore(self) -> None:
        state = self._state
        if state.lock == self._number:
            state.restore(self._snapshot)
        else:
            state.empty()  # the block ended the session; later changes are dropped
