"""A model-based test of a store: Hypothesis looks for calls after which it differs from a plain dictionary.

from prism_wsgi.testing.states import StoreMachine

class MyStoreMachine(StoreMachine):
    def make_store(self):
        return MyStore(clock=self.clock)

TestMyStoreStates = MyStoreMachine.TestCase
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from prism_wsgi.errors import SessionConflict, SessionExists, SessionGone, StoreError
from prism_wsgi.stores.base import SessionStore, StoredSession
from prism_wsgi.testing.contract import ManualClock, moment, new_session

IDS = [new_session().id for _ in range(4)]
ids = st.sampled_from(IDS)
lifetimes = st.sampled_from([1, 1000, 60_000, 600_000])  # ms
users = st.sampled_from([None, "alice", "Alice"])
staleness = st.sampled_from([0, 0, 0, 0, -1, 1])
"""By how much a version that is saved differs from the stored one."""


class StoreMachine(RuleBasedStateMachine):
    """Does at random what a store can do, and compares each answer with a model's.

    Override `make_store`; it may use `self.clock`. Verbs that the store lacks are left out. A store may forget
    expired sessions by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store: Any = self.make_store()
        self.model: dict[str, StoredSession] = {}

    def make_store(self) -> SessionStore:
        """Return an empty store."""
        raise NotImplementedError("Override make_store() with one that returns an empty store of yours")

    # What the model knows

    def live(self, session_id: str) -> StoredSession | None:
        stored = self.model.get(session_id)
        return None if stored is None or stored.is_expired(moment(self.clock)) else stored

    def errors_of(self, session: StoredSession) -> set[type[StoreError] | None]:
        """Return what a save may raise, None for nothing."""
        stored = self.live(session.id)
        if session.version == 0:
            if stored is not None:
                return {SessionExists}
            return {SessionExists, None} if session.id in self.model else {None}
        if stored is None:
            return {SessionGone}
        return {None} if stored.version == session.version else {SessionConflict}

    def next_of(self, session_id: str, stale: int, **changes: Any) -> StoredSession:
        """Return what a request would save under an id: a new session, or the stored one changed."""
        stored = self.live(session_id)
        if stored is None:
            blank = replace(new_session(), id=session_id, created_at=moment(self.clock))
            return replace(blank, version=max(0, stale), **changes)
        return replace(stored, version=max(0, stored.version + stale), **changes)

    def put(self, session: StoredSession) -> None:
        created = self.model[session.id].created_at if session.version else session.created_at
        self.model[session.id] = replace(session, version=session.version + 1, created_at=created)

    def attempt(self, call: Callable[[], object], allowed: set[type[StoreError] | None]) -> bool:
        """Make a call that may end in one of these ways; tell whether it went well."""
        try:
            call()
        except StoreError as error:
            assert type(error) in allowed, f"raised {error!r}; expected {allowed}"
            return False
        assert None in allowed, f"raised nothing; expected {allowed}"
        return True

    def compare(self, session_id: str) -> None:
        """See that the store holds what the model does."""
        stored = self.store.load(session_id)
        assert stored == self.live(session_id)
        if stored is not None:
            spoil(stored)

    # What happens

    @rule(seconds=st.sampled_from([0.001, 1.0, 59.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(session_id=ids)
    def load(self, session_id: str) -> None:
        self.compare(session_id)

    @rule(session_id=ids, stale=staleness, data=st.binary(max_size=8), user=users, lifetime=lifetimes)
    def save(self, session_id: str, stale: int, data: bytes, user: str | None, lifetime: int) -> None:
        expires_at = moment(self.clock) + lifetime
        session = self.next_of(session_id, stale, data=data, user=user, expires_at=expires_at)
        given = replace(session)
        if self.attempt(lambda: self.store.save(given), self.errors_of(session)):
            assert given == session
            self.put(session)
        spoil(given)
        self.compare(session_id)

    @rule(session_id=ids)
    def destroy(self, session_id: str) -> None:
        self.store.destroy(session_id)
        self.model.pop(session_id, None)
        self.compare(session_id)

    @precondition(lambda self: hasattr(self.store, "touch"))
    @rule(session_id=ids, lifetime=lifetimes)
    def touch(self, session_id: str, lifetime: int) -> None:
        stored, expires_at = self.live(session_id), moment(self.clock) + lifetime
        expected = stored is not None and not stored.superseded
        assert self.store.touch(session_id, expires_at) is expected
        if stored is not None and expected:
            stored.expires_at = max(stored.expires_at, expires_at)
        self.compare(session_id)

    @precondition(lambda self: hasattr(self.store, "replace"))
    @rule(old_id=ids, new_id=ids, stale=staleness, data=st.binary(max_size=8))
    def replace(self, old_id: str, new_id: str, stale: int, data: bytes) -> None:
        if old_id == new_id:
            return
        now = moment(self.clock)
        marker = self.next_of(old_id, stale, data=b"", user=None, superseded=True, expires_at=now + 10_000)
        new = replace(new_session(data=data, expires_at=now + 60_000), id=new_id, created_at=now)
        both = (self.errors_of(marker), self.errors_of(new))
        allowed = (both[0] | both[1]) - {None} | (both[0] & both[1] & {None})
        if self.attempt(lambda: self.store.replace(replace(marker), replace(new)), allowed):
            self.put(marker)
            self.put(new)
        self.compare(old_id)
        self.compare(new_id)

    @precondition(lambda self: hasattr(self.store, "sweep"))
    @rule(ago=st.sampled_from([0, 1000]), limit=st.integers(1, 3))
    def sweep(self, ago: int, limit: int) -> None:
        before = moment(self.clock) - ago
        expired = sum(stored.is_expired(before) for stored in self.model.values())
        assert 0 <= self.store.sweep(before, limit) <= min(limit, expired)
        for session_id in IDS:
            self.compare(session_id)

    @precondition(lambda self: hasattr(self.store, "find"))
    @rule(user=users)
    def find(self, user: str | None) -> None:
        live = [stored for stored in map(self.live, sorted(IDS)) if stored is not None and not stored.superseded]
        assert list(self.store.find(user=user)) == [one for one in live if user is None or one.user == user]

    @precondition(lambda self: hasattr(self.store, "destroy_all"))
    @rule(user=st.sampled_from(["alice", "Alice"]), except_id=st.none() | ids)
    def destroy_all(self, user: str, except_id: str | None) -> None:
        theirs = [one for one in self.model.values() if one.user == user and one.id != except_id]
        alive = sum(self.live(one.id) is not None for one in theirs)
        assert alive <= self.store.destroy_all(user, except_id) <= len(theirs)
        for one in theirs:
            del self.model[one.id]
            self.compare(one.id)


def spoil(session: StoredSession) -> None:
    """Change an object that the store must not have kept."""
    session.data, session.user, session.version, session.expires_at = b"spoilt", "mallory", 99, 0
