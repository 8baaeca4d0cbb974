"""A clock for tests."""

import time


class ManualClock:
    """A clock that stands still until it is moved: call it for Unix seconds, as `time.time`."""

    def __init__(self) -> None:
        # It begins at the real time, because a server may compare with that.
        self.seconds = float(int(time.time()))

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move the clock by this many seconds."""
        self.seconds += seconds
