"""An observer that remembers what it is told."""

from prism_wsgi.events import SessionEvent, StoreCall


class Recorder:
    """Keeps every event and every store call."""

    def __init__(self) -> None:
        self.events: list[SessionEvent] = []
        self.calls: list[StoreCall] = []

    def on_event(self, event: SessionEvent) -> None:
        self.events.append(event)

    def on_store_call(self, call: StoreCall) -> None:
        self.calls.append(call)

    def take(self) -> list[SessionEvent]:
        """Return the events since the last time."""
        events, self.events = self.events, []
        return events

    def names(self) -> list[str]:
        """Return the events since the last time, each as its kind, and its reason where it has one."""
        return [f"{one.kind}:{one.reason}" if one.reason else str(one.kind) for one in self.take()]
