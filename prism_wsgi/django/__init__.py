"""Django's session engine, `SESSION_ENGINE = "prism_wsgi.django"`, and an application for `INSTALLED_APPS`."""

from prism_wsgi.django.engine import SessionStore

__all__ = ["SessionStore"]
