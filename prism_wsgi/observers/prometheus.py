"""Prometheus' metrics of events and store calls (extra `prometheus`: prometheus_client)."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import StoreError
from prism_wsgi.events import Ending, Kind, Reason, SessionEvent, StoreCall
from prism_wsgi.stores.base import KEPT_EXPIRED_MS, BacklogStore, CountingStore

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a load takes less than a millisecond, and a store gives up after five seconds."""


class PrometheusObserver:
    """An observer that counts events exactly, and measures how long the store takes.

    `prism_sessions_events_total` has the labels `kind` and `reason`, which is empty if an event has none.
    `prism_sessions_store_duration_seconds` is a histogram with the labels `operation` and `outcome`, which is "ok",
    "conflict", "gone" or "failed". `prism_sessions_store_repetitions_total` counts, for each `operation`, the further
    attempts that stores have made. No label comes from a request.

    Make one for each `registry`; the middlewares of a process may share it. With a `store`, the gauges of a
    `StoreCollector` are there too. In the multi-process mode of prometheus_client leave that out, and register a
    StoreCollector where metrics are scraped.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, store: object | None = None) -> None:
        self._events = Counter(
            "prism_sessions_events", "Events of sessions and logins.", ["kind", "reason"], registry=registry
        )
        self._durations = Histogram(
            "prism_sessions_store_duration_seconds",
            "How long calls of the session store take.",
            ["operation", "outcome"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._repetitions = Counter(
            "prism_sessions_store_repetitions",
            "Further attempts of the session store.",
            ["operation"],
            registry=registry,
        )
        # prometheus_client takes several microseconds to find a metric by its labels.
        self._found_events: dict[tuple[Kind, Ending | Reason | None], Counter] = {}
        self._found_durations: dict[tuple[str, str], Histogram] = {}
        if store is not None:
            registry.register(StoreCollector(store))

    def on_event(self, event: SessionEvent) -> None:
        """Count an event."""
        name = event.kind, event.reason
        counter = self._found_events.get(name)
        if counter is None:
            labels = event.kind.value, "" if event.reason is None else event.reason.value
            counter = self._found_events[name] = self._events.labels(*labels)
        counter.inc()

    def on_store_call(self, call: StoreCall) -> None:
        """Record how long a call of the store took."""
        name = call.operation, call.outcome
        durations = self._found_durations.get(name)
        if durations is None:
            durations = self._found_durations[name] = self._durations.labels(*name)
        durations.observe(call.duration)
        if call.attempts > 1:
            self._repetitions.labels(call.operation).inc(call.attempts - 1)


class StoreCollector(Collector):
    """A collector that asks a store, at each scrape, for the number of its sessions and the lag of its sweep.

    `prism_sessions_live` is the store's cheap estimate, which may count expired sessions and markers.
    `prism_sessions_sweep_lag_seconds` is how long ago the oldest expired session should have been swept, 0 if none
    waits. A number that the store cannot give cheaply, or not now, is left out. Register it in one process:
    `REGISTRY.register(StoreCollector(store))`, in multi-process mode in the registry that is scraped.
    """

    def __init__(self, store: object, *, clock: Clock = system_clock) -> None:
        self._store = store
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        for gauge in (self._live, self._lag):
            try:
                metric = gauge()
            except StoreError:  # the histogram of calls shows that the store is down
                continue
            if metric is not None:
                yield metric

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering the collector makes no store call."""
        return []

    def _live(self) -> Metric | None:
        count = self._store.estimate() if isinstance(self._store, CountingStore) else None
        if count is None:
            return None
        return GaugeMetricFamily("prism_sessions_live", "About how many sessions are stored.", value=count)

    def _lag(self) -> Metric | None:
        if not isinstance(self._store, BacklogStore):
            return None
        due = milliseconds(self._clock) - KEPT_EXPIRED_MS
        oldest = self._store.oldest_expired(due)
        lag = 0.0 if oldest is None else (due - oldest) / 1000
        return GaugeMetricFamily("prism_sessions_sweep_lag_seconds", "How far the sweep lags behind.", value=lag)
