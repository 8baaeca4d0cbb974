"""The progress of a command, in lines on standard error."""

import sys
import time
from collections.abc import Callable

import click

SECONDS_BETWEEN_LINES = 1.0


class Progress:
    """A writer of progress: the first line at once, then at most one a second, and the last line.

    `wanted`: whether to write anything; None writes to a terminal only.
    """

    def __init__(self, wanted: bool | None, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._is_shown = sys.stderr.isatty() if wanted is None else wanted
        self._timer = timer
        self._next_line = 0.0
        self._unwritten = ""

    def show(self, line: str) -> None:
        """Take the progress so far."""
        self._unwritten = line
        if self._timer() >= self._next_line:
            self._write()

    def done(self) -> None:
        """Write what has not been written yet; the next line then comes at once."""
        if self._unwritten:
            self._write()
        self._next_line = 0.0

    def _write(self) -> None:
        if self._is_shown:
            click.echo(self._unwritten, err=True)
        self._unwritten = ""
        self._next_line = self._timer() + SECONDS_BETWEEN_LINES
