"""Stores that break the contract, each in one way; run by test_contract.py, which expects their failure."""

import time
from dataclasses import replace

import pytest

from prism_wsgi import MemoryStore, SessionConflict, SessionGone, SessionStore, StoredSession
from prism_wsgi.stores.base import StoreStats
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
        def touch(self, session: StoredSession) -> bool:
            touched = super().touch(session)
            if touched:
                self._sessions[session.id].expires_at = session.expires_at
            return touched


class TestStoreThatTouchesByCopy(Contract):
    class Store(MemoryStore):
        def touch(self, session: StoredSession) -> bool:
            stored = self._sessions.get(session.id)
            if stored is None or stored.superseded or stored.version != session.version:
                return False
            self.save(replace(session, expires_at=max(stored.expires_at, session.expires_at)))
            return True


class TestStoreThatTouchesAnyVersion(Contract):
    class Store(MemoryStore):
        def touch(self, session: StoredSession) -> bool:
            stored = self._sessions.get(session.id)
            return super().touch(session if stored is None else replace(session, version=stored.version))


class TestStoreThatTouchesTheExpiryAlone(Contract):
    class Store(MemoryStore):
        def touch(self, session: StoredSession) -> bool:
            stored = self._sessions.get(session.id)
            if stored is None:
                return False
            return super().touch(replace(stored, version=session.version, expires_at=session.expires_at))


class TestStoreThatProlongsMarkers(Contract):
    class Store(MemoryStore):
        def touch(self, session: StoredSession) -> bool:
            stored = self._sessions.get(session.id)
            if stored is None or stored.version != session.version:
                return False
            stored.expires_at = max(stored.expires_at, session.expires_at)
            super().touch(session)
            return True


class TestStoreThatTouchesOnlyTheLiving(Contract):
    class Store(MemoryStore):
        def touch(self, session: StoredSession) -> bool:
            return self.load(session.id) is not None and super().touch(session)


class TestStoreThatRefusesLateSaves(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            if session.version and self.load(session.id) is None:
                raise SessionGone(session.id)
            super().save(session)


class TestStoreThatForgetsWhatExpired(Contract):
    class Store(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            self.sweep(self._now(), 100)
            return super().load(session_id)


class TestStoreThatGivesAwayExpiredIds(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            if session.version == 0:
                self.sweep(self._now(), 100)
            super().save(session)


class TestStoreThatOverwritesExpiredSessions(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            stored = self._sessions.get(session.id)
            if session.version and stored is not None and stored.is_expired(self._now()):
                session = replace(session, version=stored.version)
            super().save(session)


class TestStoreOfFewFields(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            super().save(replace(session, authenticated_at=None, auth_method=None, actor=None, device_key=None))


class TestStoreThatSetsFieldsOnce(Contract):
    class Store(MemoryStore):
        def save(self, session: StoredSession) -> None:
            stored = self._sessions.get(session.id)
            if stored is not None and stored.actor is not None and session.actor is None:
                session = replace(session, actor=stored.actor)
            super().save(session)


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

        def find(self, *, user: str, limit: int = 100, after: str | None = None) -> list[StoredSession]:
            return super().find(user=user and user.strip().lower(), limit=limit, after=after)


class TestStoreThatListsEverybodyForNobody(Contract):
    class Store(MemoryStore):
        def find(self, *, user: str | None, limit: int = 100, after: str | None = None) -> list[StoredSession]:
            if user is None:
                return self.find_all(limit=limit, after=after)
            return super().find(user=user, limit=limit, after=after)


class TestStoreThatEndsEverybodyForNobody(Contract):
    class Store(MemoryStore):
        def destroy_all(self, user: str | None, except_id: str | None = None) -> int:
            if user is None:
                return self.sweep(2**63, len(self))
            return super().destroy_all(user, except_id)

        def revoke(self, session_id: str, *, user: str | None) -> bool:
            return super().revoke(session_id, user=user or "nobody")


class TestStoreThatListsMarkers(Contract):
    class Store(MemoryStore):
        def _live(self, sessions):  # type: ignore[no-untyped-def]
            return [one for one in sessions if not one.is_expired(self._now())]


class TestStoreThatListsWhatExpired(Contract):
    class Store(MemoryStore):
        def _live(self, sessions):  # type: ignore[no-untyped-def]
            return [one for one in sessions if not one.superseded]


class TestStoreThatListsInAnyOrder(Contract):
    class Store(MemoryStore):
        def find_all(self, *, limit: int = 100, after: str | None = None) -> list[StoredSession]:
            return list(reversed(super().find_all(limit=limit, after=after)))


class TestStoreThatKnowsNoActors(Contract):
    class Store(MemoryStore):
        def _concerning(self, user: str) -> list[StoredSession]:
            return [one for one in super()._concerning(user) if one.user == user]

        def revoke(self, session_id: str, *, user: str) -> bool:
            session = self.load(session_id)
            return session is not None and session.user == user and super().revoke(session_id, user=user)


class TestStoreThatListsUnderEarlierUsers(Contract):
    class Store(MemoryStore):
        def _concerning(self, user: str) -> list[StoredSession]:
            self._names: dict[str, set[str]] = getattr(self, "_names", {})
            for one in self._sessions.values():
                self._names.setdefault(one.user or "", set()).add(one.id)
            return [one for one in self._sessions.values() if one.id in self._names.get(user, ())]


class TestStoreThatCountsMarkersAsEnded(Contract):
    class Store(MemoryStore):
        def destroy_all(self, user: str, except_id: str | None = None) -> int:
            markers = sum(one.superseded and one.user == user for one in self._sessions.values())
            return super().destroy_all(user, except_id) + markers


class TestStoreThatSparesExpiredSessions(Contract):
    class Store(MemoryStore):
        def destroy_all(self, user: str, except_id: str | None = None) -> int:
            return sum(self.revoke(one.id, user=user) for one in self.find(user=user) if one.id != except_id)

        def revoke(self, session_id: str, *, user: str) -> bool:
            return self.load(session_id) is not None and super().revoke(session_id, user=user)


class TestStoreThatEndsTheSessionThatAsks(Contract):
    class Store(MemoryStore):
        def destroy_all(self, user: str, except_id: str | None = None) -> int:
            ended = super().destroy_all(user, except_id)
            return ended + (0 if except_id is None or self.load(except_id) is None else super().destroy_all(user))


class TestStoreThatRevokesForAnybody(Contract):
    class Store(MemoryStore):
        def revoke(self, session_id: str, *, user: str) -> bool:
            found = user is not None and self.load(session_id) is not None
            self.destroy(session_id)
            return found


class TestStoreThatFollowsNoMarker(Contract):
    class Store(MemoryStore):
        def destroy(self, session_id: str) -> None:
            with self._lock:
                session = self._sessions.get(session_id)
                if session is not None:
                    self._drop(session)

        def revoke(self, session_id: str, *, user: str) -> bool:
            session = self.load(session_id)
            return (session is None or not session.superseded) and super().revoke(session_id, user=user)


class TestStoreThatFollowsMarkersToAnybody(Contract):
    class Store(MemoryStore):
        def destroy(self, session_id: str) -> None:
            while session_id in self._sessions:
                session = self._sessions[session_id]
                with self._lock:
                    self._drop(session)
                session_id = session.moved_to or ""


class TestStoreThatRevokesWhereverMarkersLead(Contract):
    class Store(MemoryStore):
        def revoke(self, session_id: str, *, user: str) -> bool:
            session = self.load(session_id)
            passed: list[str] = []
            while session is not None and session.superseded and session.id not in passed:
                passed.append(session.id)
                session = self.load(session.moved_to or "")
            return super().revoke(session_id if session is None else session.id, user=user)


class TestStoreThatFollowsMarkersInCircles(Contract):
    class Store(MemoryStore):
        def destroy(self, session_id: str) -> None:
            session = self._sessions.get(session_id)
            successor = None if session is None else self._sessions.get(session.moved_to or "")
            if session is not None and successor is not None and successor.user == session.user:
                self.destroy(successor.id)
            super().destroy(session_id)


class TestStoreThatCountsWhatIsStored(Contract):
    class Store(MemoryStore):
        def count(self, *, user: str | None = None) -> int:
            return len(self) if user is None else super().count(user=user)


class TestStoreThatTakesWhatIsKeptForBacklog(Contract):
    class Store(MemoryStore):
        def stats(self) -> StoreStats:
            return replace(super().stats(), oldest_expired=self.oldest_expired(self._now()))


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
