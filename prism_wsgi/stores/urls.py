"""The store that a URL names, and its settings in the URL's query. A store is imported when it is opened."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from urllib.parse import unquote_plus

from prism_wsgi import text_values
from prism_wsgi.clock import Clock
from prism_wsgi.cookies import MAX_AGE_LIMIT
from prism_wsgi.errors import ConfigError

if TYPE_CHECKING:
    from prism_wsgi.stores.memory import MemoryStore
    from prism_wsgi.stores.redis import RedisStore
    from prism_wsgi.stores.sql import SQLAlchemyStore

DEFAULT_TABLE_NAME = "prism_sessions"

_REDIS_SCHEMES = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})

_InitT = TypeVar("_InitT", bound=Callable[..., None])


def open_store(
    url: str,
    *,
    table_name: str | None = None,
    timeout: float | None = None,
    clock: Clock | None = None,
) -> "MemoryStore | SQLAlchemyStore | RedisStore":
    """Return the store that a URL names: `memory`, a Redis, or else a database; nothing is connected yet.

    Each setting of the store may stand in the URL's query under its name: `?timeout=2&table_name=web`. What is given
    here counts more, where the store has such a setting. Raises ConfigError for a URL or a setting that cannot work,
    and for a store whose package is not installed.
    """
    given = {"table_name": table_name, "timeout": timeout, "clock": clock}
    if is_memory(url):
        from prism_wsgi.stores.memory import MemoryStore

        _, own = split_settings(url, MemoryStore.__init__)
        # It must not cut short the sessions that live longer than `ttl` by their own wish.
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


def takes_settings_in_url(initialize: _InitT) -> _InitT:
    """Let each setting of a store stand in the query of the URL, which is the first argument of its `__init__`.

    A keyword counts more than the URL.
    """
    signature = inspect.signature(initialize)
    address = list(signature.parameters)[1]

    @wraps(initialize)
    def initialize_by_url(*given: Any, **keywords: Any) -> None:
        arguments = signature.bind(*given, **keywords).arguments
        if isinstance(arguments[address], str):
            arguments[address], own = split_settings(arguments[address], initialize)
            arguments = {**own, **arguments}
        initialize(**arguments)

    return cast(_InitT, initialize_by_url)


def split_settings(url: str, initialize: Callable[..., None]) -> tuple[str, dict[str, Any]]:
    """Return the URL without the settings that stand in its query, and these settings as keyword arguments.

    Settings are the parameters of `initialize` that have a default. The rest of the query is the driver's and stays
    as it is. Raises ConfigError for a text that cannot be read.
    """
    # The last "?": one that stands unencoded in a password comes before.
    place, separator, query = url.rpartition("?")
    if not separator:
        return url, {}
    readers = _readers(initialize)
    own: dict[str, Any] = {}
    others = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        name = unquote_plus(name)
        if name not in readers:
            others.append(part)
        elif name in own:
            raise ConfigError(f"{name} must stand once in the URL of a store")
        else:
            own[name] = readers[name](f"{name} in the URL", unquote_plus(value))
    return (f"{place}?{'&'.join(others)}" if others else place), own


def _readers(initialize: Callable[..., None]) -> dict[str, Callable[[str, str], object]]:
    hints = get_type_hints(initialize)
    parameters = inspect.signature(initialize).parameters.values()
    return {one.name: _reader(hints[one.name]) for one in parameters if one.default is not one.empty}


def _reader(hint: Any) -> Callable[[str, str], object]:
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if bool in types:
        return text_values.flag
    if int in types or float in types:
        return text_values.number
    return text_values.text if str in types else text_values.named


def _taken(given: dict[str, Any], store: type) -> dict[str, Any]:
    """Return those of the settings that are given and that a store has."""
    known = inspect.signature(store).parameters
    return {name: value for name, value in given.items() if value is not None and name in known}
