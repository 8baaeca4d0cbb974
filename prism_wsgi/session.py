"""The session that an application sees: a mapping that knows neither HTTP nor SQL."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from threading import RLock
from typing import Any
from uuid import UUID

from prism_wsgi import settings
from prism_wsgi.clock import system_clock
from prism_wsgi.cookies import Cookie
from prism_wsgi.errors import NotLoggedIn, ResponseStarted, SerializationError
from prism_wsgi.events import Client, Events
from prism_wsgi.persistence.adapter import StoreAdapter
from prism_wsgi.persistence.client import client_of
from prism_wsgi.persistence.document import FLASH_PREFIX, Codec
from prism_wsgi.persistence.lifetimes import Lifetimes
from prism_wsgi.persistence.login import Login, checked_method, checked_user, named_user
from prism_wsgi.request.atomic import Lock
from prism_wsgi.request.cookie_policy import CookiePolicy
from prism_wsgi.request.observing import end_others, revoke
from prism_wsgi.request.phases import DETACHED, GONE, NEW, OPEN, UNREAD, Choice
from prism_wsgi.request.saving import commit
from prism_wsgi.request.site import CSRF_KEY, Site
from prism_wsgi.request.state import SessionState
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.stores.memory import MemoryStore
from prism_wsgi.tokens import Signer

# Types whose values cannot change without an assignment. A tuple can, since it may hold a list.
_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID})


class Session(MutableMapping[str, Any]):
    """One visitor's data, kept on the server.

    It is a mapping from text to any value that the serializer takes; see `TypedSerializer`. The first access loads
    it. It is written when the application has returned its response, and only if something changed. A change inside
    a value counts: `session["cart"].append(1)` is saved.

    Any access may raise StoreUnavailable. `Session()` makes a session in memory, outside any request.
    """

    __slots__ = ("__weakref__", "_state")

    def __init__(self, state: SessionState | None = None) -> None:
        self._state = state or SessionState(_standalone_site(), None)

    # The mapping

    def __getitem__(self, key: str) -> Any:
        value = self._read()[key]
        if type(value) not in _IMMUTABLE:
            self._state.holds_mutable = True
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        def put(values: dict[str, Any]) -> None:
            state = self._state
            checked = state.site.codec.check(key, value)
            if key == state.site.user_id_key:
                _check_user_key(state, checked)
            values[key] = checked
            if type(checked) not in _IMMUTABLE:
                state.holds_mutable = True

        self._change(put, key)

    def __delitem__(self, key: str) -> None:
        def delete(values: dict[str, Any]) -> None:
            if key == self._state.site.user_id_key and key in values:
                _check_user_key(self._state, None)
            del values[key]

        self._change(delete, key)

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
            self._state.holds_mutable = True
        return value

    def clear(self) -> None:
        """Remove every key. The session stays, and so does who is logged in."""
        key = self._state.site.user_id_key

        def empty(values: dict[str, Any]) -> None:
            if key in values:
                _check_user_key(self._state, None)
            values.clear()

        self._change(empty, key)

    def copy(self) -> dict[str, Any]:
        """Return the keys and values as a plain dict."""
        if self._read():
            self._state.holds_mutable = True
        return dict(self._read())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self.copy(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self.copy()}

    def __ior__(self, other: Mapping[str, Any]) -> "Session":
        self.update(other)
        return self

    def __repr__(self) -> str:
        self._state.accessed = True
        return f"<Session {self._state.identity.id}>"  # without a store call, even in a debugger

    # State

    @property
    def id(self) -> str:
        """The session id, 64 hex digits. It is not secret, and changes with `login()` and `regenerate()`."""
        self._state.accessed = True  # the cookie decides it, so the response depends on the cookie
        if self._state.earlier is not None:
            self._read()
        return self._state.identity.id

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this visitor at the first access."""
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
        return _utc(self._state.document.created_at)

    @property
    def expires_at(self) -> datetime:
        """When the session ends unless it is used again, in UTC."""
        self._read()
        return _utc(self._state.expires_at)

    @property
    def user(self) -> str | None:
        """The user who is logged in, as given to `login()`."""
        self._read()
        return self._state.document.login.user

    @property
    def actor(self) -> str | None:
        """The administrator who impersonates the user, if there is one; see `impersonate()`."""
        self._read()
        return self._state.document.login.actor

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user last proved who they are, in UTC; None if unknown."""
        self._read()
        proved = self._state.document.login.authenticated_at
        return None if proved is None else _utc(proved)

    @property
    def auth_method(self) -> str | None:
        """The method by which the user last proved who they are, as given to `login()` or `confirm_login()`."""
        self._read()
        return self._state.document.login.auth_method

    def is_fresh(self, max_age: float | timedelta) -> bool:
        """Tell whether the user has proved who they are within `max_age` (seconds or a timedelta).

        Ask it before an action that a stolen or forgotten session must not do: change the password, pay, end other
        sessions (ASVS 5.0, 7.5.1). It is False if nobody is logged in, and during impersonation.
        """
        seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
        self._read()
        state = self._state
        login = state.document.login
        if login.user is None or login.authenticated_at is None or login.actor is not None:
            return False
        return state.site.now() - login.authenticated_at <= seconds * 1000

    @property
    def client(self) -> Client | None:
        """The device that last used the session, as recorded; None unless `record_client` is set."""
        self._read()
        stored = self._state.identity.stored
        return None if stored is None else client_of(stored)

    def client_of(self, stored: StoredSession) -> Client | None:
        """Return the device that last used another session, such as one of `other_sessions()`, or None."""
        try:
            found = replace(self._state.site.adapter.opened(stored))
            self._state.site.codec.decode(found)  # earlier releases kept the device in the data
        except SerializationError:
            return client_of(stored)
        return client_of(found)

    @property
    def passive(self) -> bool:
        """Whether this request reads the session without counting as its use. Set it for a page that polls."""
        return self._state.visit.is_passive

    @passive.setter
    def passive(self, value: bool) -> None:
        self._state.be_passive(settings.flag("passive", value))

    @property
    def ttl(self) -> int:
        """The idle lifetime of this session in seconds. Set it (whole seconds or a timedelta) to change it."""
        self._read()
        return self._state.ttl

    @ttl.setter
    def ttl(self, value: int | timedelta) -> None:
        self._choose_ttl(settings.lifetime("ttl", value))

    @property
    def max_lifetime(self) -> int | None:
        """The absolute lifetime of this session in seconds, None for no end.

        It counts from the last `login()` or `confirm_login()`, and from `created_at` for an anonymous visitor. Set it
        (whole seconds or a timedelta) to change it. Raises ValueError if a request that calls neither lengthens it.
        """
        self._read()
        own = self._state.document.max_lifetime
        return self._state.site.lifetimes.max_lifetime if own is None else own

    @max_lifetime.setter
    def max_lifetime(self, value: int | timedelta) -> None:
        seconds = settings.lifetime("max_lifetime", value)

        def choose(_: object) -> None:
            present, state = self.max_lifetime, self._state
            if Choice.PROOF not in state.decided and present is not None and seconds > present:
                raise ValueError(
                    f"max_lifetime is {present} seconds, and only login() and confirm_login() can lengthen it"
                )
            state.document.max_lifetime = seconds

        self._change(choose, Choice.MAX_LIFETIME)

    @property
    def persistent(self) -> bool:
        """Whether the cookie outlives the browser's session. Set it for "remember me"."""
        self._read()
        return self._state.persistent

    @persistent.setter
    def persistent(self, value: bool) -> None:
        self._choose_persistent(settings.flag("persistent", value))

    # Life cycle

    def regenerate(self) -> None:
        """Move the session to a new id, with a new CSRF token; do so whenever its user gains or loses rights.

        The data stays (ASVS 5.0, 7.2.4). Once the response is sent, the old id opens nothing, on any worker. Raises
        ResponseStarted when the headers, and with them the cookie, have been sent.
        """
        self._begin_move()
        if self._state.phase is not GONE:
            self._state.regenerate()

    def login(
        self,
        user: str,
        *,
        ttl: int | timedelta | None = None,
        max_lifetime: int | timedelta | None = None,
        persistent: bool | None = None,
        auth_method: str | None = None,
    ) -> None:
        """Record who has logged in, under a new id and with a new CSRF token.

        `user` is any stable name of the user, up to 255 characters: `str(user.id)`. `ttl`, `max_lifetime` (seconds
        or timedeltas) and `persistent` apply to this login; an earlier login's choices are forgotten. `auth_method`
        says how the user proved who they are: RFC 8176 values, separated by spaces ("pwd otp").

        The data of an anonymous visitor or of the same user stays. Of another user's data, only the keys that this
        request has assigned stay. After a double click, both responses are logged in. Raises TypeError or ValueError
        for other values, and ResponseStarted when the headers have been sent.
        """
        checked_user(user)
        checked_method(auth_method)
        chosen = {
            Choice.TTL: None if ttl is None else settings.lifetime("ttl", ttl),
            Choice.MAX_LIFETIME: None if max_lifetime is None else settings.lifetime("max_lifetime", max_lifetime),
            Choice.PERSISTENT: None if persistent is None else settings.flag("persistent", persistent),
        }
        self._begin_move()
        state = self._state
        state.log_in(Login(user, state.site.now(), auth_method))
        if ttl is not None:
            self._choose_ttl(chosen[Choice.TTL])
        if persistent is not None:
            self._choose_persistent(chosen[Choice.PERSISTENT])
        if max_lifetime is not None:
            state.document.max_lifetime = chosen[Choice.MAX_LIFETIME]
            state.note_write(Choice.MAX_LIFETIME)

    def confirm_login(self, auth_method: str | None = None) -> None:
        """Record that the user has proved again who they are, under a new id; data and CSRF token stay.

        `is_fresh()` and the absolute lifetime count from this moment. Without `auth_method` the earlier one stays.
        Raises NotLoggedIn when nobody is logged in or the user is impersonated, and ResponseStarted when the headers
        have been sent.
        """
        checked_method(auth_method)
        self._begin_move()
        state = self._state
        login = self._own_login("confirm_login()")
        state.confirm_login(
            login._replace(authenticated_at=state.site.now(), auth_method=auth_method or login.auth_method)
        )

    def logout(self) -> None:
        """End the session, as `destroy()` does; a value under `user_id_key` then logs nobody in."""
        self.destroy()
        self._state.decide_login()

    def impersonate(self, user: str) -> None:
        """Let the user who is logged in, the `actor`, see the site as another user does.

        The session gets a new id and begins empty. `authenticated_at` and `auth_method` stay the actor's,
        `is_fresh()` is False, and ending the sessions of either user ends it. Raises NotLoggedIn when nobody is
        logged in or somebody is impersonated already, and the errors of `login()`.
        """
        checked_user(user, "impersonate()")
        self._begin_move()
        login = self._own_login("impersonate()")
        self._state.log_in_empty(login._replace(user=user, actor=login.user, device_key=None))

    def stop_impersonating(self) -> None:
        """Become the actor again, in an empty session with the rest of the actor's lifetime.

        Raises NotLoggedIn when nobody is impersonated, and ResponseStarted when the headers have been sent.
        """
        self._begin_move()
        login = self._state.document.login
        if login.actor is None:
            raise NotLoggedIn("stop_impersonating(): nobody is impersonated in this session")
        self._state.log_in_empty(login._replace(user=login.actor, actor=None, device_key=None))

    # The user's other sessions

    def other_sessions(self) -> list[StoredSession]:
        """Return the user's live sessions but this one: on other devices, and those in which the user is the actor.

        Empty when nobody is logged in. Raises ConfigError for a store that cannot list a user's sessions.
        """
        user, here = self.user, self._ids()
        if user is None:
            return []
        return [one for one in self._state.site.adapter.sessions_of(user) if one.id not in here]

    def revoke(self, session_id: str) -> bool:
        """End one of the user's other sessions, at once; tell whether the user had one of that id.

        Another user's session is left alone. Raises NotLoggedIn when nobody is logged in or the user is impersonated.
        """
        login, state = self._own_login("revoke()"), self._state
        if session_id in self._ids():
            return False
        return revoke(state.site, session_id, login.user or "", state.visit)

    def logout_elsewhere(self) -> int:
        """End every session of the user but this one, at once; return how many.

        This device stays logged in, also when you call it before or after `login()` or `regenerate()`. Raises
        NotLoggedIn when nobody is logged in or the user is impersonated, and ConfigError for a store that cannot list
        a user's sessions.
        """
        login, state = self._own_login("logout_elsewhere()"), self._state
        return end_others(state.site, login.user or "", state.contested.id, state.visit)

    def destroy(self) -> None:
        """End the session: delete it from the store, at once, and the cookie with the response.

        It also ends the session that another request of the same user has just moved it to, and no request under way
        can bring it back. A later write in this request begins a new session under a new id. Raises StoreUnavailable;
        the response is then an error, whatever else the application does, because the session may not have ended.
        """
        self._state.accessed = True
        with self._alone():
            self._state.destroy()

    def changed(self) -> None:
        """Say that something inside a value changed; for Pyramid's interface, since a session notices that itself."""
        self._change(lambda _: None)

    @contextmanager
    def atomic(self) -> Iterator["Session"]:
        """Keep other requests out of `atomic()` of the same session until the block has ended and is saved.

        The session is read afresh at the start: `with session.atomic(): session["n"] += 1` counts exactly.
        When the block raises, its changes are dropped. Keep the block short, because other requests wait for it.

        Raises SessionConflict when the block took so long that another request took the lock, and StoreUnavailable
        when the store fails or the wait exceeds 30 seconds. Nothing is saved then.
        """
        self._read_to_write()
        if self._state.lock:
            yield self
            return
        lock = Lock(self._state)
        lock.acquire()
        try:
            yield self
        except BaseException:
            lock.abandon()
            raise
        lock.release()

    # Flash messages and CSRF tokens

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Add a message to a queue, for this request or the next to show.

        If no page shows the messages and the session becomes too large, the oldest ones are dropped.
        """
        messages = self.get(FLASH_PREFIX + queue, [])
        if allow_duplicate or msg not in messages:
            self[FLASH_PREFIX + queue] = [*messages, msg]

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and empty it."""
        return list(self.pop(FLASH_PREFIX + queue, []))

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue and leave them there."""
        return list(self.get(FLASH_PREFIX + queue, []))

    def get_csrf_token(self) -> str:
        """Return the session's CSRF token, 64 hex digits; the first call makes it."""
        token = self.get(CSRF_KEY)
        return token if isinstance(token, str) else self.new_csrf_token()

    def new_csrf_token(self) -> str:
        """Make, store and return a new CSRF token: 64 hex digits, 256 random bits."""
        token = secrets.token_hex(32)
        self[CSRF_KEY] = token
        return token

    def is_csrf_token(self, value: object) -> bool:
        """Tell whether a value that came with a form is the session's CSRF token, in constant time."""
        token = self.get(CSRF_KEY)
        if not isinstance(token, str) or not isinstance(value, str):
            return False
        return secrets.compare_digest(token.encode(), value.encode("utf-8", "surrogatepass"))

    def _read(self) -> dict[str, Any]:
        state = self._state
        state.accessed = True
        if state.phase is UNREAD:
            with self._alone():
                if state.phase is UNREAD:
                    state.load()
        return state.document.values

    def _read_to_write(self) -> dict[str, Any]:
        values = self._read()
        state = self._state
        if state.stage is not OPEN and state.phase is NEW and not state.identity.is_sent:
            raise ResponseStarted(
                "The session is new and the response's headers have been sent without its cookie, so what is "
                "stored now could never be read again. Write to the session before the first part of the body"
            )
        return values

    def _change(self, change: Callable[[dict[str, Any]], None], name: str | Choice | None = None) -> None:
        """Let `change` alter the session, at the key or choice `name`; save it at once if the response is over."""
        state = self._state
        if state.stage is not DETACHED:
            change(self._read_to_write())
            state.note_write(name)
            return
        with _late_writes():
            change(self._read_to_write())
            state.note_write(name)
            if not state.lock:
                commit(state)

    def _alone(self) -> AbstractContextManager[object]:
        """Keep other threads out if the response is over, since several may use the session then."""
        return _late_writes() if self._state.stage is DETACHED else nullcontext()

    def _begin_move(self) -> None:
        self._read()
        if self._state.stage is not OPEN:
            raise ResponseStarted(
                "The session cannot get a new id: the response's headers have been sent, and its cookie with them. "
                "Change the id before the first part of the body"
            )

    def _choose_ttl(self, seconds: Any) -> None:
        def choose(_: object) -> None:
            self._state.document.ttl = None if seconds == self._state.site.lifetimes.ttl else seconds

        self._change(choose, Choice.TTL)

    def _choose_persistent(self, value: Any) -> None:
        def choose(_: object) -> None:
            self._state.document.persistent = None if value == self._state.site.persistent else value

        self._change(choose, Choice.PERSISTENT)

    def _own_login(self, verb: str) -> Login:
        """Return who is logged in. Raises NotLoggedIn for nobody, and for a user who is impersonated."""
        self._read()
        login = self._state.document.login
        if login.user is None:
            raise NotLoggedIn(f"{verb} needs a user who is logged in, and nobody is")
        if login.actor is not None:
            raise NotLoggedIn(f"{verb} is not allowed while an administrator impersonates the user")
        return login

    def _ids(self) -> set[str]:
        """Return the ids of this session: the stored one, and the new one that a move has not saved yet."""
        return {self._state.identity.id, self._state.contested.id}


def _standalone_site() -> Site:
    """Return the site of a session that lives in memory, outside any request."""
    events, lifetimes = Events(), Lifetimes(settings.DEFAULT_TTL, None, settings.DEFAULT_TTL / 10)
    cookie = Cookie("prism_session", "")
    signer = Signer([secrets.token_bytes(settings.MIN_SECRET_BYTES)], cookie.name)
    return Site(
        cookies=CookiePolicy(cookie, signer, lifetimes, system_clock, persistent=True),
        lifetimes=lifetimes,
        codec=Codec(TypedSerializer(), settings.DEFAULT_MAX_SIZE),
        adapter=StoreAdapter(MemoryStore(), None, events),
        events=events,
        clock=system_clock,
    )


@cache
def _lock_of_process(process: int) -> AbstractContextManager[object]:  # noqa: ARG001, what it is cached by
    return RLock()


def _late_writes() -> AbstractContextManager[object]:
    """Return the lock for writes after the response, which several threads may make to one session.

    It is made at first use, since gevent may replace the locks after this module is imported. Each process has one,
    since another thread of the parent may have held the parent's at the fork.
    """
    return _lock_of_process(os.getpid())


def _check_user_key(state: SessionState, value: object) -> None:
    """Check what is written under `user_id_key`, which logs somebody in or out when the session is saved."""
    if state.stage is not OPEN:
        raise ResponseStarted(
            f"session[{state.site.user_id_key!r}] decides who is logged in, and a change needs a new cookie, but the "
            "response's headers have been sent. Change it before the first part of the body"
        )
    if value is not None:
        checked_user(named_user(value) if named_user(value) is not None else value, f"{state.site.user_id_key!r}")


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
