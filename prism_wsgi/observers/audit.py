"""The audit trail, an observer that keeps the events of logins and sessions in the database of the sessions."""

from typing import cast

from prism_wsgi.clock import milliseconds
from prism_wsgi.errors import ConfigError, StoreError
from prism_wsgi.events import EventLog, Kind, SessionEvent, StoreCall
from prism_wsgi.stores.base import ClockedStore, StoredEvent, SweepPace, TrailStore
from prism_wsgi.stores.urls import open_store

DEFAULT_KEEP = 90
"""The number of days for which events are kept."""
DAY_MS = 24 * 3_600_000

# Anybody can cause these as often as they like, so they must cost no query.
_LEFT_OUT = frozenset({Kind.REJECTED, Kind.WRITE_WITHHELD, Kind.STORE_FAILED})


class AuditTrail:
    """An observer that writes the events of logins and sessions into the table `<table>_events`, for `keep` days.

    `store` is the SQLAlchemyStore of the sessions, or its URL. Each event is one INSERT inside the request that
    causes it, under the timeout of the store. An event that cannot be written is lost: it is counted in `lost` and
    logged, and the request goes on. Rejected cookies, withheld writes and failures of the store are not written.

    `prism-wsgi sweep --keep-events DAYS` or `Sweeper(trail).start()` deletes old events; nothing else does.

    Raises ConfigError for a store without a table of events, and for a `keep` that is no number of days.
    """

    def __init__(self, store: TrailStore | str, *, keep: float = DEFAULT_KEEP) -> None:
        found: object = open_store(store) if isinstance(store, str) else store
        if not isinstance(found, TrailStore):
            raise ConfigError(
                f"AuditTrail needs a store that keeps a table of events, which SQLAlchemyStore does and "
                f"{type(found).__name__} does not: AuditTrail(SQLAlchemyStore(url))"
            )
        if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 36500:
            raise ConfigError(f"keep must be a number of days, more than 0 and at most 36500, not {keep!r}")
        self.store = found
        self.lost = 0
        self._keep_ms = int(keep * DAY_MS)
        self._log = EventLog()

    @property
    def sweep_pace(self) -> SweepPace:
        """The pace at which the store is swept."""
        return cast(SweepPace, getattr(self.store, "sweep_pace", SweepPace()))

    def on_event(self, event: SessionEvent) -> None:
        """Write an event, unless anybody can cause events of its kind."""
        if event.kind in _LEFT_OUT:
            return
        try:
            self.store.add_event(_stored(event))
        except StoreError as error:
            self.lost += 1
            self._log.complain(self, f"`{event.kind}`", f"lost the event ({self.lost} lost so far): {error}")

    def on_store_call(self, call: StoreCall) -> None:
        """Leave calls of the store out of the trail."""

    def server_time(self) -> float | None:
        """Return the time of the store's server in Unix seconds, None if it uses this host's clock."""
        return self.store.server_time() if isinstance(self.store, ClockedStore) else None

    def sweep(self, before: int, limit: int) -> int:
        """Delete at most `limit` events that were `keep` days old at `before` (Unix ms); return how many."""
        return self.store.sweep_events(before - self._keep_ms, limit)


def _stored(event: SessionEvent) -> StoredEvent:
    client = event.client
    return StoredEvent(
        timestamp=milliseconds(event.timestamp.timestamp),
        kind=event.kind,
        reason=event.reason,
        session_id=event.session_id,
        previous_id=event.previous_id,
        user=event.user,
        actor=event.actor,
        client_address=None if client is None else client.address,
        user_agent=None if client is None else client.user_agent,
        author=event.author,
    )
