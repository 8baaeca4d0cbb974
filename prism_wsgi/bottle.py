"""Bottle: `app.install(SessionPlugin(secret=...))`; see `prism_wsgi.integrations.bottle`."""

if __name__ == "bottle":
    raise ImportError("This is prism_wsgi's own directory, and it must not be on sys.path: start Python elsewhere")

from prism_wsgi.integrations.bottle import SessionPlugin

__all__ = ["SessionPlugin"]
