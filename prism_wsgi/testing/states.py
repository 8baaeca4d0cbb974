"""A model-based test of a store: Hypothesis looks for calls after which the store differs from a dictionary.

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
from prism_wsgi.stores.base import KEPT_EXPIRED_MS, SessionStore, StoredSession
from prism_wsgi.testing.clock import ManualClock
from prism_wsgi.testing.sessions import moment, new_session
from prism_wsgi.tokens import ID_LENGTH

IDS = [digit * ID_LENGTH for digit in "213"]  # the same each time, so that a run can be repeated
ids = st.sampled_from(IDS)
lifetimes = st.sampled_from([0, 1, 1000, 60_000, 600_000])  # ms
names = st.sampled_from(["alice", "Alice"])
users = st.none() | names
staleness = st.sampled_from([0, 0, 0, 0, -1, 1])
"""The difference between the version that is saved and the stored one."""

KEPT_MARKER_MS = 60_000
"""The time in ms for which an expired marker stays at least."""


class StoreMachine(RuleBasedStateMachine):
    """A machine that makes random calls of a store, and compares each answer with a model's.

    Override `make_store`; it may use `self.clock`. Verbs that the store lacks are left out. A store may delete
    sessions by itself once they have been expired for long enough.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store: Any = self.make_store()
        self.model: dict[str, StoredSession] = {}

    def make_store(self) -> SessionStore:
        """Return an empty store."""
        raise NotImplementedError("Override make_store() with one that returns an empty store")

    # The model

    def live(self, session_id: str) -> StoredSession | None:
        stored = self.model.get(session_id)
        return None if stored is None or stored.is_expired(moment(self.clock)) else stored

    def listed(self, user: str | None = None) -> list[StoredSession]:
        """Return the sessions in a listing, of one user or of everybody."""
        live = [one for one in map(self.live, sorted(IDS)) if one is not None and not one.superseded]
        return [one for one in live if user is None or user in (one.user, one.actor)]

    def walk(self, session_id: str) -> list[StoredSession]:
        """Return what is stored under an id and, behind a marker, where the same user's session has moved."""
        passed: list[StoredSession] = []
        stored = self.model.get(session_id)
        while stored is not None and stored not in passed:
            passed.append(stored)
            successor = self.model.get(stored.moved_to or "")
            stored = successor if successor is not None and successor.user == stored.user else None
        return passed

    def errors_of(self, session: StoredSession) -> set[type[StoreError] | None]:
        """Return the errors that a save may raise; None means none."""
        stored = self.model.get(session.id)
        if session.version == 0:
            return {None} if stored is None else {SessionExists}
        if stored is None:
            return {SessionGone}
        return {None} if stored.version == session.version else {SessionConflict}

    def next_of(self, session_id: str, stale: int, **changes: Any) -> StoredSession:
        """Return the session that a request would save under an id: a new one, or the stored one with changes."""
        stored = self.model.get(session_id)
        if stored is None:
            blank = replace(new_session(), id=session_id, created_at=moment(self.clock))
            return replace(blank, version=max(0, stale), **changes)
        return replace(stored, version=max(0, stored.version + stale), **changes)

    def put(self, session: StoredSession) -> None:
        created = self.model[session.id].created_at if session.version else session.created_at
        self.model[session.id] = replace(session, version=session.version + 1, created_at=created)

    def end(self, *sessions: StoredSession) -> None:
        for session in sessions:
            del self.model[session.id]

    def attempt(self, call: Callable[[], object], allowed: set[type[StoreError] | None]) -> bool:
        """Make a call that may raise one of these errors; tell whether it raised none."""
        try:
            call()
        except StoreError as error:
            assert type(error) in allowed, f"raised {error!r}; expected {allowed}"
            return False
        assert None in allowed, f"raised nothing; expected {allowed}"
        return True

    def compare(self, *ids: str) -> None:
        """Check that the store holds what the model holds."""
        for session_id in ids or IDS:
            stored = self.store.load(session_id)
            assert stored == self.live(session_id)
            if stored is not None:
                spoil(stored)

    # The rules

    @rule(seconds=st.sampled_from([0.001, 1.0, 59.0, 540.0]))
    def time_passes(self, seconds: float) -> None:
        # Sessions that some stores delete by then are destroyed first, while every store still has them.
        then = moment(self.clock) + int(seconds * 1000)
        for session_id in IDS:
            stored = self.model.get(session_id)
            if stored is not None:
                kept = KEPT_MARKER_MS if stored.superseded else KEPT_EXPIRED_MS
                if stored.is_expired(then - kept):
                    self.destroy(session_id)
        self.clock.advance(seconds)

    @rule(session_id=ids)
    def load(self, session_id: str) -> None:
        self.compare(session_id)

    @rule(session_id=ids, stale=staleness, data=st.binary(max_size=8), user=users, actor=users, lifetime=lifetimes)
    def save(
        self, session_id: str, stale: int, data: bytes, user: str | None, actor: str | None, lifetime: int
    ) -> None:
        expires_at = moment(self.clock) + lifetime
        session = self.next_of(
            session_id, stale, data=data, user=user, actor=actor, expires_at=expires_at, superseded=False
        )
        self._save(session)

    @rule(session_id=ids, successor=ids, user=users, ended_by=users)
    def leave_marker(self, session_id: str, successor: str, user: str | None, ended_by: str | None) -> None:
        """Save a marker that no move has left, and perhaps end the session that it leads to.

        It may name itself, another marker or another user's session.
        """
        expires_at = moment(self.clock) + 10_000
        data = bytes.fromhex(successor)
        self._save(
            self.next_of(session_id, 0, data=data, user=user, actor=None, expires_at=expires_at, superseded=True)
        )
        if ended_by is not None and hasattr(self.store, "revoke"):
            self.revoke(session_id, ended_by)

    def _save(self, session: StoredSession) -> None:
        given = replace(session)
        if self.attempt(lambda: self.store.save(given), self.errors_of(session)):
            assert given == session
            self.put(session)
        spoil(given)
        self.compare(session.id)

    @rule(session_id=ids)
    def destroy(self, session_id: str) -> None:
        self.store.destroy(session_id)
        passed = self.walk(session_id)
        self.end(*(passed if hasattr(self.store, "replace") else passed[:1]))
        self.compare()

    @precondition(lambda self: hasattr(self.store, "touch"))
    @rule(session_id=ids, stale=staleness, lifetime=lifetimes, address=st.sampled_from([None, "192.0.2.7"]))
    def touch(self, session_id: str, stale: int, lifetime: int, address: str | None) -> None:
        now, stored = moment(self.clock), self.model.get(session_id)
        used = self.next_of(session_id, stale, data=b"", user="mallory", expires_at=now + lifetime)
        used.last_seen_at, used.client_address, used.user_agent = now, address, address
        expected = stored is not None and not stored.superseded and stored.version == used.version
        assert self.store.touch(replace(used)) is expected
        if stored is not None and expected:
            stored.expires_at = max(stored.expires_at, used.expires_at)
            stored.last_seen_at, stored.client_address, stored.user_agent = now, address, address
        self.compare(session_id)

    @precondition(lambda self: hasattr(self.store, "replace"))
    @rule(old_id=ids, new_id=ids, stale=staleness, data=st.binary(max_size=8), user=users)
    def replace(self, old_id: str, new_id: str, stale: int, data: bytes, user: str | None) -> None:
        if old_id == new_id:
            return
        now, old = moment(self.clock), self.model.get(old_id)
        marker = replace(
            self.next_of(old_id, stale, data=bytes.fromhex(new_id), actor=None, expires_at=now + 10_000),
            user=None if old is None else old.user,
            superseded=True,
        )
        new = replace(new_session(data=data, expires_at=now + 60_000, user=user), id=new_id, created_at=now)
        both = (self.errors_of(marker), self.errors_of(new))
        allowed = (both[0] | both[1]) - {None} | (both[0] & both[1] & {None})
        if self.attempt(lambda: self.store.replace(replace(marker), replace(new)), allowed):
            self.put(marker)
            self.put(new)
        self.compare(old_id, new_id)

    @precondition(lambda self: hasattr(self.store, "revoke"))
    @rule(session_id=ids, user=names)
    def revoke(self, session_id: str, user: str) -> None:
        markers: list[StoredSession] = []
        stored = self.model.get(session_id)
        while stored is not None and stored.superseded and stored.user == user and stored not in markers:
            markers.append(stored)
            stored = self.model.get(stored.moved_to or "")
        expected = stored is not None and not stored.superseded and user in (stored.user, stored.actor)
        assert self.store.revoke(session_id, user=user) is expected
        if stored is not None and expected:
            self.end(stored, *markers)
        self.compare()

    @precondition(lambda self: hasattr(self.store, "sweep"))
    @rule(ago=st.sampled_from([0, 1000]), limit=st.integers(1, 3))
    def sweep(self, ago: int, limit: int) -> None:
        before = moment(self.clock) - ago
        expired = [stored for stored in self.model.values() if stored.is_expired(before)]
        deleted = 0
        while batch := self.store.sweep(before, limit):
            assert batch <= limit
            deleted += batch
        assert deleted == len(expired)
        self.end(*expired)
        self.compare()

    @precondition(lambda self: hasattr(self.store, "find"))
    @rule(user=names)
    def find(self, user: str) -> None:
        assert list(self.store.find(user=user)) == self.listed(user)

    @rule(session_id=ids)
    def name_nobody(self, session_id: str) -> None:
        """Ask for the sessions of no user, as an application does that forgot to check for a login."""
        asked: list[tuple[str, Callable[[], object]]] = [
            ("find", lambda: list(self.store.find(user=None))),
            ("destroy_all", lambda: self.store.destroy_all(None)),
            ("revoke", lambda: self.store.revoke(session_id, user=None)),
        ]
        for verb, ask in asked:
            if hasattr(self.store, verb):
                try:
                    answer = ask()
                except TypeError:
                    continue
                raise AssertionError(f"{verb} for nobody returned {answer!r}; expected a TypeError")

    @precondition(lambda self: hasattr(self.store, "find_all"))
    @rule(after=st.none() | ids, limit=st.sampled_from([4, 4, 1, 2]))
    def find_all(self, after: str | None, limit: int) -> None:
        behind = [one for one in self.listed() if after is None or one.id > after]
        assert list(self.store.find_all(limit=limit, after=after)) == behind[:limit]

    @precondition(lambda self: hasattr(self.store, "count"))
    @rule(user=users)
    def count(self, user: str | None) -> None:
        assert self.store.count(user=user) == len(self.listed(user))

    @precondition(lambda self: hasattr(self.store, "stats"))
    @rule()
    def stats(self) -> None:
        stats, now = self.store.stats(), moment(self.clock)
        waiting = [one.expires_at for one in self.model.values() if one.is_expired(now - KEPT_EXPIRED_MS)]
        assert (stats.live, stats.oldest_expired) == (len(self.listed()), min(waiting, default=None))

    @precondition(lambda self: hasattr(self.store, "destroy_all"))
    @rule(user=names, except_id=st.none() | ids)
    def destroy_all(self, user: str, except_id: str | None) -> None:
        concerned = [one for one in self.model.values() if user in (one.user, one.actor) and not one.superseded]
        theirs = [one for one in concerned if one.id != except_id]
        assert self.store.destroy_all(user, except_id) == len(theirs)
        self.end(*theirs)
        self.compare()


def spoil(session: StoredSession) -> None:
    """Change an object that the store must not have kept."""
    session.data, session.user, session.version, session.expires_at = b"spoilt", "mallory", 99, 0
