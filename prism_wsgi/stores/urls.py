"""Where sessions are: the table's name, and which addresses lead to a Redis. Light, where the stores are not."""

DEFAULT_TABLE_NAME = "prism_sessions"

_REDIS_URLS = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")


def is_redis(url: str) -> bool:
    """Tell whether a URL is for RedisStore; any other is a database's."""
    return url.startswith(_REDIS_URLS)
