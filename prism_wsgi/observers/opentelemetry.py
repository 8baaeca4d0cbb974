"""OpenTelemetry's metrics and spans of events and store calls (extra `opentelemetry`: opentelemetry-api)."""

import time

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, get_tracer

from prism_wsgi.events import SessionEvent, StoreCall

SCOPE = "prism_wsgi"


class OpenTelemetryObserver:
    """An observer that reports to OpenTelemetry: a counter of events, a histogram of store calls, a span for each
    call.

    `prism.sessions.events` has the attributes `prism.event.kind` and `prism.event.reason`. The histogram
    `prism.sessions.store.duration` is in seconds. It and the spans have `db.operation.name`, `prism.store.outcome`
    and, if the call failed, `error.type`, the names of OpenTelemetry's conventions for databases. A span is a child
    of the request's current span. None of them holds anything that comes from a request.

    `meter_provider` and `tracer_provider` are the global ones unless given.
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        meter = get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._events = meter.create_counter(
            "prism.sessions.events", unit="{event}", description="Events of sessions and logins."
        )
        self._durations = meter.create_histogram(
            "prism.sessions.store.duration", unit="s", description="How long calls of the session store take."
        )

    def on_event(self, event: SessionEvent) -> None:
        """Count an event."""
        attributes = {"prism.event.kind": event.kind.value}
        if event.reason is not None:
            attributes["prism.event.reason"] = event.reason.value
        self._events.add(1, attributes)

    def on_store_call(self, call: StoreCall) -> None:
        """Record a call of the store, as a span that has just ended."""
        attributes = {"db.operation.name": call.operation, "prism.store.outcome": call.outcome}
        if call.outcome == "failed":
            attributes["error.type"] = "StoreUnavailable"
        self._durations.record(call.duration, attributes)
        now = time.time_ns()
        span = self._tracer.start_span(
            f"prism_sessions {call.operation}",
            kind=SpanKind.CLIENT,
            attributes={**attributes, "prism.store.attempts": call.attempts},
            start_time=now - int(call.duration * 1e9),
        )
        if call.outcome == "failed":
            span.set_status(StatusCode.ERROR)
        span.end(now)
