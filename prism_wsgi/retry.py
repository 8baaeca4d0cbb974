"""Retries: their number, their total time, and the pauses between them."""

import math
import secrets
import time
from collections.abc import Iterator
from contextvars import ContextVar

repetitions: ContextVar[int] = ContextVar("repetitions", default=0)
"""The number of retries in this thread (or greenlet) so far; compare it before and after a call."""


def attempts(limit: int, *, seconds: float = math.inf, longest_ms: int = 50) -> Iterator[int]:
    """Yield the number of each attempt, from 0; stop after `limit` of them, or when `seconds` have gone by.

    The caller leaves the loop when an attempt succeeds. `pause` is called before each further attempt.
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
    """Sleep for a random time, up to 1 ms at first and up to `longest_ms` later, so that rivals do not meet again."""
    longest = min(longest_ms, 2**attempt)
    time.sleep(secrets.randbelow(1000 * longest) / 1_000_000)
