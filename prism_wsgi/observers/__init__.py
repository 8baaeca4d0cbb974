"""Observers: objects that receive the events of sessions and the calls of the store."""

from prism_wsgi.events import Ending, Kind, Reason, SessionEvent, SessionObserver, StoreCall

__all__ = ["Ending", "Kind", "Reason", "SessionEvent", "SessionObserver", "StoreCall"]
