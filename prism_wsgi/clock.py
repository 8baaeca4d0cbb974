"""The clock of the application server, which tests replace."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""A function that returns Unix seconds, as `time.time` does."""


def system_clock() -> float:
    """Return the current Unix time in seconds."""
    return time.time()


def milliseconds(clock: Clock, *, ago: float = 0.0) -> int:
    """Return a clock's time, or the time `ago` seconds before, in whole Unix milliseconds, the unit of stores."""
    return int((clock() - ago) * 1000)
