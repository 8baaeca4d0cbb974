"""Where sessions are: the table's name, and which addresses lead to a Redis. Light, where the stores are not."""

from typing import Any

DEFAULT_TABLE_NAME = "prism_sessions"

_REDIS_URLS = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")


def is_redis(url: str) -> bool:
    """Tell whether a URL is for RedisStore; any other is a database's."""
    return url.startswith(_REDIS_URLS)


def open_store(url: str) -> Any:
    """Return the store that a URL names."""
    from prism_wsgi import RedisStore, SQLAlchemyStore

    return RedisStore(url) if is_redis(url) else SQLAlchemyStore(url)
