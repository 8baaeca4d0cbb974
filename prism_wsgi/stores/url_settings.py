"""Settings of a store in the query of its URL."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from urllib.parse import unquote_plus

from prism_wsgi.errors import ConfigError
from prism_wsgi.stores import text_values

DEFAULT_TABLE_NAME = "prism_sessions"

_InitT = TypeVar("_InitT", bound=Callable[..., None])


def takes_settings_in_url(initialize: _InitT) -> _InitT:
    """Read the settings of a store from the query of its URL, the first argument of its `__init__`.

    A keyword argument overrides the URL.
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
    """Return the URL without the settings in its query, and these settings as keyword arguments.

    Settings are the parameters of `initialize` that have a default. The rest of the query belongs to the driver and
    stays as it is. Raises ConfigError for a text that cannot be read.
    """
    # The last "?", since a password may hold another one.
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
            raise ConfigError(f"{name} may stand only once in the URL of a store")
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
