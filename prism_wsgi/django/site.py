"""The site of a Django project: its settings, validated once, and the store that they name."""

from dataclasses import replace
from functools import cache
from secrets import token_hex
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from prism_wsgi.cookies import MAX_AGE_LIMIT
from prism_wsgi.django.databases import database_url
from prism_wsgi.errors import ConfigError
from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.request.site import Site
from prism_wsgi.stores import urls
from prism_wsgi.stores.base import SessionStore

USER_KEY = "_auth_user_id"
OPTIONS = frozenset(
    {
        "clock",
        "encryption",
        "encryption_key",
        "max_lifetime",
        "max_sessions_per_user",
        "max_size",
        "observers",
        "read_unencrypted",
        "serializer",
        "touch_interval",
    }
)
"""The settings of SessionMiddleware that `PRISM_SESSION_OPTIONS` may hold. Django's settings set the others."""


def store_setting() -> "str | SessionStore":
    """Return `PRISM_SESSION_STORE`: a URL, a database's alias, or a store. Raises ImproperlyConfigured."""
    value = getattr(settings, "PRISM_SESSION_STORE", None)
    if value is None:
        raise ImproperlyConfigured(
            'SESSION_ENGINE = "prism_wsgi.django" needs PRISM_SESSION_STORE: the URL of a store, such as '
            '"postgresql://user:password@host/database", or the alias of one of your DATABASES, such as "default"'
        )
    return value  # type: ignore[no-any-return]


def database_alias() -> str | None:
    """Return the alias of the database of the sessions, None if the setting is a URL or a store."""
    value = getattr(settings, "PRISM_SESSION_STORE", None)
    return value if isinstance(value, str) and not urls.is_url(value) else None


def configured_site() -> Site:
    """Return the site of this project. Raises ImproperlyConfigured for a setting that breaks its rule."""
    place: Any = store_setting()
    alias = database_alias()
    return _site(place if alias is None else database_url(alias))


@cache
def _site(store: Any) -> Site:
    options: dict[str, Any] = dict(getattr(settings, "PRISM_SESSION_OPTIONS", {}))
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise ImproperlyConfigured(
            f"PRISM_SESSION_OPTIONS has no {', '.join(map(repr, unknown))}; it may hold {', '.join(sorted(OPTIONS))}"
        )
    try:
        site = SessionMiddleware(
            _no_application,
            store=_opened(store) if isinstance(store, str) else store,
            secret=token_hex(32),  # Django's own middleware sends the cookie, and signs nothing
            cookie_name=settings.SESSION_COOKIE_NAME,
            ttl=min(max(1, settings.SESSION_COOKIE_AGE), MAX_AGE_LIMIT),
            user_id_key=USER_KEY,
            **options,
        ).site
    except ConfigError as error:
        raise ImproperlyConfigured(str(error)) from error
    return replace(site, csrf_keys=())  # Django replaces its tokens itself


@cache
def _opened(url: str) -> SessionStore:
    """Return the store of a URL, always the same one, so that sessions in memory outlive a test's other settings."""
    return urls.open_store(url)


def _no_application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    raise AssertionError("Django answers the requests")


def _forget(*, setting: str, **_: object) -> None:
    if setting.startswith(("PRISM_SESSION_", "SESSION_COOKIE_")):
        _site.cache_clear()


setting_changed.connect(_forget)
