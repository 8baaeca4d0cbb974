"""The upkeep of RedisStore's indexes: each login removes old entries, its user's and a few other users'.

Indexes have no TTL, so that no `volatile-*` policy evicts them. Without upkeep, the indexes of users who never come
back would stay for ever.
"""

import re
from dataclasses import dataclass
from typing import Any

from prism_wsgi.stores.redis.nodes import Node
from prism_wsgi.stores.redis.server import Command

_LOOKED_AT = 5
"""How many keys a login looks at. A login makes at most one index, so at most a fifth of all keys are old indexes."""


@dataclass(slots=True)
class _Place:
    """The progress of the scan on one server: its cursor, the indexes found, and the server's last time (Unix ms)."""

    cursor: bytes | int = 0
    found: tuple[bytes, ...] = ()
    now: int = 0


class Upkeep:
    """The progress, on each server, of a scan for indexes, whose names begin with `start`.

    The server's clock decides which entries are old, since the same clock deletes the sessions. Its time at the last
    login is on the safe side. An entry is kept for `margin` ms longer.
    """

    def __init__(self, start: str, margin: int) -> None:
        self._pattern = glob(start)
        self._margin = margin
        self._places: dict[Node, _Place] = {}

    def commands(self, node: Node, index: bytes) -> list[Command]:
        """Return the commands that a login adds for the server of its user's `index`; pass the answers to `note`."""
        place = self._places.setdefault(node, _Place())
        # If the server fails, the next scan finds these indexes again.
        found, place.found = place.found, ()
        old = f"({place.now - self._margin}"
        looking: Command = ("SCAN", place.cursor, "MATCH", self._pattern, "COUNT", _LOOKED_AT)
        return [*(("ZREMRANGEBYSCORE", each, "-inf", old) for each in (index, *found)), ("TIME",), looking]

    def note(self, node: Node, answers: list[Any]) -> None:
        """Remember the last answers. A missing answer, or an error for a missing right to scan, is ignored."""
        *_, time, look = [None, None, *answers]
        if isinstance(time, list) and isinstance(look, list):
            cursor, found = look
            self._places[node] = _Place(cursor, tuple(found), int(time[0]) * 1000)


def glob(start: str) -> str:
    """Return the pattern that matches every name with this beginning."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
