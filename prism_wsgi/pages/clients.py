"""Clients, named for people: the browser and the system that a user agent tells of."""

from typing import NamedTuple

from ua_parser import parse

_SYSTEMS = {"Mac OS X": "macOS"}


class Browser(NamedTuple):
    """The browser and the system, None where they are not known. A user agent may say anything: escape them."""

    name: str | None
    system: str | None


def browser_of(user_agent: str) -> Browser:
    """Return the browser and the system that a user agent tells of."""
    found = parse(user_agent)
    system = found.os.family if found.os else None
    return Browser(found.user_agent.family if found.user_agent else None, _SYSTEMS.get(system or "", system))
