"""What keeps the indexes of RedisStore small: each login removes old entries, its user's and a few others'.

Indexes have no TTL, so that no `volatile-*` policy evicts them. Those of users who never come back would stay for
ever if nobody looked for them.
"""

import re
from typing import Any

from prism_wsgi.stores.redis.server import Command

_LOOKED_AT = 5
"""How many keys a login looks at. It makes one index at most, so no more than a fifth of all keys are waiting."""


class Upkeep:
    """Remembers how far the look for indexes has come, whose names begin with `start`, and what it has found.

    Entries are old by the clock of the server, which is the one by which it forgets the sessions themselves. What it
    said at the last login is on the safe side. `margin` (ms) is how much longer an entry is kept.
    """

    def __init__(self, start: str, margin: int) -> None:
        self._pattern = glob(start)
        self._margin = margin
        self._cursor: bytes | int = 0
        self._found: list[bytes] = []
        self._now = 0

    def commands(self, index: bytes) -> list[Command]:
        """Return what a login adds to its commands, the last answers of which go to `note`; `index`: its user's."""
        # If the login fails, these indexes wait for the next time around.
        found, self._found = self._found, []
        old = f"({self._now - self._margin}"
        looking: Command = ("SCAN", self._cursor, "MATCH", self._pattern, "COUNT", _LOOKED_AT)
        return [*(("ZREMRANGEBYSCORE", each, "-inf", old) for each in (index, *found)), ("TIME",), looking]

    def note(self, answers: list[Any]) -> None:
        """Remember what the server has said. An error, say for lack of the right to look, is nothing."""
        *_, time, look = answers
        if isinstance(time, list) and isinstance(look, list):
            self._now = int(time[0]) * 1000
            self._cursor, self._found = look


def glob(start: str) -> str:
    """Return the pattern that matches what begins so."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
