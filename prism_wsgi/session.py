"""Session: the mapping an application sees. It knows neither HTTP nor SQL."""

import secrets
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from prism_wsgi import settings
from prism_wsgi.errors import ResponseStarted
from prism_wsgi.events import EventLog
from prism_wsgi.persistence.adapter import Repository
from prism_wsgi.persistence.client import Client
from prism_wsgi.persistence.document import Codec, Document
from prism_wsgi.request.atomic import Lease
from prism_wsgi.request.saving import commit
from prism_wsgi.request.state import DETACHED, GONE, NEW, OPEN, UNREAD, SessionState
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.stores.base import StoredSession, user_name
from prism_wsgi.stores.memory import MemoryStore

_CSRF_KEY = "_csrft_"
_FLASH_PREFIX = "_f_"

# What an application cannot change inside a session without assigning it anew. A tuple may hold a list.
_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID})


class Session(MutableMapping[str, Any]):
    """One visitor's data, kept on the server.

    A mapping from text to any value the serializer takes; see `TypedSerializer`. Nothing is loaded before
    the first access, and nothing written unless something changed; a change inside a value counts, so
    `session["cart"].append(1)` is saved. Changes are written when the application has returned its response.

    Any access may raise StoreUnavailable. A session made without arguments lives by itself.
    """

    __slots__ = ("__weakref__", "_state")

    def __init__(self, state: SessionState | None = None) -> None:
        self._state = state or SessionState(_standalone_repository(), None)

    # The mapping

    def __getitem__(self, key: str) -> Any:
        value = self._read()[key]
        if type(value) not in _IMMUTABLE:
            self._state.lent = True
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        values = self._begin_write()
        state = self._state
        state.repository.codec.check(key, value)
        values[key] = value
        if type(value) not in _IMMUTABLE:
            state.lent = True  # the application still has it
        self._end_write()

    def __delitem__(self, key: str) -> None:
        del self._begin_write()[key]
        self._end_write()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __contains__(self, key: object) -> bool:
        return key in self._read()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        values = self._read()
        if key not in values:
            return default
        value = values[key]
        if type(value) not in _IMMUTABLE:
            self._state.lent = True
        return value

    def clear(self) -> None:
        """Remove every key. The session stays, and so does who is logged in."""
        self._begin_write().clear()
        self._end_write()

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # State

    @property
    def id(self) -> str:
        """The public name of the session: 64 hex digits, not secret, another one after `regenerate()`."""
        self._state.accessed = True  # the cookie decides it, so the response depends on the cookie
        return self._state.id

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this visitor when the session was first looked at."""
        self._read()
        return self._state.is_new

    @property
    def accessed(self) -> bool:
        """Whether the application has looked at the session."""
        return self._state.accessed

    @property
    def modified(self) -> bool:
        """Whether there are changes, nested ones included, that have not been saved."""
        return self._state.is_changed()

    @property
    def created_at(self) -> datetime:
        """When the session began, in UTC; `regenerate()` does not change it."""
        self._read()
        return _utc(self._state.created_at)

    @property
    def expires_at(self) -> datetime:
        """When the session ends unless there is more activity, in UTC."""
        self._read()
        return _utc(self._state.expires_at)

    @property
    def user(self) -> str | None:
        """Who is logged in, as given to `login()`."""
        self._read()
        return self._state.user

    @property
    def client(self) -> Client | None:
        """The device that used the session last, as it was last recorded; None unless `record_client` is set."""
        self._read()
        return self._state.document.client

    def client_of(self, stored: StoredSession) -> Client | None:
        """Return the device that last used another session, from `store.find(user=session.user)` for example.

        None when it was not recorded, or is encrypted with that session's own cookie.
        """
        return self._state.repository.client_of(stored)

    @property
    def ttl(self) -> int:
        """The idle lifetime of this session in seconds. Set it (whole seconds or a timedelta) to differ."""
        self._read()
        return self._state.ttl

    @ttl.setter
    def ttl(self, value: int | timedelta) -> None:
        seconds = settings.lifetime("ttl", value)
        self._begin_write()
        default = self._state.repository.ttl
        self._state.document.ttl = None if seconds == default else seconds
        self._end_write()

    @property
    def persistent(self) -> bool:
        """Whether the cookie outlives the browser's session. Set it for "remember me"."""
        self._read()
        return self._state.persistent

    @persistent.setter
    def persistent(self, value: bool) -> None:
        settings.flag("persistent", value)
        self._begin_write()
        default = self._state.repository.persistent
        self._state.document.persistent = None if value == default else value
        self._end_write()

    # Life cycle

    def regenerate(self) -> None:
        """Move the session to a new id; do so whenever its user gains or loses rights (OWASP, ASVS 7.2.4).

        The data stays. From the moment the response is sent the old id opens nothing, on any worker.
        Raises ResponseStarted when the headers, and with them the cookie, have been sent.
        """
        self._read()
        if self._state.stage is not OPEN:
            raise ResponseStarted(
                "The session cannot get a new id: the response's headers have been sent, and its cookie with them. "
                "Do it before the first part of the body"
            )
        if self._state.phase is not GONE:
            self._state.regenerate()
        self._state.written = True

    def login(self, user: str) -> None:
        """Record who the session belongs to, under a new id and with a new CSRF token.

        `user` is any stable name of the user, up to 255 characters: `str(user.id)`. Raises TypeError or
        ValueError for other values, and ResponseStarted when the headers have been sent.
        """
        user_name(user)
        self.regenerate()
        self._state.document.values.pop(_CSRF_KEY, None)
        self._state.user = user

    def logout(self) -> None:
        """End the session; the same as `destroy()`."""
        self.destroy()

    def destroy(self) -> None:
        """End the session: delete it from the store, at once, and the cookie with the response.

        No request under way elsewhere can bring it back. What is written afterwards in this request begins a
        new session under a new id. Raises StoreUnavailable; the response is then an error, whatever else
        the application does, because the session has not ended.
        """
        self._state.accessed = True
        self._state.destroy()
        self._state.document = Document()
        self._state.written = self._state.lent = False

    def changed(self) -> None:
        """Say that something inside a value changed.

        That is noticed without being told, with one exception: an iterator of the application's own, other
        than a generator, that makes the body and is the first to look at the session.
        """
        self._begin_write()
        self._end_write()

    @contextmanager
    def atomic(self) -> Iterator["Session"]:
        """Let nobody else into `atomic()` of the same session until the block has ended and is saved.

        The session is read afresh at the start: `with session.atomic(): session["n"] += 1` counts exactly.
        When the block raises, its changes are dropped. Keep it short; others are waiting.

        Raises SessionConflict when the block took so long that another request took its place, and
        StoreUnavailable when the store fails or the wait exceeds 30 seconds. Nothing is saved then.
        """
        self._begin_write()
        if self._state.lease:
            yield self
            return
        lease = Lease(self._state)
        lease.acquire()
        try:
            yield self
        except BaseException:
            lease.abandon()
            raise
        lease.release()

    # Flash messages and CSRF tokens

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Add a message to a queue, to be shown by this request or the next."""
        messages = self.get(_FLASH_PREFIX + queue, [])
        if allow_duplicate or msg not in messages:
            self[_FLASH_PREFIX + queue] = [*messages, msg]

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and empty it."""
        return list(self.pop(_FLASH_PREFIX + queue, []))

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and leave them there."""
        return list(self.get(_FLASH_PREFIX + queue, []))

    def get_csrf_token(self) -> str:
        """Return the session's CSRF token; the first call makes it."""
        token = self.get(_CSRF_KEY)
        return token if isinstance(token, str) else self.new_csrf_token()

    def new_csrf_token(self) -> str:
        """Make, store and return a new CSRF token: 64 hex digits, 256 random bits."""
        token = secrets.token_hex(32)
        self[_CSRF_KEY] = token
        return token

    def _read(self) -> dict[str, Any]:
        self._state.accessed = True
        if self._state.phase is UNREAD:
            self._state.load()
        return self._state.document.values

    def _begin_write(self) -> dict[str, Any]:
        values = self._read()
        state = self._state
        if self._state.stage is not OPEN and state.phase is NEW and not state.reachable:
            raise ResponseStarted(
                "The session is new and the response's headers have been sent without its cookie, so what is "
                "stored now could never be read again. Write to the session before the first part of the body"
            )
        return values

    def _end_write(self) -> None:
        self._state.written = True
        if self._state.stage is DETACHED:
            commit(self._state)


def _standalone_repository() -> Repository:
    return Repository(
        store=MemoryStore(),
        codec=Codec(TypedSerializer(), settings.DEFAULT_MAX_SIZE),
        ttl=settings.DEFAULT_TTL,
        max_lifetime=None,
        touch_interval=settings.DEFAULT_TTL / 10,
        persistent=True,
        events=EventLog(),
    )


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
