"""Readable names of clients: the browser and the system in a user agent."""

from typing import NamedTuple

from ua_parser import parse

_SYSTEMS = {"Mac OS X": "macOS"}


class Browser(NamedTuple):
    """The browser and the system, None if unknown. A user agent may hold any text: escape them."""

    name: str | None
    system: str | None


def browser_of(user_agent: str) -> Browser:
    """Return the browser and the system in a user agent."""
    found = parse(user_agent)
    system = found.os.family if found.os else None
    return Browser(found.user_agent.family if found.user_agent else None, _SYSTEMS.get(system or "", system))
