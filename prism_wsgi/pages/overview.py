"""The overview of AdminPage, in a bounded number of store calls, each of which must be cheap."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prism_wsgi.events import Ending, Events, Kind
from prism_wsgi.stores.base import (
    AGE_LIMITS,
    CountingStore,
    CountingTrailStore,
    IndexedStore,
    SessionStore,
    SessionSummary,
    StoredSession,
    SweepRecordingStore,
    SweepRun,
)

MEASURED_AT_MOST = 1000
"""The largest number of sessions that are read, to count them exactly and by age."""
LOOKED_THROUGH_AT_MOST = 10_000
"""The largest size of a store that reads all its sessions to list some."""
EVENTS_AT_MOST = 50_000
HOUR_MS = 3_600_000
HOURS = 24
_TRANSACTION = 100

SESSION_ID = re.compile(r"[0-9a-f]{64}")

Listed = StoredSession | SessionSummary


@dataclass(frozen=True, slots=True)
class Hour:
    """The events of logins within an hour, which began at `began` (Unix ms)."""

    began: int
    logins: int = 0
    logouts: int = 0
    revocations: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """The numbers of a store, its sweeps and its events; None if the store does not tell.

    `live` is exact if `ages` is known (see `StoreStats.ages`), and an estimate otherwise. `oldest` is when the oldest
    live session began (Unix ms).
    """

    live: int | None
    ages: tuple[int, ...] | None
    oldest: int | None
    sweeps: list[SweepRun] | None
    hours: list[Hour] | None
    is_trail_cut: bool


def overview(store: SessionStore, now: int) -> Overview:
    """Ask a store for its overview at `now` (Unix ms)."""
    found = listed(store, limit=MEASURED_AT_MOST)
    oldest = found[0].created_at if found else None
    ages = None
    if found is not None and len(found) < MEASURED_AT_MOST:
        live: int | None = len(found)
        counted = Counter(bisect_right(AGE_LIMITS, (now - one.created_at) / 1000) for one in found)
        ages = tuple(counted[number] for number in range(len(AGE_LIMITS) + 1))
    else:
        live = store.estimate() if isinstance(store, CountingStore) else None
    sweeps = list(store.last_sweeps(5)) if isinstance(store, SweepRecordingStore) else None
    hours, is_cut = _hours(store, now)
    return Overview(live, ages, oldest, sweeps, hours, is_cut)


def listed(
    store: SessionStore, *, user: str | None = None, limit: int, after: str | None = None
) -> Sequence[Listed] | None:
    """Return live sessions in the order of their ids, of a user or of everybody; None if that is not cheap."""
    summaries: Any = getattr(store, "summaries", None)
    if summaries is not None:  # without the data
        found: list[SessionSummary] = summaries(user=user, limit=limit, after=after)
        return found
    if not isinstance(store, IndexedStore):
        return None
    if user is not None:
        return list(store.find(user=user, limit=limit, after=after))
    estimate = store.estimate() if isinstance(store, CountingStore) else None
    if estimate is None or estimate > LOOKED_THROUGH_AT_MOST:
        return None
    return list(store.find_all(limit=limit, after=after))


def destroy_many(store: SessionStore, ids: Sequence[str]) -> None:
    """End the sessions of these ids."""
    at_once: Any = getattr(store, "destroy_many", None)
    if at_once is None:
        for session_id in ids:
            store.destroy(session_id)
        return
    for begin in range(0, len(ids), _TRANSACTION):
        at_once(ids[begin : begin + _TRANSACTION])


def _hours(store: SessionStore, now: int) -> tuple[list[Hour] | None, bool]:
    if not isinstance(store, CountingTrailStore):
        return None, False
    last = now - now % HOUR_MS
    hours = [last - ago * HOUR_MS for ago in reversed(range(HOURS))]
    counts: Counter[tuple[int, str]] = Counter()
    total = 0
    for began, kind, reason, count in store.events_an_hour(hours[0], EVENTS_AT_MOST):
        total += count
        counts[began, f"{kind}:{reason}" if kind == Kind.ENDED else kind] += count
    revoked = f"{Kind.ENDED}:{Ending.REVOKED}"
    found = [
        Hour(hour, counts[hour, Kind.LOGGED_IN], counts[hour, Kind.LOGGED_OUT], counts[hour, revoked])
        for hour in hours
    ]
    return (found if total else []), total >= EVENTS_AT_MOST


def report_ended(events: Events, ended: Iterable[Listed], author: str) -> None:
    """Tell the site's observers which sessions an administrator has ended."""
    for one in ended:
        events.tell(
            Kind.ENDED, reason=Ending.REVOKED, session_id=one.id, user=one.user, actor=one.actor, author=author
        )
