"""Retrying: how often, for how long, and with which pauses between."""

import math
import secrets
import time
from collections.abc import Iterator
from contextvars import ContextVar

repetitions: ContextVar[int] = ContextVar("repetitions", default=0)
"""How many further attempts this thread (or greenlet) has made so far, for the one that counts them."""


def attempts(limit: int, *, seconds: float = math.inf, longest_ms: int = 50) -> Iterator[int]:
    """Yield the number of each attempt, from 0; stop after `limit` of them, or when `seconds` have gone by.

    The caller leaves the loop where an attempt succeeds. Before each further one there is a pause: see `pause`.
    """
    deadline = time.monotonic() + seconds
    for number in range(limit):
        if number:
            if time.monotonic() > deadline:
                return
            pause(number - 1, longest_ms=longest_ms)
            repetitions.set(repetitions.get() + 1)
        yield number


def pause(attempt: int, *, longest_ms: int = 50) -> None:
    """Sleep up to 1 ms at first, later up to `longest_ms`, for a random time so that rivals part."""
    longest = min(longest_ms, 2**attempt)
    time.sleep(secrets.randbelow(1000 * longest) / 1_000_000)
