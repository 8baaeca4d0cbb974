"""Stores that break the contract, each in one way; run by test_contract.py, which expects their failure."""

import time
from dataclasses import replace

import pytest

from prism_wsgi import MemoryStore, SessionConflict, SessionGone, SessionStore, StoredSession
from prism_wsgi.testing import ManualClock, StoreContract


class Contract(StoreContract):
    Store: type[MemoryStore] = MemoryStore

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> SessionStore:
        return self.Store(clock=clock)


class TestRightStore(Contract):
    pass


class TestUpsertingStore(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            stored = self.load(session.id)
            if stored is not None and session.version not in (0, stored.version):
                raise SessionConflict(session.id)
            with self._lock:
                self._put(session, self._now())


class TestLastWriterWinsStore(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            stored = self.load(session.id)
            if session.version and stored is None:
                raise SessionGone(session.id)
            super().save(
                session if stored is None or not session.version else replace(session, version=stored.version)
            )


class TestAliasingStore(Contract):
    class Store(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            with self._lock:
                session = self._sessions.get(session_id)
                return None if session is None or session.is_expired(self._now()) else session

        def save(self, session: StoredSession) -> None:
            super().save(session)
            with self._lock:
                version = self._sessions[session.id].version
                self._sessions[session.id] = session
                session.version = version


class TestStoreThatTouchesBack(Contract):
    class Store(MemoryStore):
        def touch(self, session_id: str, expires_at: int) -> bool:
            with self._lock:
                session = self._sessions.get(session_id)
                if session is None or session.is_expired(self._now()) or session.superseded:
                    return False
                self._set_expiry(session, expires_at, self._now())
                return True


class TestStoreThatTouchesByCopy(Contract):
    class Store(MemoryStore):
        def touch(self, session_id: str, expires_at: int) -> bool:
            session = self.load(session_id)
            if session is None or session.superseded:
                return False
            self.save(replace(session, expires_at=max(session.expires_at, expires_at)))
            return True


class TestStoreOfText(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            super().save(replace(session, data=session.data.decode("utf-8", "replace").encode()))


class TestHalfReplacingStore(Contract):
    class Store(MemoryStore):
        def replace(self, old: StoredSession, new: StoredSession) -> None:
            self.save(new)
            self.save(old)


class TestStoreThatSweepsBlindly(Contract):
    class Store(MemoryStore):
        def sweep(self, before: int, limit: int) -> int:
            with self._lock:
                count = len(self._sessions)
                self._sessions.clear()
            return count


class TestStoreThatForgetsExpiry(Contract):
    class Store(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            with self._lock:
                session = self._sessions.get(session_id)
                return None if session is None else replace(session)


class TestStoreThatFoldsUsers(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            user = session.user and session.user.strip().lower()
            super().save(replace(session, user=user))

        def find(self, *, user: str | None = None, limit: int = 100, after: str | None = None) -> list[StoredSession]:
            return super().find(user=user and user.strip().lower(), limit=limit, after=after)


class TestStoreThatRegeneratesByDeleting(Contract):
    class Store(MemoryStore):
        def replace(self, old: StoredSession, new: StoredSession) -> None:
            self.destroy(old.id)
            self.save(new)


class TestStoreWhoseReadsRewrite(Contract):
    class Store(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            found = super().load(session_id)
            if found is not None:
                time.sleep(0.0005)  # whoever saves meanwhile is overwritten
                with self._lock:
                    self._put(replace(found, version=found.version - 1), self._now())
            return found


class TestStoreThatWritesExpiredSessions(Contract):
    class Store(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            found = self._sessions.get(session_id)
            return None if found is None else replace(found)

        def _check_version(self, session: StoredSession, now: int) -> None:
            super()._check_version(session, 0)
