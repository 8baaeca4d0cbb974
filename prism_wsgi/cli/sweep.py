"""`prism-wsgi sweep`: delete what has expired; from cron, or as a daemon."""

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from json import dumps
from types import FrameType

import click

from prism_wsgi.cli.options import database_options, json_option, open_store, option
from prism_wsgi.cli.text import explain, instant
from prism_wsgi.clock import system_clock
from prism_wsgi.errors import StoreError
from prism_wsgi.stores.base import CountingStore, StoreStats
from prism_wsgi.sweeper import DEFAULT_BATCH_SIZE, SQLITE_BATCH_SIZE, SweepEnd, Sweeper, SweepResult


class SweepExit(IntEnum):
    """What the command exits with."""

    CLEAN = 0
    FAILED = 1
    UNFINISHED = 3


@click.command
@database_options
@option(
    "--batch-size",
    type=click.IntRange(min=1),
    help=f"How many sessions go in one transaction.  [default: {DEFAULT_BATCH_SIZE}; {SQLITE_BATCH_SIZE} for SQLite]",
)
@option("--max-seconds", type=click.FloatRange(min=0), help="End a sweep after this time, finished or not.")
@option(
    "--pause", type=click.FloatRange(min=0), default=0, show_default=True, help="Seconds to wait between batches."
)
@option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="Spare what expired in the last so many seconds.",
)
@option("--dry-run", is_flag=True, help="Say how many would go; delete nothing.")
@option("--every", type=click.FloatRange(min=0, min_open=True), help="Sweep again after so many seconds, for ever.")
@option("--jitter", type=click.FloatRange(min=0), help="With --every: wait up to so many seconds more, at random.")
@json_option
@option("--progress/--no-progress", default=None, help="Count on standard error.  [default: if that is a terminal]")
@click.pass_context
def sweep(
    context: click.Context,
    url: str,
    table_name: str,
    batch_size: int | None,
    max_seconds: float | None,
    pause: float,
    older_than: float,
    dry_run: bool,
    every: float | None,
    jitter: float | None,
    json: bool,
    progress: bool | None,
) -> None:
    """Delete expired sessions in batches.

    Prints one line at the end. Each batch is a short transaction of its own, and any number of sweeps may run at
    once. SIGTERM and Ctrl-C let the batch under way finish; a second one does not.

    \b
    Exit codes:
      0  what had expired is gone; with --every: stopped by a signal; with --dry-run: counted
      1  the database failed, also when a batch was repeated (--every reports it and goes on)
      2  wrong usage
      3  ended by --max-seconds or a signal before everything was gone
    """
    if every is None and jitter is not None:
        raise click.UsageError("--jitter is for --every; give both or neither")
    if every is not None and dry_run:
        raise click.UsageError("--dry-run counts once; leave out --every")
    # By a clock that is behind, so that what the store counts as expired is what this sweep is to delete.
    with open_store(url, table_name, clock=lambda: system_clock() - older_than) as store:
        if dry_run:
            _print_count(store.stats(), json)
            return
        default = SQLITE_BATCH_SIZE if store.engine.dialect.name == "sqlite" else DEFAULT_BATCH_SIZE
        stop = threading.Event()
        sweeper = Sweeper(
            store,
            batch_size=batch_size or default,
            pause=pause,
            older_than=older_than,
            max_seconds=max_seconds,
            stop=stop,
        )
        shows_progress = sys.stderr.isatty() if progress is None else progress
        report = _Report(store, as_json=json, shows_progress=shows_progress)

        def work() -> SweepExit:
            if every is None:
                result = sweeper.sweep(report.progress)
                report.result(result)
                return _exit_code(result)
            sweeper.sweep_every(every, report.result, jitter=jitter or 0, on_batch=report.progress)
            return SweepExit.CLEAN

        code = _run_until_signal(work, stop)
    context.exit(code)


def _run_until_signal(work: Callable[[], int], stop: threading.Event) -> int:
    """Run `work`, and set `stop` at SIGTERM or SIGINT."""

    def on_signal(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # In a thread of its own: a handler runs in the main thread, and if that were inside stop.wait() with the
        # event's lock in hand, stop.set() would wait for it for ever.
        with ThreadPoolExecutor(max_workers=1) as worker:
            return worker.submit(work).result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(result: SweepResult) -> SweepExit:
    if result.end is SweepEnd.COMPLETE:
        return SweepExit.CLEAN
    return SweepExit.FAILED if result.end is SweepEnd.FAILED else SweepExit.UNFINISHED


class _Report:
    """Prints how a sweep goes on, and what came of it."""

    def __init__(self, store: CountingStore, *, as_json: bool, shows_progress: bool) -> None:
        self._store = store
        self._as_json = as_json
        self._shows_progress = shows_progress

    def progress(self, deleted: int, batches: int) -> None:
        if self._shows_progress:
            click.echo(f"\r{deleted} deleted in {_count(batches)}", nl=False, err=True)

    def result(self, result: SweepResult) -> None:
        if self._shows_progress and result.batches:
            click.echo(err=True)
        if result.error is not None:
            click.echo(f"Error: {explain(result.error)}", err=True)
        oldest = self._oldest_remaining(result)
        click.echo(_json_summary(result, oldest) if self._as_json else _summary(result, oldest))

    def _oldest_remaining(self, result: SweepResult) -> str | None:
        # Counting reads the whole table: not while somebody waits for the end, nor after a failure.
        if result.end is SweepEnd.TIME_UP:
            with suppress(StoreError):
                return _oldest(self._store.stats())
        return None


def _summary(result: SweepResult, oldest: str | None) -> str:
    none_left = "none" if result.end is SweepEnd.COMPLETE else "not known"
    return (
        f"{result.end.replace('_', ' ')}: {result.deleted} deleted in {_count(result.batches)}, "
        f"{result.rows_per_second:.0f} rows/s, oldest remaining: {oldest or none_left}"
    )


def _json_summary(result: SweepResult, oldest: str | None) -> str:
    return dumps(
        {
            "end": result.end,
            "deleted": result.deleted,
            "batches": result.batches,
            "seconds": round(result.seconds, 3),
            "rows_per_second": round(result.rows_per_second, 1),
            "oldest_remaining": oldest,
        }
    )


def _print_count(stats: StoreStats, json: bool) -> None:
    oldest = _oldest(stats)
    if json:
        click.echo(dumps({"would_delete": stats.expired, "oldest": oldest}))
    else:
        click.echo(f"{stats.expired} would be deleted, the oldest: {oldest or 'none'}")


def _oldest(stats: StoreStats) -> str | None:
    return None if stats.oldest_expired is None else instant(stats.oldest_expired)


def _count(batches: int) -> str:
    return f"{batches} batch" if batches == 1 else f"{batches} batches"
