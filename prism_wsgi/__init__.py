"""Server-side sessions for any WSGI application, behind a signed cookie."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from prism_wsgi.cookies import Cookie, SameSite
from prism_wsgi.errors import (
    ConfigError,
    InsecureSecretWarning,
    InvalidCookie,
    NotLoggedIn,
    PrismError,
    ResponseStarted,
    SchemaMissing,
    SerializationError,
    SessionConflict,
    SessionExists,
    SessionGone,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from prism_wsgi.events import Client
from prism_wsgi.http import Request, Response, get_session
from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.session import Session
from prism_wsgi.stores.base import SessionStore, StoredSession
from prism_wsgi.stores.memory import MemoryStore

if TYPE_CHECKING:
    from prism_wsgi.stores.redis import RedisStore
    from prism_wsgi.stores.sql import SQLAlchemyStore

__all__ = [
    "Client",
    "ConfigError",
    "Cookie",
    "InsecureSecretWarning",
    "InvalidCookie",
    "MemoryStore",
    "NotLoggedIn",
    "PrismError",
    "RedisStore",
    "Request",
    "Response",
    "ResponseStarted",
    "SQLAlchemyStore",
    "SameSite",
    "SchemaMissing",
    "SerializationError",
    "Session",
    "SessionConflict",
    "SessionExists",
    "SessionGone",
    "SessionMiddleware",
    "SessionStore",
    "SessionTooLarge",
    "StoreError",
    "StoreUnavailable",
    "StoredSession",
    "get_session",
]

if find_spec("redis") is None:
    del __all__[__all__.index("RedisStore")]  # so that `from prism_wsgi import *` works without redis-py


def __getattr__(name: str) -> Any:
    # SQLAlchemy takes 340 ms to import, so it is imported at its first use.
    if name == "SQLAlchemyStore":
        from prism_wsgi.stores.sql import SQLAlchemyStore

        return SQLAlchemyStore
    if name == "RedisStore":
        from prism_wsgi.stores.redis import RedisStore

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
