"""What a session store is: three verbs over StoredSession, and the optional verbs used when present."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(slots=True)
class StoredSession:
    """One session as a store keeps it.

    `id` is 64 lower-case hex digits and is not secret: no cookie can be made from it.
    `data` is opaque to the store (serialised, perhaps encrypted).
    `version` is 0 for a session that was never saved, otherwise the version that was loaded.
    `created_at` and `expires_at` are Unix milliseconds, UTC.
    `user` is who is logged in, if anybody. `superseded` marks an id that the session has left: the data of such a
    marker is the 32 bytes of the id that took its place, and its `user` is who was logged in before the move.
    `last_seen_at` (Unix ms) is when the session was last used, as exactly as `touch_interval` records it.
    `authenticated_at` (Unix ms) is when the user last proved who they are, `auth_method` how (RFC 8176 values,
    separated by spaces), `actor` the administrator who impersonates the user.
    `client_address` and `user_agent` name the device that last used the session, where `record_client` is set.
    `device_key` is 8 bytes of Unix ms and 64 bytes of a public key, where the browser has bound the session to one.
    Each of these is None where it is not known.
    """

    id: str
    data: bytes = field(repr=False)
    version: int
    created_at: int
    expires_at: int
    user: str | None = None
    superseded: bool = False
    last_seen_at: int | None = None
    authenticated_at: int | None = None
    auth_method: str | None = None
    actor: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    device_key: bytes | None = None

    def is_expired(self, now: int) -> bool:
        """Tell whether the session is over at `now` (Unix milliseconds)."""
        return self.expires_at <= now

    @property
    def moved_to(self) -> str | None:
        """The id that took this one's place, where a marker says so."""
        return self.data.hex() if self.superseded and self.data else None


MAX_USER_CHARACTERS = 255


def user_name(value: object) -> str:
    """Return whom a session can belong to: 1 to 255 printable characters. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"login() takes the user's name or id as text, not {type(value).__name__}; use str(user.id)")
    if not 1 <= len(value) <= MAX_USER_CHARACTERS or not value.isprintable():
        raise ValueError(f"login() takes 1 to {MAX_USER_CHARACTERS} printable characters")
    return value


def checked_user(user: str) -> str:
    """Return whose sessions are to be ended. Raises TypeError for None: that would be all who are not logged in."""
    if not isinstance(user, str):
        raise TypeError(f"user must be text, as given to login(), not {type(user).__name__}")
    return user


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a listing shows of a session: everything but its data, of which it has the size in bytes."""

    id: str
    user: str | None
    created_at: int
    expires_at: int
    size: int
    version: int


class SessionStore(Protocol):
    """Where sessions live. These three verbs are enough; see the other protocols for what can be added.

    An error of the store itself (unreachable, full, read-only) is raised as `StoreUnavailable`.
    """

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session. Unknown and expired are not errors: they are None."""
        ...

    def save(self, session: StoredSession) -> None:
        """Write the session by compare-and-swap; what is stored afterwards has `version + 1`.

        Version 0 inserts, and raises `SessionExists` when the id is taken, expired or not.
        Any other version replaces the stored session of that id and version: `SessionConflict` when
        another version is stored, `SessionGone` when none is (or it has expired).
        """
        ...

    def destroy(self, session_id: str) -> None:
        """Delete the session. Already gone is not an error."""
        ...


@runtime_checkable
class TouchingStore(Protocol):
    """A store that can extend a session without writing its data."""

    def touch(self, session_id: str, expires_at: int) -> bool:
        """Move the expiry to `expires_at` (Unix ms), never back; False when the session is gone.

        Neither data nor version changes, so a touch never conflicts with a save.
        """
        ...


@runtime_checkable
class ReplacingStore(Protocol):
    """A store that can write two sessions in one transaction.

    Its `destroy` of an id where a marker stands ends the session at `StoredSession.moved_to` too: a logout that
    comes while the session moves would otherwise delete the marker and nothing else.
    """

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save `old` and `new`, or neither; each under the rules of `save`."""
        ...


@dataclass(frozen=True, slots=True)
class SweepPace:
    """How a sweep that is told nothing else goes about a store.

    A batch should take `target_ms` milliseconds; after it the sweep rests for `rest` times as long as it took.
    """

    target_ms: float = 10.0
    rest: float = 0.0


@runtime_checkable
class SweepingStore(Protocol):
    """A store whose expired sessions stay until somebody deletes them.

    It may name a `sweep_pace: SweepPace` that suits it.
    """

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before` (Unix ms); return how many."""
        ...


@runtime_checkable
class BacklogStore(Protocol):
    """A store that can say what waits for a sweep, without reading everything."""

    def oldest_expired(self, before: int) -> int | None:
        """Return the earliest expiry (Unix ms) at or before `before`, None when there is none; cheap."""
        ...

    def count_expired(self, before: int) -> int:
        """Return how many sessions expired at or before `before` (Unix ms)."""
        ...


@runtime_checkable
class IndexedStore(Protocol):
    """A store that can list and end the sessions of a user."""

    def find(self, *, user: str | None = None, limit: int = 100, after: str | None = None) -> Iterable[StoredSession]:
        """Return live sessions in the order of their ids, oldest id first.

        `user` narrows to one user's; `after` continues behind the last id of the page before.
        """
        ...

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user, but for `except_id`; return how many. Raises TypeError for no user."""
        ...


AGE_LIMITS = (3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600)
"""The ages, in seconds, at which the histogram of `StoreStats.ages` is divided."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds. `oldest_expired` is Unix ms: how far the sweeper lags behind.

    Of the live sessions, `saved_once` were never saved again after their first save, `largest` is the size of the
    largest in bytes, and `ages` counts them by the time since they began: one number for each of AGE_LIMITS, those
    younger than it and not than the one before, and one for the older ones.
    """

    live: int
    expired: int
    superseded: int
    logged_in: int
    data_bytes: int
    oldest_expired: int | None
    saved_once: int = 0
    largest: int = 0
    ages: tuple[int, ...] = (0,) * (len(AGE_LIMITS) + 1)


@runtime_checkable
class CountingStore(Protocol):
    """A store that can say what it holds."""

    def stats(self) -> StoreStats:
        """Count what is stored now."""
        ...
