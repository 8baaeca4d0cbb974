"""Settings written as text, as in an ini file, read into what SessionMiddleware takes.

How a text is read follows from the type of the setting, so every setting of the middleware can be written as text:
numbers of seconds or bytes, `true` and `false`, one secret a line. Of objects, the name is written:
`package.module:name`.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from prism_wsgi.errors import ConfigError
from prism_wsgi.setting_types import MiddlewareOptions
from prism_wsgi.stores.urls import is_redis

_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_settings(settings: Mapping[str, Any], *, prefix: str = "") -> MiddlewareOptions:
    """Return the settings whose names begin with `prefix`, as keyword arguments of SessionMiddleware.

    Values that are no text are taken as they are. Raises ConfigError for a name that is no setting and for a
    text that cannot be read.
    """
    options: dict[str, object] = {}
    for name, value in settings.items():
        if name.startswith(prefix):
            reader = _reader(name, name.removeprefix(prefix), prefix)
            options[name.removeprefix(prefix)] = reader(name, value.strip()) if isinstance(value, str) else value
    return cast(MiddlewareOptions, options)


def _reader(name: str, setting: str, prefix: str) -> Callable[[str, str], object]:
    known = get_type_hints(MiddlewareOptions)
    if setting not in known:
        nearest = get_close_matches(setting, known, n=1, cutoff=0)[0]
        raise ConfigError(f"{name} is not a setting; did you mean {prefix}{nearest}?")
    if setting == "store":
        return _store
    types = get_args(known[setting]) if get_origin(known[setting]) is UnionType else (known[setting],)
    if bool in types:
        return _flag
    if int in types or float in types:
        return _number
    if any(get_origin(one) is Sequence for one in types):
        return _lines
    return _text if str in types else _named


def _text(name: str, text: str) -> str:
    return text


def _flag(name: str, text: str) -> bool:
    # Frameworks read any unknown word as false, which turns `secure = ture` off.
    if text.lower() not in _FLAGS:
        raise ConfigError(f"{name} must be true or false, not {text!r}")
    return _FLAGS[text.lower()]


def _number(name: str, text: str) -> float:
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {text!r}") from None


def _lines(name: str, text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"{name} must not be empty; write one or more, each on a line of its own")
    return lines


def _store(name: str, text: str) -> object:
    if text == "memory":
        return None
    if is_redis(text):
        from prism_wsgi import RedisStore

        return RedisStore(text)
    if "://" in text:
        from prism_wsgi import SQLAlchemyStore

        return SQLAlchemyStore(text)
    if ":" not in text:
        raise ConfigError(
            f"{name} must be a URL of a database or of Redis, the word memory, or the name of a store of yours "
            f"written package.module:name, not {text!r}"
        )
    return _named(name, text)


def _named(name: str, text: str) -> object:
    """Return the object that `package.module:name` names; of a class, an instance."""
    module, _, attributes = text.partition(":")
    try:
        named: Any = import_module(module)
        for attribute in attributes.split("."):
            named = getattr(named, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{name} must name an object as package.module:name; {text!r} names none: {error}"
        ) from error
    return named() if isinstance(named, type) else named
