"""Django's session engine, which keeps sessions in a store of prism_wsgi."""

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from prism_wsgi.django.site import configured_site
from prism_wsgi.django.state import DjangoState, key_identity
from prism_wsgi.errors import SerializationError
from prism_wsgi.request.phases import GONE, NEW, STORED, Outcome
from prism_wsgi.request.saving import commit, save
from prism_wsgi.session import Session
from prism_wsgi.stores.base import SweepingStore
from prism_wsgi.sweeper import Sweeper


class SessionStore(SessionBase):
    """One visitor's session, with the methods of Django's sessions.

    `session_key`, the cookie's value, is the session's secret; the store keeps its hash. Writes of simultaneous
    requests are merged key by key, and a change inside a value is saved without `modified = True`.

    Any access may raise StoreUnavailable: when the store fails, a user must not seem to be logged out.
    """

    _session_key: str | None

    def __init__(self, session_key: str | None = None) -> None:
        self._state: DjangoState | None = None
        self._is_marked = False
        super().__init__(session_key)

    @property
    def prism(self) -> Session:
        """The same session as `prism_wsgi.Session`, with `is_fresh`, `other_sessions`, `logout_elsewhere` and so on.

        Django's middleware saves what you change there. Log in and out by `django.contrib.auth`.
        """
        self._get_session()
        return Session(self._state)

    @property
    def modified(self) -> bool:
        """Whether something has changed since the session was loaded or created, inside a value too."""
        state = self._state
        if self._is_marked or state is None:
            return self._is_marked
        return state.is_changed() if state.phase is STORED else state.written

    @modified.setter
    def modified(self, value: bool) -> None:
        self._is_marked = value

    @property
    def _session_cache(self) -> dict[str, Any]:
        """The values. AttributeError says that the session has not been read, as Django's base class wants it."""
        if self._state is None:
            raise AttributeError("_session_cache")
        return self._state.document.values

    @_session_cache.setter
    def _session_cache(self, values: dict[str, Any]) -> None:
        if self._state is None:
            self._state = self._opened() or self._new_state()
        self._state.document.values = values

    # The verbs of a session engine

    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a session with this key."""
        identity = key_identity(session_key)
        if identity is None:
            return False
        site = configured_site()
        try:
            row = site.adapter.load(identity)
        except SerializationError:
            return True
        return row is not None and not row.superseded and not row.is_expired(site.now())

    def load(self) -> dict[str, Any]:
        """Return the values that are stored under the key. If there is no session, forget the key and return nothing.

        If another request has just moved the session to a new key, the old key stays, because this response must
        neither delete nor replace the newer cookie.
        """
        self._state = self._opened()
        if self._state is None:
            self._session_key = None
            self._state = self._new_state()
        return self._state.document.values

    def create(self) -> None:
        """Store the values of this session as a new session, under a new key."""
        values = self._get_session(no_load=True)
        if self._state is None or self._state.phase is not NEW or self._state.identity.stored is not None:
            self._state = self._new_state()
            self._state.document.values = values
        self._store(self._state)
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Store the session, merged with the changes of other requests; if nothing has changed, record its use.

        Raises UpdateError when the session has ended or moved meanwhile, and with `must_create` CreateError when
        there is a session with this key.
        """
        if must_create and self.exists(self.session_key):
            raise CreateError
        if must_create or self.session_key is None:
            self.create()
            return
        self._get_session()
        assert self._state is not None
        if self._state.phase is NEW and self._state.contested is self._state.identity:
            raise UpdateError  # nothing is stored under the key
        self._store(self._state)

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or the one with another key; no request under way can bring it back."""
        if session_key is None or session_key == self.session_key:
            state = self._state if self._state is not None else self._opened()
            self._state = None
        else:
            state = self._opened(session_key)
        if state is not None:
            state.destroy()

    def cycle_key(self) -> None:
        """Move the session to a new key in one step; the old key then opens nothing."""
        values = self._session
        state = self._state
        if state is None or state.phase is not STORED:
            self.create()
            return
        state.move_to_new_key()
        try:
            self._store(state)
        except UpdateError:
            # Another request has ended the session. Only the values that this request wrote may be kept.
            self._state = None
            self._session_cache = {key: values[key] for key in values if key in state.decided}
            self.create()
        self.modified = True

    def flush(self) -> None:
        """End the session and forget it; a later write begins a new one."""
        self.clear()
        self.delete()
        self._session_key = None

    def is_empty(self) -> bool:
        """Tell whether there is neither a key nor a value nor a user, so that Django deletes the cookie."""
        if self._state is not None and self._state.outcome is Outcome.DESTROYED:
            self._session_key = None
        is_user = self._state is not None and self._state.document.login.user is not None
        return bool(super().is_empty()) and not is_user

    @classmethod
    def clear_expired(cls) -> None:
        """Delete the sessions that have expired, in small batches; `manage.py clearsessions` calls this."""
        store = configured_site().adapter.store
        if isinstance(store, SweepingStore):
            result = Sweeper(store).sweep()
            if result.error is not None:
                raise result.error

    async def acycle_key(self) -> None:
        """Do as `cycle_key` does."""
        await sync_to_async(self.cycle_key)()

    async def aflush(self) -> None:
        """Do as `flush` does."""
        await sync_to_async(self.flush)()

    # Helpers

    def _opened(self, session_key: str | None = None) -> DjangoState | None:
        """Return the state of the session with a key, this one unless given; None if nothing is stored there."""
        identity = key_identity(session_key or self.session_key)
        if identity is None:
            return None
        state = DjangoState(configured_site(), self.get_expiry_age, identity)
        state.load()
        return state if state.phase is STORED or state.phase is GONE else None

    def _new_state(self) -> DjangoState:
        return DjangoState(configured_site(), self.get_expiry_age)

    def _store(self, state: DjangoState) -> None:
        if state.phase is GONE:
            raise UpdateError
        is_new = state.identity.stored is None
        state.note_changes()
        if is_new:
            state.follow_user_key()
            save(state)  # Django stores an empty session too
        else:
            commit(state)
        if state.phase is GONE or state.outcome is Outcome.DROPPED:
            raise UpdateError
        self._session_key = state.identity.secret
