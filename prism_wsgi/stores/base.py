"""The contract of a session store: three verbs over StoredSession, and optional verbs, used if a store has them."""

from bisect import bisect_right
from collections import Counter
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
    `user` is the user who is logged in, if any. `superseded` marks an id that the session has left. The data of such
    a marker is the 32 bytes of the id that took its place, and its `user` is the user who was logged in before the
    move. `last_seen_at` (Unix ms) is when the session was last used, as exactly as `touch_interval` records it.
    `authenticated_at` (Unix ms) is when the user last proved who they are, `auth_method` how (RFC 8176 values,
    separated by spaces), `actor` the administrator who impersonates the user. `client_address` and `user_agent` name
    the device that last used the session, if `record_client` is set. `device_key` is 8 bytes of Unix ms and 64 bytes
    of a public key, if the browser has bound the session to a key. Each field that may be None is None if it is
    unknown.
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
        """The id that took this one's place, if this is a marker that names it."""
        return self.data.hex() if self.superseded and self.data else None

    def concerns(self, user: str) -> bool:
        """Tell whether this is a session of the user, or one in which the user acts as somebody else."""
        return user in (self.user, self.actor)


KEPT_EXPIRED_MS = 600_000
"""How long an expired session stays stored (ms), for a request that loaded it while it was alive.

A store that deletes expired sessions by itself keeps them that long, and a sweep spares them. Until then they do not
count as waiting for a sweep.
"""


def was_saved(session: StoredSession, stored: StoredSession | None) -> bool:
    """Tell whether a save whose answer was lost took effect, by what is `stored` now."""
    return stored is not None and (stored.version, stored.data) == (session.version + 1, session.data)


def checked_owner(user: str) -> str:
    """Return the user. Raises TypeError for None, which all anonymous sessions have as their user."""
    if not isinstance(user, str):
        raise TypeError(f"user must be text, as given to login(), not {type(user).__name__}")
    return user


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a listing: everything but its data, and the data's size in bytes."""

    id: str
    user: str | None
    created_at: int
    expires_at: int
    size: int
    version: int
    last_seen_at: int | None = None
    authenticated_at: int | None = None
    auth_method: str | None = None
    actor: str | None = None
    client_address: str | None = None
    user_agent: str | None = None


class SessionStore(Protocol):
    """A place where sessions are kept. These three verbs are enough; the other protocols add optional ones.

    A store keeps every field of StoredSession. It raises its own failures (unreachable, full, read-only) as
    `StoreUnavailable`.
    """

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session. None if it is unknown or expired; neither is an error."""
        ...

    def save(self, session: StoredSession) -> None:
        """Write the session by compare-and-swap, and store it with `version + 1`.

        Version 0 inserts, and raises `SessionExists` when the id is taken, expired or not. Any other version replaces
        the stored session of that id and version, also one that has expired since it was loaded. Raises
        `SessionConflict` when another version is stored, and `SessionGone` when none is.
        """
        ...

    def destroy(self, session_id: str) -> None:
        """Delete what is stored under the id, expired or not. Already gone is not an error."""
        ...


@runtime_checkable
class TouchingStore(Protocol):
    """A store that can record activity without writing a session's data."""

    def touch(self, session: StoredSession) -> bool:
        """Record the use of a session that was loaded: its expiry, `last_seen_at`, `client_address`, `user_agent`.

        The expiry moves to `session.expires_at`, never back; the other three are taken from `session`. Data and
        version stay as they are, so a touch never conflicts with a save. Like a save, a touch works on a session that
        has expired since it was loaded. Returns False, and changes nothing, when no session, a marker or another
        version is stored: a reader must not bring back a lifetime that another request has shortened.
        """
        ...


@runtime_checkable
class ReplacingStore(Protocol):
    """A store that can save two sessions together.

    Its `destroy` follows a marker: it also deletes the session at `StoredSession.moved_to`, if that has the marker's
    `user`. Otherwise a logout that comes while the session moves would delete only the marker. If another marker is
    stored there, it is followed in the same way; markers that name each other end the walk.
    """

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save `old` and `new`, or neither; each under the rules of `save`.

        A store without transactions saves `new` first and `old` second, and deletes `new` again when that fails. If
        the process dies in between, the session still opens under its old id, and no cookie names the new one.
        """
        ...


@dataclass(frozen=True, slots=True)
class SweepPace:
    """The pace of sweeps that suits a store, unless a sweeper is given another.

    A batch should take `target_ms` milliseconds; after it the sweep rests for `rest` times as long as the batch took.
    """

    target_ms: float = 10.0
    rest: float = 0.0


@runtime_checkable
class SweepingStore(Protocol):
    """A store whose expired sessions stay until a sweep deletes them.

    It may have a `sweep_pace: SweepPace`.
    """

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` sessions that expired at or before `before` (Unix ms); return how many."""
        ...


@runtime_checkable
class ClockedStore(Protocol):
    """A store whose server may have another clock than this host."""

    def server_time(self) -> float | None:
        """Return the server's time in Unix seconds, None if it uses this host's clock."""
        ...


@runtime_checkable
class BacklogStore(Protocol):
    """A store that can tell which sessions wait for a sweep, without reading them all."""

    def oldest_expired(self, before: int) -> int | None:
        """Return the earliest expiry (Unix ms) at or before `before`, None when there is none; cheap."""
        ...

    def count_expired(self, before: int) -> int:
        """Return how many sessions expired at or before `before` (Unix ms)."""
        ...


@runtime_checkable
class IndexedStore(Protocol):
    """A store that can list and end the sessions of a user."""

    def find(self, *, user: str, limit: int = 100, after: str | None = None) -> Iterable[StoredSession]:
        """Return the live sessions of a user in the order of their ids, oldest id first.

        Sessions in which the user is the `actor` are among them. `after`, the last id of one page, continues with the
        next page. Raises TypeError for a `user` of None.
        """
        ...

    def find_all(self, *, limit: int = 100, after: str | None = None) -> Iterable[StoredSession]:
        """Return the live sessions of everybody, logged in or not, in the order of their ids; see `find`."""
        ...

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user, or in which the user is the `actor`, expired or not, but `except_id`.

        It follows a marker of the user, as `destroy` does, but never to `except_id`; the marker stays until it
        expires. Returns how many sessions were deleted. Raises TypeError for a `user` of None.
        """
        ...


@runtime_checkable
class RevokingStore(Protocol):
    """A store that can end one session on behalf of a user, and only if it is that user's."""

    def revoke(self, session_id: str, *, user: str) -> bool:
        """Delete the session if the user is its `user` or its `actor`; tell whether it was deleted.

        It follows a marker of the same user, as `destroy` does. Raises TypeError for a `user` of None.
        """
        ...


AGE_LIMITS = (3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600)
"""The ages, in seconds, at which the histogram of `StoreStats.ages` is divided."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The numbers of a store's sessions.

    `expired` counts expired sessions that are still stored. `oldest_expired` is the earliest expiry (Unix ms) among
    those that expired more than KEPT_EXPIRED_MS ago, and shows how far the sweeper lags behind. Of the live sessions,
    `saved_once` were saved only once, and `largest` is the size of the largest in bytes. `ages` is a histogram of the
    live sessions' ages, divided at AGE_LIMITS.
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


def measured(sized: Iterable[tuple[int, StoredSession]], now: int) -> StoreStats:
    """Return the numbers of these sessions at `now` (Unix ms); each comes with the size of its data in bytes."""
    everything = list(sized)
    unexpired = [(size, one) for size, one in everything if not one.is_expired(now)]
    expired = [one.expires_at for _, one in everything if one.is_expired(now)]
    live = [(size, one) for size, one in unexpired if not one.superseded]
    ages = Counter(bisect_right(AGE_LIMITS, (now - one.created_at) / 1000) for _, one in live)
    return StoreStats(
        live=len(live),
        expired=len(expired),
        superseded=len(unexpired) - len(live),
        logged_in=sum(one.user is not None for _, one in live),
        data_bytes=sum(size for size, _ in everything),
        oldest_expired=min((at for at in expired if at <= now - KEPT_EXPIRED_MS), default=None),
        saved_once=sum(one.version == 1 for _, one in live),
        largest=max((size for size, _ in live), default=0),
        ages=tuple(ages[number] for number in range(len(AGE_LIMITS) + 1)),
    )


@runtime_checkable
class MeasuringStore(Protocol):
    """A store that can measure its sessions."""

    def stats(self) -> StoreStats:
        """Measure the sessions that are stored now; this may read all of them."""
        ...


@runtime_checkable
class CountingStore(Protocol):
    """A store that can count its sessions."""

    def count(self, *, user: str | None = None) -> int:
        """Return how many live sessions there are, in all or of one user, as `find` lists them."""
        ...

    def estimate(self) -> int | None:
        """Return about how many sessions are stored, at a cost that does not grow with them.

        Expired sessions and markers may be counted. None if the store has no estimate.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One event of a session or a login, as a trail keeps it; `SessionEvent` explains the fields.

    `timestamp` is in Unix ms. `number` is the event's number in the store, 0 for one that is not stored yet.
    """

    timestamp: int
    kind: str
    reason: str | None = None
    session_id: str | None = None
    previous_id: str | None = None
    user: str | None = None
    actor: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    author: str | None = None
    number: int = 0


@runtime_checkable
class TrailStore(Protocol):
    """A store that keeps a trail of events beside its sessions."""

    def add_event(self, event: StoredEvent) -> None:
        """Add an event to the trail."""
        ...

    def find_events(self, *, user: str, limit: int = 100, before: int | None = None) -> Iterable[StoredEvent]:
        """Return the events of a user, or in which the user is the actor, the newest first.

        `before`, the number of the last event of one page, continues with the next page. Raises TypeError for a
        `user` of None.
        """
        ...

    def sweep_events(self, before: int, limit: int) -> int:
        """Delete at most `limit` events of `before` (Unix ms) and earlier; return how many."""
        ...

    def erase_events(self, user: str, alias: str | None = None) -> int:
        """Erase a user from the trail; return the number of events changed or deleted.

        With an `alias`, that name replaces the user's, and the client is removed. Without one, the user's events are
        deleted; if the user is the actor in another user's event, only their name and the client are removed.
        """
        ...


@runtime_checkable
class CountingTrailStore(Protocol):
    """A store that can count the events of its trail."""

    def events_an_hour(self, since: int, limit: int) -> Iterable[tuple[int, str, str | None, int]]:
        """Count the newest `limit` events since `since`, by hour, kind and reason.

        `since` and the hours' beginnings are Unix ms.
        """
        ...


@dataclass(frozen=True, slots=True)
class SweepRun:
    """The record of one sweep. Times are Unix ms; `outcome` is a `SweepEnd`, `host` the machine's name."""

    started_at: int
    ended_at: int
    deleted: int
    outcome: str
    host: str


@runtime_checkable
class SweepRecordingStore(Protocol):
    """A store that keeps a record of its sweeps."""

    def add_sweep(self, run: SweepRun) -> None:
        """Add the record of a sweep, and forget those older than 90 days."""
        ...

    def last_sweeps(self, limit: int = 1) -> Iterable[SweepRun]:
        """Return the latest sweeps, the newest first."""
        ...


@runtime_checkable
class CheckableStore(Protocol):
    """A store that can check whether it works."""

    def ping(self) -> None:
        """Prove that sessions can be read and that the server takes writes. Raises StoreUnavailable otherwise."""
        ...
