"""Settings written as text, in an ini file say, and converted to the arguments of SessionMiddleware.

Numbers are seconds or bytes, and flags are `true` or `false`. Several secrets or cookies stand one to a line. An
object or a function is written by its name, `package.module:name`.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, cast

from prism_wsgi.errors import ConfigError
from prism_wsgi.setting_types import MiddlewareOptions
from prism_wsgi.stores import text_values, urls


def _store(name: str, text: str) -> object:
    if urls.is_url(text):
        return urls.open_store(text)
    if ":" not in text:
        raise ConfigError(
            f"{name} must be a URL of a database or of Redis, the word memory, or the name of your store "
            f"written package.module:name, not {text!r}"
        )
    return text_values.named(name, text)


def _fallbacks(name: str, text: str) -> object:
    # No cookie has a colon in its name.
    return [text_values.named(name, one) if ":" in one else one for one in text_values.lines(name, text)]


def _record_client(name: str, text: str) -> object:
    return text if text == "readable" else text_values.flag(name, text)


def _observers(name: str, text: str) -> object:
    return [text_values.named(name, one) for one in text_values.lines(name, text)]


READERS: dict[str, Callable[[str, str], object]] = {
    "store": _store,
    "secret": text_values.lines,
    "cookie_name": text_values.text,
    "ttl": text_values.number,
    "max_lifetime": text_values.number,
    "touch_interval": text_values.number,
    "path": text_values.text,
    "domain": text_values.text,
    "secure": text_values.flag,
    "httponly": text_values.flag,
    "samesite": text_values.text,
    "partitioned": text_values.flag,
    "persistent": text_values.flag,
    "cookie_on": text_values.text,
    "max_size": text_values.number,
    "on_store_error": text_values.text,
    "save_on_error": text_values.flag,
    "serializer": text_values.named,
    "encryption_key": text_values.lines,
    "encryption": text_values.text,
    "read_unencrypted": text_values.flag,
    "record_client": _record_client,
    "client_address": text_values.named,
    "is_passive": text_values.named,
    "user_id_key": text_values.text,
    "max_sessions_per_user": text_values.number,
    "cookie_fallbacks": _fallbacks,
    "keep_fallbacks": text_values.flag,
    "observers": _observers,
    "environ_key": text_values.text,
    "clock": text_values.named,
}
"""The function that reads each setting of SessionMiddleware."""


def read_settings(settings: Mapping[str, Any], *, prefix: str = "") -> MiddlewareOptions:
    """Return the settings whose names begin with `prefix`, as keyword arguments of SessionMiddleware.

    Values that are not text are passed on unchanged. Raises ConfigError for a name that is no setting and for a text
    that cannot be read.
    """
    options: dict[str, object] = {}
    for name, value in settings.items():
        if name.startswith(prefix):
            setting = name.removeprefix(prefix)
            if setting not in READERS:
                nearest = get_close_matches(setting, READERS, n=1, cutoff=0)[0]
                raise ConfigError(f"{name} is not a setting; did you mean {prefix}{nearest}?")
            options[setting] = READERS[setting](name, value.strip()) if isinstance(value, str) else value
    return cast(MiddlewareOptions, options)
