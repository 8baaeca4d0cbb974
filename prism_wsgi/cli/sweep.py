"""`prism-wsgi sweep`: the deletion of expired sessions, from cron or as a daemon."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from enum import IntEnum
from json import dumps
from types import FrameType

import click

from prism_wsgi.cli.options import database_options, json_option, open_database, option
from prism_wsgi.cli.progress import Progress
from prism_wsgi.cli.text import batches, explain, instant
from prism_wsgi.clock import milliseconds, system_clock
from prism_wsgi.errors import SchemaMissing
from prism_wsgi.observers.audit import DEFAULT_KEEP, AuditTrail
from prism_wsgi.stores.base import BacklogStore
from prism_wsgi.sweeper import DEFAULT_BATCH_SIZE, SweepEnd, Sweeper, SweepResult

LOOK_SECONDS = 1.0
"""How late a signal may be noticed."""


class SweepExit(IntEnum):
    """The command's exit codes."""

    CLEAN = 0
    FAILED = 1
    UNFINISHED = 3


@click.command
@database_options
@option(
    "--target-ms",
    type=click.FloatRange(min=0, min_open=True),
    help=(
        "The milliseconds that one transaction should take; the size of batches follows it.  [default: 2 for "
        "PostgreSQL, 12 for SQLite, 1 for MariaDB and MySQL]"
    ),
)
@option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=DEFAULT_BATCH_SIZE,
    show_default=True,
    help="The largest number of sessions in one transaction.",
)
@option("--max-seconds", type=click.FloatRange(min=0), help="End a sweep after this time, finished or not.")
@option(
    "--pause",
    type=click.FloatRange(min=0),
    help=(
        "Seconds to wait between batches.  [default: none for PostgreSQL; a fifth of the batch's time for SQLite, "
        "five times the batch's time for MariaDB and MySQL]"
    ),
)
@option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="Spare sessions that expired within this many seconds.",
)
@option(
    "--keep-events",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_KEEP,
    show_default=True,
    metavar="DAYS",
    help="Delete events of the audit trail that are older than this.",
)
@option("--dry-run", is_flag=True, help="Count what would be deleted; delete nothing.")
@option("--every", type=click.FloatRange(min=0, min_open=True), help="Sweep again after this many seconds, for ever.")
@option("--jitter", type=click.FloatRange(min=0), help="With --every: wait up to this many seconds more, at random.")
@json_option
@option(
    "--progress/--no-progress",
    "show_progress",
    default=None,
    help="Show the progress on standard error.  [default: if that is a terminal]",
)
@click.pass_context
def sweep(
    context: click.Context,
    url: str,
    table_name: str | None,
    target_ms: float | None,
    batch_size: int,
    max_seconds: float | None,
    pause: float | None,
    older_than: float,
    keep_events: float,
    dry_run: bool,
    every: float | None,
    jitter: float | None,
    json: bool,
    show_progress: bool | None,
) -> None:
    """Delete expired sessions, and old events of the audit trail, in batches.

    Prints one line at the end. Each batch is a short transaction, and any number of sweeps may run at once. At
    SIGTERM or Ctrl-C the command finishes its current batch; a second signal ends it at once.

    \b
    Exit codes:
      0  all expired sessions are deleted; with --every: stopped by a signal; with --dry-run: counted
      1  the database failed, and so did the retries (--every reports it and goes on)
      2  wrong usage
      3  ended by --max-seconds or a signal before all expired sessions were deleted
    """
    if every is None and jitter is not None:
        raise click.UsageError("--jitter is for --every; give both or neither")
    if every is not None and dry_run:
        raise click.UsageError("--dry-run counts once; leave out --every")
    with open_database(url, table_name) as store:
        if dry_run:
            _print_count(store, milliseconds(system_clock, ago=older_than), json)
            return
        stopping = threading.Event()
        sweeper = Sweeper(
            store,
            batch_size=batch_size,
            target_ms=target_ms,
            pause=pause,
            older_than=older_than,
            max_seconds=max_seconds,
            stopping=stopping,
        )
        trail_sweeper = Sweeper(
            AuditTrail(store, keep=keep_events),
            batch_size=batch_size,
            target_ms=target_ms,
            max_seconds=max_seconds,
            pause=pause,
            stopping=stopping,
        )
        progress = Progress(show_progress)

        def on_batch(deleted: int, number: int) -> None:
            progress.show(f"{deleted} deleted in {batches(number)}")

        def report(result: SweepResult) -> SweepExit:
            trail = None if stopping.is_set() else trail_sweeper.sweep()
            progress.done()
            # A database of an earlier release has no table of events to sweep.
            failed = None if trail is None or isinstance(trail.error, SchemaMissing) else trail.error
            for error in (result.error, failed):
                if error is not None:
                    click.echo(f"Error: {explain(error)}", err=True)
            click.echo(_json_summary(result) if json else _summary(result))
            return SweepExit.FAILED if failed is not None else _exit_code(result)

        def work() -> SweepExit:
            if every is None:
                return report(sweeper.sweep(on_batch))
            sweeper.sweep_every(every, report, jitter=jitter or 0, on_batch=on_batch)
            return SweepExit.CLEAN

        code = run_until_signal(work, stopping)
    context.exit(code)


def run_until_signal(work: Callable[[], int], stopping: threading.Event) -> int:
    """Run `work`, and set `stopping` at SIGTERM or SIGINT."""

    def on_signal(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # In another thread: a handler runs in the main thread. If that were inside stopping.wait() and held the
        # event's lock, set() would wait for it for ever.
        with ThreadPoolExecutor(max_workers=1) as worker:
            working = worker.submit(work)
            # A signal that comes when this thread is about to wait interrupts nothing, and its handler would run when
            # the wait is over. So no wait is long.
            while not wait([working], timeout=LOOK_SECONDS).done:
                pass
            return working.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(result: SweepResult) -> SweepExit:
    if result.end is SweepEnd.COMPLETE:
        return SweepExit.CLEAN
    return SweepExit.FAILED if result.end is SweepEnd.FAILED else SweepExit.UNFINISHED


def _summary(result: SweepResult) -> str:
    return (
        f"{result.end.replace('_', ' ')}: {result.deleted} deleted in {batches(result.batches)}, "
        f"{result.rows_per_second:.0f} rows/s, oldest remaining: "
        + ("not known" if result.error else _oldest(result.oldest_remaining) or "none")
    )


def _json_summary(result: SweepResult) -> str:
    return dumps(
        {
            "end": result.end,
            "deleted": result.deleted,
            "batches": result.batches,
            "seconds": round(result.seconds, 3),
            "rows_per_second": round(result.rows_per_second, 1),
            "oldest_remaining": _oldest(result.oldest_remaining),
        }
    )


def _print_count(store: BacklogStore, before: int, json: bool) -> None:
    expired, oldest = store.count_expired(before), _oldest(store.oldest_expired(before))
    if json:
        click.echo(dumps({"would_delete": expired, "oldest": oldest}))
    else:
        click.echo(f"{expired} would be deleted, the oldest: {oldest or 'none'}")


def _oldest(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else instant(milliseconds)
