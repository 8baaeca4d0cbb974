"""Lease: what a request inside `atomic()` holds, so that one at a time is."""

import secrets
import time
from contextlib import suppress

from prism_wsgi.clock import pause
from prism_wsgi.document import Document
from prism_wsgi.errors import (
    SerializationError,
    SessionConflict,
    SessionGone,
    SessionTooLarge,
    StoreError,
)
from prism_wsgi.persistence import Persistence, Phase

LEASE_SECONDS = 5.0
"""How long one request may stay inside `atomic()` before another takes it for dead."""
LOCK_SECONDS = 30.0
"""How long `atomic()` waits for its turn."""


class Lease:
    """The sole right to be inside `atomic()` of one session.

    It stands as a random number in the stored document, so that compare-and-swap guards it on every store,
    no connection is held meanwhile, and whoever loses it cannot save.
    """

    def __init__(self, persistence: Persistence) -> None:
        self._persistence = persistence
        self._number = 1 + secrets.randbits(63)
        self._seen = 0
        self._since = 0.0

    def acquire(self) -> None:
        """Re-read the session and take its lease, waiting while another request holds it.

        Raises StoreUnavailable when the store fails, or after LOCK_SECONDS.
        """
        persistence = self._persistence
        if not persistence.is_unshared():
            self._wait()
        persistence.lease = self._number
        self._data = persistence.repository.codec.encode(persistence.document)
        self._identity = (persistence.secret, persistence.token, persistence.row, persistence.retired)
        self._user = persistence.user

    def release(self) -> None:
        """Save the document and give the lease back.

        When that fails, nothing since `acquire()` is saved; SessionConflict says that another request took the lease.
        """
        persistence = self._persistence
        try:
            if persistence.phase is not Phase.GONE and (persistence.document.lease or persistence.is_changed()):
                persistence.document.lease = 0
                persistence.save()
        except (SerializationError, SessionTooLarge):
            self.abandon()
            raise
        except StoreError:
            self._restore()
            raise
        finally:
            persistence.lease = 0

    def abandon(self) -> None:
        """Return to how the session was after `acquire()`, and give the lease back."""
        persistence = self._persistence
        self._restore()
        if persistence.document.lease and persistence.phase is not Phase.GONE:
            persistence.document.lease = 0
            # What ended the block is the error to be seen; a lease that stays runs out.
            with suppress(StoreError):
                persistence.save()
        persistence.lease = 0

    def _wait(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        attempt = 0
        while not self._try_to_take():
            if time.monotonic() > deadline:
                raise self._persistence.repository.unavailable(
                    f"session {self._persistence.id} stayed locked by others for {LOCK_SECONDS:.0f} seconds"
                )
            pause(min(attempt, 4))
            attempt += 1

    def _try_to_take(self) -> bool:
        persistence = self._persistence
        theirs = persistence.repository.load(persistence.id, persistence.secret)
        if (theirs is None and persistence.row is not None) or (theirs is not None and theirs.superseded):
            persistence.drop()
            return True
        if theirs is not None:
            persistence.catch_up(theirs)
            if persistence.document.lease and not self._is_abandoned(persistence.document.lease):
                return False
        found, persistence.document.lease = persistence.document.lease, self._number
        try:
            persistence.write()
        except (SessionConflict, SessionGone):
            persistence.document.lease = found
            if theirs is None and persistence.repository.load(persistence.id, persistence.secret) is None:
                persistence.leave_blocked_id()
            return False
        except BaseException:
            persistence.document.lease = found  # it must not be saved later, with nobody inside the block
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
        persistence = self._persistence
        if persistence.lease != self._number:  # the session was ended inside; what came after is dropped
            persistence.document, persistence.user = Document(), None
            return
        secret, persistence.token, persistence.row, persistence.retired = self._identity
        persistence.take_identity(secret)
        persistence.user = self._user
        persistence.document = persistence.repository.codec.decode(self._data)
