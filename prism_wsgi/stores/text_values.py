"""Readers of values that are written as text, in an ini file or in a URL's query, say.

Each function takes the setting's name, for the error message, and the text. It raises ConfigError for a text that it
cannot read.
"""

from importlib import import_module
from typing import Any

from prism_wsgi.errors import ConfigError

_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def text(name: str, value: str) -> str:  # noqa: ARG001 - called as the other readers are
    """Return the text as it is."""
    return value


def flag(name: str, value: str) -> bool:
    """Return True for `true`, `yes`, `on` and `1`, False for their opposites, in upper or lower case."""
    # Any other word is an error: frameworks read it as false, so that `secure = ture` turns Secure off.
    if value.lower() not in _FLAGS:
        raise ConfigError(f"{name} must be true or false, not {value!r}")
    return _FLAGS[value.lower()]


def number(name: str, value: str) -> float:
    """Return a number: an int unless it is written with a fraction or an exponent."""
    try:
        return int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {value!r}") from None


def lines(name: str, value: str) -> list[str]:
    """Return the lines that are not empty, at least one."""
    found = [line.strip() for line in value.splitlines() if line.strip()]
    if not found:
        raise ConfigError(f"{name} must not be empty; write one or more, each on its own line")
    return found


def named(name: str, value: str) -> object:
    """Return the object that `package.module:name` names, or an instance if it is a class."""
    module, _, attributes = value.partition(":")
    try:
        found: Any = import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{name} must name an object as package.module:name; {value!r} names none: {error}"
        ) from error
    return found() if isinstance(found, type) else found
