"""Beaker's middleware and session, over the stores of prism_wsgi."""

from prism_wsgi.compat.beaker.middleware import SessionMiddleware, filter_app

__all__ = ["SessionMiddleware", "filter_app"]
