"""`prism-wsgi sweep`: its options, its exit codes, and how it ends on a signal."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from prism_wsgi import migrate
from prism_wsgi.cli.sweep import run_until_signal
from tests.support.command_line import (
    HOUR,
    PROGRAM,
    environment,
    expired,
    keep,
    keep_expired,
    line_with,
    run,
    started,
)
from tests.support.waiting import PATIENCE, eventually

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


def wait_for_progress(process: "subprocess.Popen[str]") -> None:
    """Return when the first batch, of 10, is deleted; --pause holds up the next."""
    assert process.stderr is not None
    counted = ""
    while "10 deleted" not in counted:
        character = process.stderr.read(1)
        assert character, counted
        counted += character


def test_sweep_deletes_what_has_expired_and_sums_up(empty_url: str) -> None:
    keep_expired(empty_url, 250)
    one = keep(empty_url, 1)
    result = run("sweep", "--target-ms", "60000", "--batch-size", "100", "--url", empty_url)
    assert result.exit_code == 0
    assert result.stdout.startswith("complete: 250 deleted in 3 batches, ")
    assert result.stdout.endswith(" rows/s, oldest remaining: none\n")
    assert expired(empty_url) == 0
    assert one in run("sessions", "list", "--url", empty_url).stdout


def test_batches_grow_to_what_the_engine_does_in_the_time(empty_url: str) -> None:
    keep_expired(empty_url, 250)
    slow = json.loads(run("sweep", "--json", "--target-ms", "60000", "--url", empty_url).stdout)
    assert slow["batches"] == 3
    keep_expired(empty_url, 250)
    quick = json.loads(run("sweep", "--json", "--target-ms", "0.001", "--url", empty_url).stdout)
    assert quick["batches"] == 5


def test_dry_run_counts_and_deletes_nothing(empty_url: str) -> None:
    keep_expired(empty_url, 5)
    keep(empty_url, 1)
    result = run("sweep", "--dry-run", "--url", empty_url)
    assert result.exit_code == 0
    assert result.stdout.startswith("5 would be deleted, the oldest: 2")
    assert expired(empty_url) == 5


def test_older_than_spares_what_expired_lately_in_both_modes(url: str) -> None:
    keep_expired(url, 5, seconds_ago=3 * HOUR)
    keep(url, 1, expires_in=-60)
    options = ("--older-than", str(HOUR), "--json", "--url", url)
    assert json.loads(run("sweep", "--dry-run", *options).stdout)["would_delete"] == 5
    assert json.loads(run("sweep", *options).stdout)["deleted"] == 5
    assert expired(url) == 1


def test_sweep_without_time_enough_says_what_remains_and_exits_with_3(url: str) -> None:
    keep_expired(url, 30)
    result = run("sweep", "--max-seconds", "0", "--batch-size", "10", "--url", url)
    assert result.exit_code == 3
    assert result.stdout.startswith("time up: 10 deleted in 1 batch, ")
    assert "oldest remaining: 2" in result.stdout
    assert expired(url) == 20


def test_sweep_summarizes_itself_as_json(url: str) -> None:
    keep_expired(url, 3)
    summary = json.loads(run("sweep", "--json", "--url", url).stdout)
    assert summary.pop("seconds") > 0
    assert summary.pop("rows_per_second") > 0
    assert summary == {"end": "complete", "deleted": 3, "batches": 1, "oldest_remaining": None}


def test_failed_sweep_says_why_and_exits_with_1(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.db").touch()
    result = run("sweep", "--url", sqlite_url)
    assert result.exit_code == 1
    assert "`prism-wsgi db upgrade" in result.stderr
    assert result.stdout.startswith("failed: 0 deleted in 0 batches, ")


def test_progress_is_counted_on_standard_error_only_if_asked(url: str) -> None:
    keep_expired(url, 150)
    shown = run("sweep", "--progress", "--target-ms", "60000", "--batch-size", "50", "--url", url).stderr.splitlines()
    assert (shown[0], shown[-1]) == ("50 deleted in 1 batch", "150 deleted in 3 batches")
    assert run("sweep", "--url", url).stderr == ""


def on_a_terminal(url: str, cwd: Path) -> str:
    """Run a sweep whose standard error is a terminal; return what that shows."""
    terminal, end = pty.openpty()
    subprocess.run(
        [*PROGRAM, "sweep", "--url", url],
        cwd=cwd,
        env=environment(TERM="xterm"),
        stderr=end,
        timeout=PATIENCE,
        check=True,
    )
    os.close(end)
    shown = b""
    with suppress(OSError):  # how Linux tells the end
        while part := os.read(terminal, 1000):
            shown += part
    os.close(terminal)
    return shown.decode()


@pytest.mark.whole
def test_terminal_shows_how_far_a_sweep_has_come(url: str, tmp_path: Path) -> None:
    keep_expired(url, 150)
    shown = on_a_terminal(url, tmp_path).splitlines()
    assert shown[0] == "50 deleted in 1 batch"
    assert shown[-1].startswith("150 deleted in ")


@pytest.mark.parametrize(
    "options",
    [
        ("--jitter", "1"),
        ("--dry-run", "--every", "60"),
        ("--batch-size", "0"),
        ("--every", "0"),
        ("--target-ms", "0"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options: tuple[str, ...], url: str) -> None:
    assert run("sweep", *options, "--url", url).exit_code == 2


@pytest.mark.whole
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_a_pause_ends_the_sweep_with_its_summary(
    number: signal.Signals, url: str, tmp_path: Path
) -> None:
    keep_expired(url, 30)
    options = ("--batch-size", "10", "--pause", "3600", "--progress", "--url", url)
    with started("sweep", *options, cwd=tmp_path) as process:
        wait_for_progress(process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 3
        assert process.stdout is not None
        assert process.stdout.read().startswith("stopped: 10 deleted in 1 batch, ")
    assert expired(url) == 20


@pytest.mark.whole
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_the_daemon_well(number: signal.Signals, url: str, tmp_path: Path) -> None:
    keep_expired(url, 30)
    with started("sweep", "--every", "3600", "--jitter", "60", "--url", url, cwd=tmp_path) as process:
        line_with("complete: 30 deleted", process.stdout)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


def test_signal_that_does_not_interrupt_the_main_thread_is_noticed_all_the_same() -> None:
    stopping = threading.Event()

    def is_main_thread_waiting() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        return frame.f_code is threading.Condition.wait.__code__

    def work() -> int:
        eventually(is_main_thread_waiting)
        # Noted here, it interrupts no wait of the main thread, like one that comes just before that begins to wait.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return int(stopping.wait(PATIENCE))

    assert run_until_signal(work, stopping) == 1


@pytest.mark.whole
def test_daemon_sweeps_again_after_a_failure(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.db").touch()
    with started("sweep", "--every", "0.05", "--url", sqlite_url, cwd=tmp_path) as process:
        line_with("failed: 0 deleted", process.stdout)
        migrate.upgrade(sqlite_url)
        keep_expired(sqlite_url, 3)
        line_with("complete: 3 deleted", process.stdout)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.whole
def test_killed_sweep_leaves_what_it_had_not_reached(empty_url: str, tmp_path: Path) -> None:
    keep_expired(empty_url, 30)
    options = ("--batch-size", "10", "--pause", "3600", "--progress", "--url", empty_url)
    with started("sweep", *options, cwd=tmp_path) as process:
        wait_for_progress(process)
        process.kill()
        process.wait(PATIENCE)
    assert expired(empty_url) == 20


@pytest.mark.whole
def test_sweeps_in_many_processes_delete_everything_between_them(empty_url: str, tmp_path: Path) -> None:
    keep_expired(empty_url, 400)
    options = ("--batch-size", "20", "--json", "--url", empty_url)
    with (
        started("sweep", *options, cwd=tmp_path) as first,
        started("sweep", *options, cwd=tmp_path) as second,
        started("sweep", *options, cwd=tmp_path) as third,
    ):
        outputs = [process.communicate(timeout=PATIENCE) for process in (first, second, third)]
        assert [process.returncode for process in (first, second, third)] == [0, 0, 0], outputs
    assert sum(json.loads(output)["deleted"] for output, _ in outputs) == 400
    assert expired(empty_url) == 0
