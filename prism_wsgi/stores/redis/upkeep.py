"""What keeps the indexes of RedisStore small: each login removes old entries, its user's and a few others'.

Indexes have no TTL, so that no `volatile-*` policy evicts them. Those of users who never come back would stay for
ever if nobody looked for them.
"""

import re
from typing import Any

from prism_wsgi.stores.redis.scripts import PURGE
from prism_wsgi.stores.redis.server import Command

_LOOKED_AT = 20
"""How many keys a login looks at, and makes two at most: so the look gets around."""


class Upkeep:
    """Remembers how far the look for indexes has come, which is `<start>*`, and what it has found."""

    def __init__(self, start: str, margin: int) -> None:
        self._pattern = glob(start)
        self._margin = margin
        self._cursor: bytes | int = 0
        self._found: list[bytes] = []

    def commands(self, key: bytes) -> list[Command]:
        """Return what a login adds to its commands, and gives the last answer of to `note`; `key`: of its index."""
        # If the login fails, these indexes wait for the next time around.
        found, self._found = self._found, []
        looking: Command = ("SCAN", self._cursor, "MATCH", self._pattern, "COUNT", _LOOKED_AT)
        return [*((PURGE, each, self._margin) for each in (key, *found)), looking]

    def note(self, answer: Any) -> None:
        """Remember what the look has found. An error, say for lack of the right to look, is nothing."""
        if isinstance(answer, list):
            self._cursor, self._found = answer


def glob(start: str) -> str:
    """Return the pattern that matches what begins so."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
