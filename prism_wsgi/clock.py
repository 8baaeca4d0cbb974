"""Time: the application server's clock, in UTC and injectable."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns Unix seconds, as `time.time` does."""


def system_clock() -> float:
    """Return the current Unix time in seconds."""
    return time.time()


def milliseconds(clock: Clock) -> int:
    """Return what a clock says, in whole Unix milliseconds, as stores keep times."""
    return int(clock() * 1000)
