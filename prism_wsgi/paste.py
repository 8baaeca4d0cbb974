"""PasteDeploy's filter: `use = egg:prism_wsgi` in a `[filter:...]` section."""

from wsgiref.types import WSGIApplication

from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.text_settings import read_settings


def filter_app(
    app: WSGIApplication,
    global_conf: dict[str, str],
    **settings: str,
) -> SessionMiddleware:
    """Put sessions around an application, with the settings of an ini section.

    The section's keys are SessionMiddleware's settings. Raises ConfigError for any other key.
    """
    return SessionMiddleware(app, **read_settings(settings))
