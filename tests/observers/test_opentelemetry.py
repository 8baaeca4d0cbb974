"""The observer for OpenTelemetry, with the SDK and its exporters in memory."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from prism_wsgi import Session
from prism_wsgi.observers.opentelemetry import OpenTelemetryObserver
from tests.support.browsing import Clock, Site, ThreeVerbStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]


class Collected:
    """What has been exported."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        meters, self.tracers = MeterProvider([self._reader]), TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.observer = OpenTelemetryObserver(meter_provider=meters, tracer_provider=self.tracers)

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """Return the points of a metric by their attributes."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            tuple(sorted((point.attributes or {}).items())): point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    @property
    def spans(self) -> tuple[Any, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture
def site(store: ThreeVerbStore, clock: Clock, collected: Collected) -> Site:
    return Site(store, clock, observers=[collected.observer])


def test_events_are_counted_by_kind_and_reason(site: Site, collected: Collected) -> None:
    for _ in range(2):
        browser = site.browser()
        browser.visit(lambda session: session.login("ann"))
    browser.visit(Session.logout)
    counted = {attributes: point.value for attributes, point in collected.points("prism.sessions.events").items()}
    assert counted[(("prism.event.kind", "logged_in"),)] == 2
    assert counted[(("prism.event.kind", "ended"), ("prism.event.reason", "logout"))] == 1


def test_calls_of_the_store_are_a_histogram_in_seconds_and_spans(site: Site, collected: Collected) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    with collected.tracers.get_tracer("test").start_as_current_span("request") as request:
        browser.visit(read("n"))
    points = collected.points("prism.sessions.store.duration")
    loaded = points[(("db.operation.name", "load"), ("prism.store.outcome", "ok"))]
    assert loaded.count == 1
    save, load = (span for span in collected.spans if span.name != "request")
    assert (save.name, load.name) == ("prism_sessions save", "prism_sessions load")
    assert load.parent.span_id == request.get_span_context().span_id
    assert load.attributes["prism.store.attempts"] == 1
    assert load.end_time - load.start_time >= 0
    assert abs((load.end_time - load.start_time) / 1e9 - loaded.sum) < 1e-6


def test_a_failed_call_is_an_error(site: Site, collected: Collected) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    assert isinstance(site.store, ThreeVerbStore)
    site.store.failing = {"load"}
    browser.visit(read("n"))
    failed = collected.spans[-1]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "StoreUnavailable"


def test_nothing_of_a_request_is_exported(site: Site, collected: Collected) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.login("ann-canary"), path="/canary", HTTP_USER_AGENT="canary")
    browser.visit(read("n"), path="/canary", HTTP_COOKIE="prism_session=junk")
    exported = [span.to_json() for span in collected.spans] + [repr(collected.points("prism.sessions.events"))]
    assert "canary" not in "".join(exported)
