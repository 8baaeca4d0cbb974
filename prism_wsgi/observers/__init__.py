"""Observers: objects that SessionMiddleware tells what happens to sessions, and how its store answers."""

from prism_wsgi.events import Ending, Kind, Reason, SessionEvent, SessionObserver, StoreCall

__all__ = ["Ending", "Kind", "Reason", "SessionEvent", "SessionObserver", "StoreCall"]
