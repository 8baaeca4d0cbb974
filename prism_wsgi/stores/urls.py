"""The store that a URL names. A store is imported when it is opened."""

import inspect
from typing import TYPE_CHECKING, Any

from prism_wsgi.clock import Clock
from prism_wsgi.cookies import MAX_AGE_LIMIT
from prism_wsgi.errors import ConfigError
from prism_wsgi.stores.url_settings import split_settings

if TYPE_CHECKING:
    from prism_wsgi.stores.memory import MemoryStore
    from prism_wsgi.stores.redis import RedisStore
    from prism_wsgi.stores.sql import SQLAlchemyStore

_REDIS_SCHEMES = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})


def open_store(
    url: str,
    *,
    table_name: str | None = None,
    timeout: float | None = None,
    clock: Clock | None = None,
) -> "MemoryStore | SQLAlchemyStore | RedisStore":
    """Return the store that a URL names: `memory`, a Redis, or else a database; nothing is connected yet.

    Each setting of the store may stand in the URL's query under its name: `?timeout=2&table_name=web`. An argument
    overrides the URL, if the store has such a setting. Raises ConfigError for a URL or a setting that cannot work,
    and for a store whose package is not installed.
    """
    given = {"table_name": table_name, "timeout": timeout, "clock": clock}
    if is_memory(url):
        from prism_wsgi.stores.memory import MemoryStore

        _, own = split_settings(url, MemoryStore.__init__)
        # A session may choose a longer ttl than the configured one.
        return MemoryStore(**{"ttl": MAX_AGE_LIMIT, **own, **_taken(given, MemoryStore)})
    if is_redis(url):
        try:
            from prism_wsgi.stores.redis import RedisStore
        except ImportError as error:
            raise ConfigError(str(error)) from error
        return RedisStore(url, **_taken(given, RedisStore))
    from prism_wsgi.stores.sql import SQLAlchemyStore

    return SQLAlchemyStore(url, **_taken(given, SQLAlchemyStore))


def is_url(text: str) -> bool:
    """Tell a URL of a store from other text."""
    return "://" in text or is_memory(text)


def is_memory(url: str) -> bool:
    """Tell whether a URL is for MemoryStore: `memory` or `memory://`, perhaps with a query."""
    return url.partition("?")[0] in ("memory", "memory://")


def is_redis(url: str) -> bool:
    """Tell whether a URL is for RedisStore."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.partition("+")[0].lower() in _REDIS_SCHEMES


def _taken(given: dict[str, Any], store: type) -> dict[str, Any]:
    """Return the given settings that a store has."""
    known = inspect.signature(store).parameters
    return {name: value for name, value in given.items() if value is not None and name in known}
