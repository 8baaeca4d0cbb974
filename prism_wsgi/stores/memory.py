"""MemoryStore: sessions in this process's memory, the least recently used going first."""

import heapq
import math
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from datetime import timedelta

from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.errors import ConfigError, SessionConflict, SessionExists, SessionGone
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.stores.base import AGE_LIMITS, StoredSession, StoreStats, checked_user


class MemoryStore:
    """Keeps up to `max_sessions` sessions in this process, for tests, demos and single-process servers.

    Each process has its own sessions: with several workers, use a store they share. When it is full, expired
    sessions go first, then the least recently used. `ttl` (seconds or timedelta) caps how long a session is
    kept after it was last saved or touched, whatever its own expiry says. Safe to use from many threads;
    what goes in and out are copies, so requests never share state.

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
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()
        # (expires_at, id), soonest first; entries that no longer match a session are skipped when met.
        self._expiries: list[tuple[int, str]] = []
        notify_after_fork(self)

    def __len__(self) -> int:
        return len(self._sessions)

    def after_fork(self) -> None:
        """Take a new lock: another thread of the parent may have held the old one."""
        self._lock = threading.Lock()

    def load(self, session_id: str) -> StoredSession | None:
        """Return a copy of the session, or None when it is unknown or expired."""
        now = self._now()
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.is_expired(now):
                return None
            self._sessions.move_to_end(session_id)
            return _copy(session)

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        now = self._now()
        with self._lock:
            self._check_version(session, now)
            self._put(session, now)

    def destroy(self, session_id: str) -> None:
        """Delete the session if it is there, or where it has moved."""
        ending: str | None = session_id
        with self._lock:
            while ending is not None:
                session = self._sessions.pop(ending, None)
                ending = None if session is None else session.moved_to

    def touch(self, session_id: str, expires_at: int) -> bool:
        """Move the expiry to `expires_at`, never back; False when the session is gone."""
        now = self._now()
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.is_expired(now) or session.superseded:
                return False
            self._sessions.move_to_end(session_id)
            self._set_expiry(session, max(session.expires_at, expires_at), now)
            return True

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither."""
        now = self._now()
        with self._lock:
            self._check_version(old, now)
            self._check_version(new, now)
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

    def find(self, *, user: str | None = None, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return live sessions in the order of their ids; see `IndexedStore.find`."""
        now = self._now()
        with self._lock:
            found = [
                session
                for session in self._sessions.values()
                if not session.superseded
                and not session.is_expired(now)
                and (user is None or session.user == user)
                and (after is None or session.id > after)
            ]
            return [_copy(session) for session in heapq.nsmallest(limit, found, key=lambda one: one.id)]

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user but `except_id`; return how many."""
        checked_user(user)
        with self._lock:
            ids = [one.id for one in self._sessions.values() if one.user == user and one.id != except_id]
            for session_id in ids:
                del self._sessions[session_id]
        return len(ids)

    def stats(self) -> StoreStats:
        """Count what is stored now."""
        now = self._now()
        with self._lock:
            sessions = list(self._sessions.values())
        unexpired = [one for one in sessions if not one.is_expired(now)]
        expired = [one.expires_at for one in sessions if one.is_expired(now)]
        live = [one for one in unexpired if not one.superseded]
        ages = Counter(bisect_right(AGE_LIMITS, (now - one.created_at) / 1000) for one in live)
        return StoreStats(
            live=len(live),
            expired=len(expired),
            superseded=len(unexpired) - len(live),
            logged_in=sum(one.user is not None for one in live),
            data_bytes=sum(len(one.data) for one in sessions),
            oldest_expired=min(expired, default=None),
            saved_once=sum(one.version == 1 for one in live),
            largest=max((len(one.data) for one in live), default=0),
            ages=tuple(ages[number] for number in range(len(AGE_LIMITS) + 1)),
        )

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _check_version(self, session: StoredSession, now: int) -> None:
        if session.version == 0:
            if session.id in self._sessions:
                raise SessionExists(f"Session {session.id} is already stored")
            return
        stored = self._sessions.get(session.id)
        if stored is None or stored.is_expired(now):
            raise SessionGone(f"Session {session.id} is not stored")
        if stored.version != session.version:
            raise SessionConflict(f"Session {session.id} has been saved by another request")

    def _put(self, session: StoredSession, now: int) -> None:
        if session.id not in self._sessions and len(self._sessions) >= self._max_sessions:
            self._evict(now)
        kept = _copy(session)
        kept.version += 1
        self._sessions[kept.id] = kept
        self._sessions.move_to_end(kept.id)
        self._set_expiry(kept, kept.expires_at, now)

    def _set_expiry(self, session: StoredSession, expires_at: int, now: int) -> None:
        session.expires_at = min(expires_at, now + self._ttl_ms)
        heapq.heappush(self._expiries, (session.expires_at, session.id))
        if len(self._expiries) > 2 * len(self._sessions) + 64:
            self._expiries = [(one.expires_at, one.id) for one in self._sessions.values()]
            heapq.heapify(self._expiries)

    def _evict(self, now: int) -> None:
        if not self._drop_expired(now):
            self._sessions.popitem(last=False)

    def _expired(self, before: int) -> list[int]:
        with self._lock:
            return [one.expires_at for one in self._sessions.values() if one.is_expired(before)]

    def _drop_expired(self, before: int) -> bool:
        """Delete the session that expired first, if any did at or before `before`."""
        while self._expiries and self._expiries[0][0] <= before:
            expires_at, session_id = heapq.heappop(self._expiries)
            session = self._sessions.get(session_id)
            if session is not None and session.expires_at == expires_at:
                del self._sessions[session_id]
                return True
        return False


def _copy(session: StoredSession) -> StoredSession:
    # dataclasses.replace() does the same at four times the cost
    return StoredSession(
        session.id,
        session.data,
        session.version,
        session.created_at,
        session.expires_at,
        session.user,
        session.superseded,
    )
