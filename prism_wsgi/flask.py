"""Flask: `PrismSessions(app)`; see `prism_wsgi.integrations.flask`."""

if __name__ == "flask":
    raise ImportError("This is prism_wsgi's own directory, and it must not be on sys.path: start Python elsewhere")

from prism_wsgi.integrations.flask import FlaskSession, PrismSessions, session

__all__ = ["FlaskSession", "PrismSessions", "session"]
