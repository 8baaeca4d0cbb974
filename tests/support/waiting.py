"""The way tests wait: until something has happened, however long this machine takes for it."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 120
"""Seconds after which only a hang explains that something has not happened; a busy machine stays far below.

TCP alone takes 127 seconds to give up connecting, so a call that ends within this time was not left to TCP.
"""

_FoundT = TypeVar("_FoundT")


def eventually(
    find: Callable[[], _FoundT], complaint: str | Callable[[], str] = "it did not happen", *, pause: float = 0.01
) -> _FoundT:
    """Call `find` until what it returns is true, with a pause of so many seconds in between, and return that.

    Raises AssertionError with the complaint after PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := find()):
        assert time.monotonic() < deadline, complaint() if callable(complaint) else complaint
        time.sleep(pause)
    return found
