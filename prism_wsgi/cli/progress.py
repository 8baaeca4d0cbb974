"""How far a sweep has come, on standard error: a bar on a terminal, where rich is installed, and else lines."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 1.0


class Progress(Protocol):
    """Shows how far one sweep after the other has come."""

    def batch(self, deleted: int, batches: int) -> None:
        """Show what the sweep under way has done so far."""
        ...

    def done(self) -> None:
        """End what was shown of the sweep."""
        ...


class NoProgress:
    """Shows nothing."""

    def batch(self, deleted: int, batches: int) -> None:
        pass

    def done(self) -> None:
        pass


class Lines:
    """Writes a line after the first batch, one a second at most from then on, and one after the last."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._next_line = 0.0
        self._unwritten = ""

    def batch(self, deleted: int, batches: int) -> None:
        self._unwritten = f"{deleted} deleted in {count(batches)}"
        if batches == 1 or self._timer() >= self._next_line:
            self._write()

    def done(self) -> None:
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        click.echo(self._unwritten, err=True)
        self._unwritten = ""
        self._next_line = self._timer() + SECONDS_BETWEEN_LINES


class Bar:
    """Draws a bar that is full when everything that had expired is gone. Raises ImportError without rich."""

    def __init__(self, expired: Callable[[], int]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("sweeping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._shown = RichProgress(*columns, console=Console(stderr=True))
        self._expired = expired
        self._task: TaskID | None = None

    def batch(self, deleted: int, batches: int) -> None:  # noqa: ARG002
        if self._task is None:
            self._task = self._shown.add_task("", total=deleted + self._expired())
            self._shown.start()
        self._shown.update(self._task, completed=deleted)

    def done(self) -> None:
        if self._task is not None:
            self._shown.stop()
            self._shown.remove_task(self._task)
            self._task = None


def progress(wanted: bool | None, expired: Callable[[], int]) -> Progress:
    """Return what is to be shown; None: a bar or lines on a terminal, nothing elsewhere.

    `expired` counts what still waits for the sweep.
    """
    is_terminal = sys.stderr.isatty()
    if not (is_terminal if wanted is None else wanted):
        return NoProgress()
    if is_terminal:
        try:
            return Bar(expired)
        except ImportError:
            pass  # the extra "progress" brings it
    return Lines()


def count(batches: int) -> str:
    """Return a number of batches as text."""
    return f"{batches} batch" if batches == 1 else f"{batches} batches"
