"""Sessions for tests of stores, and helpers that work on them."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from prism_wsgi.errors import SessionConflict, StoreError
from prism_wsgi.stores.base import SessionStore, StoredSession
from prism_wsgi.testing.clock import ManualClock

MINUTE = 60_000  # ms


def new_session(
    *,
    data: bytes = b"data",
    version: int = 0,
    expires_at: int | None = None,
    user: str | None = None,
    superseded: bool = False,
    actor: str | None = None,
) -> StoredSession:
    """Return a session with a new id; it lives for ten more minutes unless `expires_at` is given."""
    now = int(time.time() * 1000)
    expires_at = now + 10 * MINUTE if expires_at is None else expires_at
    return StoredSession(
        secrets.token_hex(32), data, version, now, expires_at, user, superseded, last_seen_at=now, actor=actor
    )


def marker_of(session: StoredSession, new: StoredSession | None = None) -> StoredSession:
    """Return the marker that `regenerate()` leaves for a session that was saved once; it names the `new` one."""
    return StoredSession(
        session.id,
        b"" if new is None else bytes.fromhex(new.id),
        1,
        session.created_at,
        session.expires_at,
        session.user,
        superseded=True,
    )


def loaded(store: SessionStore, session: StoredSession) -> StoredSession:
    """Return the session stored under the id of `session`. Fails if there is none."""
    stored = store.load(session.id)
    assert stored is not None, f"session {session.id} is not stored"
    return stored


def moment(clock: ManualClock | None) -> int:
    """Return the store's time in Unix ms."""
    return int((time.time() if clock is None else clock()) * 1000)


def increment(store: SessionStore, session_id: str) -> None:
    """Add one to the decimal number in a session, trying again until no other save comes in between."""
    while True:
        stored = store.load(session_id)
        assert stored is not None
        try:
            store.save(replace(stored, data=b"%d" % (int(stored.data) + 1)))
        except SessionConflict:
            continue
        return


def race(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make each call in another thread, all at the same moment.

    Returns the result of each, or the StoreError that it raised; any other exception is raised.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        try:
            return call()
        except StoreError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
