"""Sessions in Redis or Valkey."""

from prism_wsgi.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
