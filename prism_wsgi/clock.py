"""Time: the application server's clock, in UTC and injectable, and the pause between attempts."""

import secrets
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns Unix seconds, as `time.time` does."""


def system_clock() -> float:
    """Return the current Unix time in seconds."""
    return time.time()


def pause(attempt: int) -> None:
    """Sleep before the next attempt: up to 1 ms at first, up to 50 ms later, at random so that rivals part."""
    longest = min(50, 2**attempt)
    time.sleep(secrets.randbelow(1000 * longest) / 1_000_000)
