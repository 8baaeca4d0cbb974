"""Beaker's settings, converted to SessionMiddleware's; some are refused, with a reason."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from prism_wsgi.cookies import MAX_AGE_LIMIT
from prism_wsgi.errors import ConfigError
from prism_wsgi.setting_types import MiddlewareOptions
from prism_wsgi.text_settings import READERS, read_settings

PREFIXES = ("beaker.session.", "session.", "session_")  # Beaker's; the last is the oldest
OTHER_PREFIXES = ("beaker.cache.", "cache.")  # of Beaker's CacheMiddleware, often in the same section

RENAMED = {"key": "cookie_name", "cookie_path": "path", "cookie_domain": "domain"}
COMBINED = frozenset(
    {
        "type",
        "url",
        "timeout",
        "cookie_expires",
        "data_serializer",
        "validate_key",
        "auto",
        "save_accessed_time",
        "webtest_varname",
        "invalidate_corrupt",
    }
)
"""The settings that become another setting than the one of the same name, or none."""
IGNORED = frozenset({"data_dir", "lock_dir", "log_file", "crypto_type", "encrypt_nonce_bits"})
"""The settings of Beaker's files, and of its encryption, which has no effect without encrypt_key."""

_STORES = (
    "use session.type = ext:database with a session.url, or ext:redis, or memory; then run "
    "`prism-wsgi db upgrade` on a database"
)
_OWN_STORE = "pass store=SQLAlchemyStore(...) to SessionMiddleware instead of type, url and this"

REFUSED = {
    "encrypt_key": "set session.encryption_key, at least 32 random bytes: `prism-wsgi secret` makes one",
    "table_name": f"it names Beaker's table, but sessions are kept in another; leave it out, or {_OWN_STORE}",
    "schema_name": _OWN_STORE,
    "sa_opts": _OWN_STORE,
    "bind": _OWN_STORE,
    "table": _OWN_STORE,
    "namespace_class": "pass store=..., your object with load, save and destroy",
    "session_class": "wrap environ['beaker.session'] in your own middleware",
    "use_cookies": "only the visitor's cookie can name a session",
    "id": "only the server chooses ids",
    "cookie_name": "call it session.key",
    "ttl": "call it session.timeout",
    "path": "call it session.cookie_path",
    "domain": "call it session.cookie_domain",
    "persistent": "call it session.cookie_expires",
    "save_on_error": "as in Beaker, what is saved before the response begins is kept whatever its status",
    "environ_key": "pass it as the argument environ_key",
}
"""The settings that prism_wsgi does not have, or has under another name, and what to do."""

OURS = READERS.keys() - REFUSED.keys()

_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}


@dataclass(frozen=True, slots=True)
class BeakerSettings:
    """The settings for SessionMiddleware, and those of Beaker's that it does not have."""

    options: MiddlewareOptions = field(repr=False)
    auto: bool
    save_accessed_time: bool
    webtest_name: str | None


def read_beaker_settings(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> BeakerSettings:
    """Return the settings in `config`, which have a prefix, and in `arguments`, which need none.

    Raises ConfigError for a setting that is unknown, refused, or breaks its rule.
    """
    given = _given(config, arguments)
    _check_names(given)
    if not _flag("invalidate_corrupt", given.get("invalidate_corrupt", True)):
        raise ConfigError(
            "session.invalidate_corrupt must be true: a session that cannot be read counts as absent, and is "
            "logged as unreadable_data"
        )
    options: MiddlewareOptions = {"cookie_name": "beaker.session.id", "cookie_on": "write", "secure": False}
    if "validate_key" in given:
        options["secret"] = given["validate_key"]
    options |= _lifetimes(given)
    options |= _serializer(given.get("data_serializer", "json"))
    options |= _store(given.get("type"), given.get("url"))
    renamed = {RENAMED.get(name, name): value for name, value in given.items() if name not in COMBINED}
    options |= read_settings(renamed)
    return BeakerSettings(
        options,
        auto=_flag("auto", given.get("auto", False)),
        save_accessed_time=_flag("save_accessed_time", given.get("save_accessed_time", True)),
        webtest_name=given.get("webtest_varname"),
    )


def _given(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for key, value in config.items() if (name := _without_prefix(key)) is not None}
    for key, value in arguments.items():
        if not key.startswith(OTHER_PREFIXES):
            given[_without_prefix(key) or key] = value
    return {name: value for name, value in given.items() if name not in IGNORED and value is not None}


def _without_prefix(key: str) -> str | None:
    prefix = next((one for one in PREFIXES if key.startswith(one)), None)
    if prefix == PREFIXES[-1]:
        warnings.warn(f"{key}: begin it with session. instead of session_", DeprecationWarning, stacklevel=6)
    return None if prefix is None else key.removeprefix(prefix)


def _check_names(given: Mapping[str, Any]) -> None:
    for name in given:
        if name in REFUSED or name.startswith("sa."):
            raise ConfigError(f"session.{name} cannot be used: {REFUSED.get(name, _OWN_STORE)}")
        if name not in RENAMED and name not in COMBINED and name not in OURS:
            nearest = get_close_matches(name, [*RENAMED, *COMBINED, *IGNORED, *OURS], n=1)
            hint = f"; did you mean session.{nearest[0]}?" if nearest else ""
            raise ConfigError(f"session.{name} is not a setting{hint}")


def _store(kind: Any, url: Any) -> MiddlewareOptions:
    if kind is None and url is not None:
        raise ConfigError("session.url has no effect without session.type = ext:database or ext:redis")
    if kind is None or kind == "memory":
        return {}
    if kind == "cookie":
        raise ConfigError(f"session.type cannot be cookie: sessions are kept on the server; {_STORES}")
    if kind not in ("ext:database", "ext:redis"):
        raise ConfigError(f"session.type cannot be {kind!r}, which prism_wsgi does not have; {_STORES}")
    if url is None:
        raise ConfigError(f"session.url must be set with session.type = {kind}")
    if kind == "ext:redis" and not isinstance(url, str):
        from prism_wsgi import RedisStore

        return {"store": RedisStore(url)}
    return read_settings({"store": url})


def _serializer(value: Any) -> MiddlewareOptions:
    if value == "pickle":
        raise ConfigError(
            "session.data_serializer cannot be pickle: reading a pickle runs stored code; leave the setting out, "
            "since dates, sets, decimals and more are stored without it"
        )
    return {} if value == "json" else {"serializer": value}  # the default stores all that JSON can


def _lifetimes(given: Mapping[str, Any]) -> MiddlewareOptions:
    """Return a session's idle and absolute lifetimes, and whether its cookie outlives the browser's session.

    Beaker sets its cookie once, so a session cannot be reached for longer than `cookie_expires`. Without a `timeout`
    Beaker keeps sessions for ever, but browsers keep no cookie for more than 400 days.
    """
    timeout = _seconds("timeout", given.get("timeout", MAX_AGE_LIMIT))
    expires = _cookie_expires(given.get("cookie_expires", True))
    if isinstance(expires, bool):
        return {"ttl": timeout, "persistent": not expires}
    return {"ttl": min(timeout, expires), "max_lifetime": expires, "persistent": True}


def _cookie_expires(value: Any) -> bool | int:
    """Return seconds, True for a cookie that ends with the browser's session, or False for one without an end."""
    if isinstance(value, bool) or (isinstance(value, str) and not value.strip().isdecimal()):
        return _flag("cookie_expires", value)
    if isinstance(value, timedelta | int | str):
        return _seconds("cookie_expires", value)
    raise ConfigError("session.cookie_expires must be true, false, seconds or a timedelta, not a date")


def _seconds(name: str, value: Any) -> int:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise ConfigError(f"session.{name} must be a positive number of seconds, not {value!r}")
    return min(int(value), MAX_AGE_LIMIT)


def _flag(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _FLAGS:
        raise ConfigError(f"session.{name} must be true or false, not {value!r}")
    return _FLAGS[text]
