"""A store in this process's memory, which drops the least recently used sessions when it is full."""

import heapq
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import ConfigError, SessionConflict, SessionExists, SessionGone
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.stores.base import StoredSession, StoreStats, checked_owner, measured

logger = logging.getLogger("prism_wsgi")


class MemoryStore:
    """A store of up to `max_sessions` sessions in this process, for tests, demos and single-process servers.

    Each process has its own sessions: with several workers, use a store that they share. A full store drops expired
    sessions first, then the least recently used of visitors who are not logged in, then the least recently used of
    users. So a flood of visitors logs nobody out. `ttl` (seconds or timedelta) limits how long a session is kept
    after it was last saved or touched, even if it expires later. Many threads may use a store; it takes and returns
    copies, so requests never share state.

    Raises ConfigError when a limit is not positive.
    """

    def __init__(
        self,
        max_sessions: int = 10_000,
        ttl: int | timedelta = 3600,
        *,
        clock: Clock = system_clock,
    ) -> None:
        seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
        if type(max_sessions) is not int or max_sessions < 1:
            raise ConfigError(f"max_sessions must be a positive whole number, not {max_sessions!r}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigError(f"ttl must be a positive number of seconds or a timedelta, not {ttl!r}")
        self._max_sessions = max_sessions
        self._ttl_ms = int(seconds * 1000)
        self._clock = clock
        self._lock = threading.Lock()
        # A worker's timeout may raise an exception between any two lines. So these indexes know a session before it
        # is stored and until it is deleted, and every reader compares them with what is stored.
        self._order: dict[bool, OrderedDict[str, None]] = {False: OrderedDict(), True: OrderedDict()}
        """Ids by whether somebody is logged in, the least recently used first."""
        self._by_user: dict[str, set[str]] = {}
        # (expires_at, id), soonest first; entries that no longer match a session are skipped when met.
        self._expiries: list[tuple[int, str]] = []
        self._sessions: dict[str, StoredSession] = {}
        self._warns_of_fork = False
        notify_after_fork(self)

    def __len__(self) -> int:
        return len(self._sessions)

    def after_fork(self) -> None:
        """Take a new lock: another thread of the parent may have held the old one."""
        self._lock = threading.Lock()
        self._warns_of_fork = True

    def load(self, session_id: str) -> StoredSession | None:
        """Return a copy of the session, or None when it is unknown or expired."""
        now = self._now()
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.is_expired(now):
                return None
            self._mark_used(session)
            return _copy(session)

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        if self._warns_of_fork:
            self._warns_of_fork = False
            logger.warning(
                "MemoryStore is used by a process that was forked: each worker keeps separate sessions, so with "
                "several workers visitors lose theirs at random. Use a store that they share, such as SQLAlchemyStore"
            )
        now = self._now()
        with self._lock:
            self._check_version(session)
            self._put(session, now)

    def destroy(self, session_id: str) -> None:
        """Delete the session, also if it has moved."""
        with self._lock:
            session = self._sessions.get(session_id)
            while session is not None:
                self._drop(session)
                successor = self._sessions.get(session.moved_to or "")
                session = successor if successor is not None and successor.user == session.user else None

    def touch(self, session: StoredSession) -> bool:
        """Record the use of the session if the loaded version is stored; see `TouchingStore.touch`."""
        now = self._now()
        with self._lock:
            stored = self._sessions.get(session.id)
            if stored is None or stored.superseded or stored.version != session.version:
                return False
            self._mark_used(stored)
            stored.last_seen_at = session.last_seen_at
            stored.client_address, stored.user_agent = session.client_address, session.user_agent
            self._set_expiry(stored, max(stored.expires_at, session.expires_at), now)
            return True

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither."""
        now = self._now()
        with self._lock:
            self._check_version(old)
            self._check_version(new)
            self._put(old, now)
            self._put(new, now)

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before` (Unix ms)."""
        deleted = 0
        with self._lock:
            while deleted < limit and self._drop_expired(before):
                deleted += 1
        return deleted

    def oldest_expired(self, before: int) -> int | None:
        """Return the earliest expiry (Unix ms) at or before `before`, None when there is none."""
        return min(self._expired(before), default=None)

    def count_expired(self, before: int) -> int:
        """Return how many sessions expired at or before `before` (Unix ms)."""
        return len(self._expired(before))

    def find(self, *, user: str, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of a user in the order of their ids; see `IndexedStore.find`."""
        checked_owner(user)
        with self._lock:
            return self._page(self._live_of(user), limit, after)

    def find_all(self, *, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of everybody in the order of their ids."""
        with self._lock:
            return self._page(self._live(self._sessions.values()), limit, after)

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user, or in which the user is the actor, but `except_id`; return how many."""
        checked_owner(user)
        with self._lock:
            # A session that a marker of this user leads to is among them.
            ending = [one for one in self._concerning(user) if one.id != except_id and not one.superseded]
            for session in ending:
                self._drop(session)
        return len(ending)

    def revoke(self, session_id: str, *, user: str) -> bool:
        """Delete the session if it is this user's, or if this user is its actor; see `RevokingStore.revoke`."""
        checked_owner(user)
        markers: list[StoredSession] = []
        with self._lock:
            session = self._sessions.get(session_id)
            while session is not None and session.superseded:
                if session.user != user or session in markers:
                    return False
                markers.append(session)
                session = self._sessions.get(session.moved_to or "")
            if session is None or not session.concerns(user):
                return False
            for one in (session, *markers):
                self._drop(one)
            return True

    def count(self, *, user: str | None = None) -> int:
        """Return how many live sessions there are, in all or of one user."""
        with self._lock:
            return len(self._live(self._sessions.values()) if user is None else self._live_of(user))

    def estimate(self) -> int:
        """Return how many sessions are stored, expired ones and markers included."""
        return len(self)

    def ping(self) -> None:
        """Return at once, since memory can always be read and written."""

    def stats(self) -> StoreStats:
        """Count what is stored now."""
        now = self._now()
        with self._lock:
            sessions = list(self._sessions.values())
        return measured(((len(one.data), one) for one in sessions), now)

    def _now(self) -> int:
        return milliseconds(self._clock)

    def _check_version(self, session: StoredSession) -> None:
        stored = self._sessions.get(session.id)
        if session.version == 0:
            if stored is not None:
                raise SessionExists(f"Session {session.id} is already stored")
        elif stored is None:
            raise SessionGone(f"Session {session.id} is not stored")
        elif stored.version != session.version:
            raise SessionConflict(f"Session {session.id} has been saved by another request")

    # The sessions and their indexes

    def _put(self, session: StoredSession, now: int) -> None:
        stored = self._sessions.get(session.id)
        if stored is None and len(self._sessions) >= self._max_sessions:
            self._evict(now)
        kept = _copy(session)
        kept.version += 1
        self._set_expiry(kept, kept.expires_at, now)
        for user in _users(kept):
            self._by_user.setdefault(user, set()).add(kept.id)
        self._mark_used(kept)
        self._sessions[kept.id] = kept
        if stored is not None:
            self._forget(stored, _users(kept))

    def _drop(self, session: StoredSession) -> None:
        self._sessions.pop(session.id, None)
        self._forget(session)

    def _forget(self, session: StoredSession, present: Iterable[str] = ()) -> None:
        """Remove a session that is deleted, or has other users now, from the order and the index."""
        for user in _users(session):
            ids = self._by_user.get(user)
            if ids is not None and user not in present:
                ids.discard(session.id)
                if not ids:
                    del self._by_user[user]
        stored = self._sessions.get(session.id)
        if stored is None or (stored.user is None) != (session.user is None):
            self._order[session.user is not None].pop(session.id, None)

    def _mark_used(self, session: StoredSession) -> None:
        order = self._order[session.user is not None]
        order[session.id] = None
        order.move_to_end(session.id)

    def _set_expiry(self, session: StoredSession, expires_at: int, now: int) -> None:
        if len(self._expiries) > 2 * len(self._sessions) + 64:
            self._expiries = [(one.expires_at, one.id) for one in self._sessions.values()]
            heapq.heapify(self._expiries)
        expires_at = min(expires_at, now + self._ttl_ms)
        heapq.heappush(self._expiries, (expires_at, session.id))
        session.expires_at = expires_at

    def _evict(self, now: int) -> None:
        if self._drop_expired(now):
            return
        for order in (self._order[False], self._order[True]):
            while order:
                session = self._sessions.get(next(iter(order)))
                if session is not None:
                    self._drop(session)
                    return
                order.popitem(last=False)

    def _drop_expired(self, before: int) -> bool:
        """Delete the session that expired first, if any did at or before `before`."""
        while self._expiries and self._expiries[0][0] <= before:
            expires_at, session_id = heapq.heappop(self._expiries)
            session = self._sessions.get(session_id)
            if session is not None and session.expires_at == expires_at:
                self._drop(session)
                return True
        return False

    # Searches

    def _expired(self, before: int) -> list[int]:
        with self._lock:
            return [one.expires_at for one in self._sessions.values() if one.is_expired(before)]

    def _concerning(self, user: str) -> list[StoredSession]:
        found = (self._sessions.get(session_id) for session_id in self._by_user.get(user, ()))
        return [one for one in found if one is not None and one.concerns(user)]

    def _live_of(self, user: str) -> list[StoredSession]:
        return self._live(self._concerning(user))

    def _live(self, sessions: Iterable[StoredSession]) -> list[StoredSession]:
        now = self._now()
        return [one for one in sessions if not one.superseded and not one.is_expired(now)]

    def _page(self, sessions: Iterable[StoredSession], limit: int, after: str | None) -> list[StoredSession]:
        behind = (one for one in sessions if after is None or one.id > after)
        return [_copy(one) for one in heapq.nsmallest(limit, behind, key=lambda one: one.id)]


def _users(session: StoredSession) -> set[str]:
    """Return the users under whose names a session is listed."""
    return {user for user in (session.user, session.actor) if user is not None}


def _copy(session: StoredSession) -> StoredSession:
    # dataclasses.replace() takes four times as long for the same
    return StoredSession(
        session.id,
        session.data,
        session.version,
        session.created_at,
        session.expires_at,
        session.user,
        session.superseded,
        session.last_seen_at,
        session.authenticated_at,
        session.auth_method,
        session.actor,
        session.client_address,
        session.user_agent,
        session.device_key,
    )
