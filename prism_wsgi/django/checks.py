"""System checks of a Django project's session settings: `manage.py check`."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

from prism_wsgi.django.databases import is_in_memory
from prism_wsgi.django.site import configured_site, database_alias
from prism_wsgi.stores.memory import MemoryStore

ENGINE = "prism_wsgi.django"
JSON_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return the problems of the sessions' settings: `prism_wsgi.E001`, `.W001`, `.W002`."""
    if settings.SESSION_ENGINE != ENGINE:
        return []
    try:
        site = configured_site()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="prism_wsgi.E001")]
    found: list[CheckMessage] = []
    alias = database_alias()
    in_memory = isinstance(site.adapter.store, MemoryStore)
    if in_memory and not settings.DEBUG and not (alias is not None and is_in_memory(alias)):
        found.append(
            CheckWarning(
                "The sessions are kept in memory, so each worker has its own, and a restart ends all.",
                hint="Name a database or Redis in PRISM_SESSION_STORE.",
                id="prism_wsgi.W001",
            )
        )
    if settings.SESSION_SERIALIZER != JSON_SERIALIZER:
        found.append(
            CheckWarning(
                "SESSION_SERIALIZER has no effect: prism_wsgi stores typed values.",
                hint='Remove it, or give PRISM_SESSION_OPTIONS a "serializer".',
                id="prism_wsgi.W002",
            )
        )
    return found
