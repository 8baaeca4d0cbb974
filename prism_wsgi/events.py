"""Events of sessions and logins, for the log and for a site's observers.

The log gets the events that an operator may have to act on. Each line has a reason code, the lines are rate-limited,
and none holds a secret, a cookie or session data. Observers get every event, once.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from prism_wsgi.clock import Clock, system_clock

logger = logging.getLogger("prism_wsgi")

WINDOW = 10.0  # seconds
LINES_PER_WINDOW = 20  # for each reason, so that an attacker cannot fill the disk


@dataclass(frozen=True, slots=True)
class Client:
    """The device that last used a session.

    `address` is REMOTE_ADDR, or the result of `client_address`. No header is trusted: behind a proxy REMOTE_ADDR is
    the proxy's address, unless the server or a middleware replaces it by the visitor's. `user_agent` is the browser's
    name for itself, cut at 256 characters. Both are empty if the request had none. `last_seen_at` is in UTC, and as
    exact as `touch_interval`.
    """

    address: str
    user_agent: str
    last_seen_at: datetime


class Kind(StrEnum):
    """A kind of event: what happened to a session or to its login."""

    STARTED = "started"
    """A session was stored for the first time."""
    LOGGED_IN = "logged_in"
    """A user has logged in; with an `actor`, an administrator has begun to impersonate the user."""
    CONFIRMED = "confirmed"
    """The user has proved again who they are."""
    LOGGED_OUT = "logged_out"
    """A user has logged out; with an `actor`, an administrator has stopped impersonating the user."""
    ID_CHANGED = "id_changed"
    """The session has moved from `previous_id` to `session_id`, and nothing else about its login has changed."""
    ENDED = "ended"
    """A session was ended before it expired; the `reason` is an `Ending`."""
    REJECTED = "rejected"
    """A cookie opened nothing, or a request's changes went nowhere; the `reason` is a `Reason`."""
    STORE_FAILED = "store_failed"
    """A call of the store failed."""
    WRITE_WITHHELD = "write_withheld"
    """A form of another site wrote to a new session, and the write was not kept."""


class Ending(StrEnum):
    """The reason why a session was ended before it expired."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    LIMIT = "limit"
    """The user had more sessions than `max_sessions_per_user`."""
    REPLACED_USER = "replaced_user"
    """Another user has logged in to the session."""
    ERASED = "erased"
    """The user's data was erased."""


class Reason(StrEnum):
    """The reason why something was rejected or failed: a code to search the log for, and to alert on."""

    FORGED = "forged"
    EXPIRED = "expired"
    UNKNOWN_ID = "unknown_id"
    SUPERSEDED_ID = "superseded_id"
    DUPLICATE_COOKIE = "duplicate_cookie"
    UNREADABLE_DATA = "unreadable_data"
    LATE_WRITE_DROPPED = "late_write_dropped"
    CONFLICT_MERGED = "conflict_merged"
    STORE_FAILED = "store_failed"
    WRITE_WITHHELD = "write_withheld"
    PUBLIC_CACHE_OVERRIDDEN = "public_cache_overridden"


_EVENTS = {
    Reason.FORGED: (logging.WARNING, "a session cookie without a valid signature was ignored"),
    Reason.EXPIRED: (logging.INFO, "a session cookie past its lifetime was ignored"),
    Reason.UNKNOWN_ID: (logging.INFO, "a signed cookie named a session that is not stored (any more)"),
    Reason.SUPERSEDED_ID: (logging.INFO, "a request came with an id that a login or regenerate() had just replaced"),
    Reason.DUPLICATE_COOKIE: (
        logging.WARNING,
        "several session cookies contradict each other; none was used",
    ),
    Reason.UNREADABLE_DATA: (
        logging.ERROR,
        "stored session data cannot be read; the session counts as absent",
    ),
    Reason.LATE_WRITE_DROPPED: (logging.WARNING, "changes were dropped, because the session ended meanwhile"),
    Reason.CONFLICT_MERGED: (logging.DEBUG, "another request saved the session first; changes were merged"),
    Reason.STORE_FAILED: (logging.ERROR, "the session store failed"),
    Reason.WRITE_WITHHELD: (
        logging.WARNING,
        "a form from another site wrote to a new session, and the write was not kept: SameSite kept the visitor's "
        "cookie out of the request, and a new cookie would replace it. If such a request logs a user in, call "
        'login() or set user_id_key; if forms of other sites may begin sessions, set samesite="none"',
    ),
    Reason.PUBLIC_CACHE_OVERRIDDEN: (
        logging.WARNING,
        "a publicly cacheable response used the session; it was made private",
    ),
}


_LOG_ONLY = frozenset({Reason.CONFLICT_MERGED, Reason.PUBLIC_CACHE_OVERRIDDEN})
_OWN_KIND = {Reason.STORE_FAILED: Kind.STORE_FAILED, Reason.WRITE_WITHHELD: Kind.WRITE_WITHHELD}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """One event of a session. It holds no secret, no cookie and no session data.

    `reason` is an `Ending` if the kind is `ended`, a `Reason` if it is `rejected`, and otherwise None. `session_id`
    is the session's id, `previous_id` the id from which it moved. `actor` is the administrator who impersonates the
    `user`. `client` is the device that made the request, with `record_client` only. `path` is the path of a rejected
    request, without its query, and otherwise None, because the paths of magic links are secrets. `timestamp` is in
    UTC. `author` names who acted outside of a request, such as `cli:ann`.
    """

    kind: Kind
    timestamp: datetime
    reason: Ending | Reason | None = None
    session_id: str | None = None
    previous_id: str | None = None
    user: str | None = None
    actor: str | None = None
    client: Client | None = None
    path: str | None = None
    author: str | None = None


class StoreCall(NamedTuple):
    """One call of a store by a request.

    `operation` is the verb that was called, such as `load`. `outcome` is "ok", "conflict" (another request saved the
    session first), "gone" (the session had ended) or "failed". `duration` is in seconds. `attempts` counts the first
    attempt and the retries of SQLAlchemyStore and RedisStore; for other stores it is 1.
    """

    operation: str
    outcome: str
    duration: float
    attempts: int


class SessionObserver(Protocol):
    """A receiver of events, called inside the request that causes them, so it must not block.

    An exception that it raises is logged, and the request goes on.
    """

    def on_event(self, event: SessionEvent) -> None:
        """Receive an event, once, after the session was saved or ended."""
        ...

    def on_store_call(self, call: StoreCall) -> None:
        """Receive a call of the store, after it returned or raised."""
        ...


class Origin(Protocol):
    """The request that an event comes from; a property is None if it is unknown or not recorded."""

    @property
    def address(self) -> str | None: ...
    @property
    def user_agent(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...


class EventLog:
    """A writer of events to the `prism_wsgi` logger, at most LINES_PER_WINDOW lines a reason in WINDOW seconds.

    Each log record has the attributes `reason`, `session_id` and `suppressed`, the number of events of that reason
    that were not logged before it.
    """

    def __init__(self) -> None:
        # No lock: two threads at once may write a line too many, but no lock has to survive a fork.
        self._windows: dict[str, tuple[float, int]] = {}
        self._said: set[str] = set()

    def warn_once(self, sentence: str) -> None:
        """Log a warning of something that goes wrong without an error: the first time only."""
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning("%s", sentence)

    def emit(self, reason: Reason, session_id: str | None = None, detail: str = "") -> None:
        """Log one event. `detail` may come from a driver: control characters in it are blanked."""
        level, sentence = _EVENTS[reason]
        self._write(level, reason, sentence, session_id, detail)

    def complain(self, observer: object, about: str, problem: str) -> None:
        """Log an observer's `problem` with one kind of event, or with store calls."""
        sentence = f"{type(observer).__name__}, told of {about}, {problem}"
        self._write(logging.ERROR, "observer_failed", sentence, counted_as=f"{type(observer).__name__} {about}")

    def _write(
        self,
        level: int,
        reason: str,
        sentence: str,
        session_id: str | None = None,
        detail: str = "",
        *,
        counted_as: str | None = None,
    ) -> None:
        if not logger.isEnabledFor(level):
            return
        suppressed = self._admit(counted_as or reason)
        if suppressed is None:
            return
        text = f"{reason}: {sentence}"
        if session_id is not None:
            text += f" [session {session_id}]"
        if detail:
            text += f": {_printable(detail)}"
        if suppressed:
            text += f" ({suppressed} more of these were not logged)"
        logger.log(
            level,
            "%s",
            text,
            extra={"reason": str(reason), "session_id": session_id, "suppressed": suppressed},
        )

    def _admit(self, reason: str) -> int | None:
        """Return how many events were suppressed before this one, or None to suppress this one too."""
        now = time.monotonic()
        start, count = self._windows.get(reason, (now, 0))
        suppressed = 0
        if now - start >= WINDOW:
            suppressed = max(0, count - LINES_PER_WINDOW)
            start, count = now, 0
        self._windows[reason] = (start, count + 1)
        return suppressed if count < LINES_PER_WINDOW else None


class Events:
    """The distribution of a site's events to the log and to each observer.

    Without observers, no event object is built.
    """

    __slots__ = ("_clock", "_log", "observers")

    def __init__(self, observers: Iterable[SessionObserver] = (), clock: Clock = system_clock) -> None:
        self.observers = tuple(observers)
        self._clock = clock
        self._log = EventLog()

    def warn_once(self, sentence: str) -> None:
        """Log a warning of something that goes wrong without an error: the first time only."""
        self._log.warn_once(sentence)

    def emit(
        self, reason: Reason, session_id: str | None = None, detail: str = "", *, origin: Origin | None = None
    ) -> None:
        """Log what was rejected or has failed, and tell the observers; `detail` goes to the log alone."""
        self._log.emit(reason, session_id, detail)
        if not self.observers or reason in _LOG_ONLY:
            return
        kind = _OWN_KIND.get(reason, Kind.REJECTED)
        if kind is Kind.REJECTED:
            path = None if origin is None else origin.path
            self.tell(kind, reason=reason, session_id=session_id, path=path, origin=origin)
        else:
            self.tell(kind, session_id=session_id, origin=origin)

    def tell(
        self,
        kind: Kind,
        *,
        reason: Ending | Reason | None = None,
        session_id: str | None = None,
        previous_id: str | None = None,
        user: str | None = None,
        actor: str | None = None,
        path: str | None = None,
        author: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Tell the observers of an event that happens now."""
        if not self.observers:
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        client = None
        if origin is not None and (origin.address is not None or origin.user_agent is not None):
            client = Client(origin.address or "", origin.user_agent or "", now)
        event = SessionEvent(
            kind=kind,
            timestamp=now,
            reason=reason,
            session_id=session_id,
            previous_id=previous_id,
            user=user,
            actor=actor,
            client=client,
            path=path,
            author=author,
        )
        for observer in self.observers:
            try:
                observer.on_event(event)
            except Exception as error:  # noqa: BLE001, whatever it is, the request goes on
                self._log.complain(observer, f"`{kind}`", f"raised {type(error).__name__}")

    def tell_call(self, call: StoreCall) -> None:
        """Tell the observers of a call of the store."""
        for observer in self.observers:
            try:
                observer.on_store_call(call)
            except Exception as error:  # noqa: BLE001, whatever it is, the request goes on
                self._log.complain(observer, "store calls", f"raised {type(error).__name__}")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
