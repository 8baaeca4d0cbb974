"""Measure the sweeper at scale: `python -m benchmarks.scale --rows 2000000`.

On each engine, each contender in turn deletes what has expired from the same table of that many sessions, half of
them expired, while other sessions of it are used at a steady pace. Then extensions race the sweep, and a table is
filled and swept over and over.

`--parts pages` times the ready pages and the listings on that many sessions, and `--parts trail` an audit trail of
`--events` events on PostgreSQL; neither runs unless it is named.
"""

import argparse
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from threading import Barrier
from typing import Any

from sqlalchemy import create_engine

from benchmarks.machine.databases import fresh_databases
from benchmarks.scale import generate, sweeps
from benchmarks.scale.cycles import cycles
from benchmarks.scale.live import Sample, live_load
from benchmarks.scale.pages import pages
from benchmarks.scale.race import race
from benchmarks.scale.sweeps import Turn
from benchmarks.scale.trail import trail

ENGINES = ("postgresql", "mariadb", "sqlite")
LIVE_SESSIONS = 20_000
WARM_UP_SECONDS = 3
PROCESSES = 4

Figures = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """A way to delete, and how many processes do it at once."""

    name: str
    sweep: Callable[[str, float, Barrier], Turn]
    processes: int = 1


def contenders(engine: str) -> list[Contender]:
    """Return what is compared on an engine."""
    plain = [Contender("DELETE ... LIMIT", sweeps.plain_loop)] if engine == "mariadb" else []
    return [
        Contender("usual loop", sweeps.usual_loop),
        *plain,
        Contender("1 sweeper", sweeps.sweeper),
        Contender("2 sweepers", sweeps.sweeper, 2),
        Contender("4 sweepers", sweeps.sweeper, 4),
        Contender("1 in a hurry", sweeps.hurried_sweeper),
    ]


def main() -> None:
    """Measure on each engine, print the figures and, if asked, write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="sessions, half of them expired")
    parser.add_argument(
        "--events", type=int, default=10_000_000, help="events of the part `trail`, which take 18 GB for 100 million"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("speed", "race", "cycles", "pages", "trail"),
        default=("speed", "race", "cycles"),
    )
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds of use without a sweep before each one")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds after which a contender is stopped")
    parser.add_argument("--rounds", type=int, default=1, help="in each, every contender sweeps once")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no database behind
    figures: dict[str, Figures] = {}
    with fresh_databases(options.engines) as places:
        for engine, url in places.items():
            measured = figures[engine] = {}
            if "speed" in options.parts:
                print(f"\n{engine}, {options.rows} sessions", flush=True)
                measured["speed"] = speed(engine, url, options)
            if "race" in options.parts:
                measured["race"] = race(url, options.rows // 2)
            if "cycles" in options.parts:
                measured["cycles"] = cycles(url, options.rows // 20)
            if "pages" in options.parts:
                print(f"\n{engine}, {options.rows} sessions", flush=True)
                measured["pages"] = pages(url, options.rows)
            if "trail" in options.parts and engine == "postgresql":
                measured["trail"] = trail(url, options.events, options.quiet, options.longest)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")


def speed(engine: str, url: str, options: argparse.Namespace) -> list[Figures]:
    """Let each contender sweep the same table beside the live load."""
    generate.make_source(url, generate.rows(options.rows, now=int(time.time() * 1000), chance=Random(1)))
    print(f"  {'':16} {'rows/s':>8} {'batch':>6} {'p99 of loads':>14} {'p99 of saves':>14} {'longest':>8} {'MiB':>4}")
    found: list[Figures] = []
    for _ in range(options.rounds):
        for rival in contenders(engine):
            generate.copy_source(url)
            figures = _sweep_beside_use(url, rival, options)
            print(_line(figures), flush=True)
            found.append(figures)
    generate.drop_source(url)
    return found


def _sweep_beside_use(url: str, rival: Contender, options: argparse.Namespace) -> Figures:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(PROCESSES + 1, mp_context=context) as workers:
        ready, stop = manager.Event(), manager.Event()
        using = workers.submit(live_load, url, _live_ids(url), ready, stop)
        list(workers.map(time.sleep, [0.5] * PROCESSES))  # starts them
        ready.wait()
        time.sleep(WARM_UP_SECONDS)
        quiet = (time.monotonic(), time.monotonic() + options.quiet)
        time.sleep(options.quiet)
        together = manager.Barrier(rival.processes)
        submitted = [workers.submit(rival.sweep, url, options.longest, together) for _ in range(rival.processes)]
        turns = [one.result() for one in submitted]
        stop.set()
        samples = using.result()
    span = (min(turn.started for turn in turns), max(turn.ended for turn in turns))
    deleted = sum(turn.deleted for turn in turns)
    saves = [took for due, took in samples.saves if span[0] <= due <= span[1]]
    return {
        "contender": rival.name,
        "deleted": deleted,
        "rows_per_second": deleted / (span[1] - span[0]),
        "rows_a_batch": deleted / max(1, sum(turn.batches for turn in turns)),
        "loads_ms": [_percentiles(samples.loads, quiet), _percentiles(samples.loads, span)],
        "saves_ms": [_percentiles(samples.saves, quiet), _percentiles(samples.saves, span)],
        "longest_save_ms": max(saves, default=0.0) * 1000,
        "peak_mib": max(turn.peak_kib for turn in turns) / 1024,
        "errors": [turn.error for turn in turns if turn.error] + samples.errors,
    }


def _live_ids(url: str) -> list[str]:
    """Return the ids of sessions that will live for a day at least."""
    engine = create_engine(url)
    tomorrow = int(time.time() * 1000) + generate.DAY_MS
    statement = f"SELECT id FROM prism_sessions WHERE expires_at > {tomorrow} LIMIT {LIVE_SESSIONS}"
    with engine.connect() as connection:
        ids = [bytes(row[0]).hex() for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return ids


def _percentiles(samples: list[Sample], span: tuple[float, float]) -> dict[str, float]:
    taken = sorted(took * 1000 for due, took in samples if span[0] <= due <= span[1])
    return {"p50": median(taken), "p99": taken[int(len(taken) * 0.99)]} if taken else {"p50": 0.0, "p99": 0.0}


def _line(found: Figures) -> str:
    loads, saves = (
        "{:.1f} > {:.1f} ms".format(*(one["p99"] for one in found[name])) for name in ("loads_ms", "saves_ms")
    )
    return (
        f"  {found['contender']:16} {found['rows_per_second']:8.0f} {found['rows_a_batch']:6.0f} {loads:>14} "
        f"{saves:>14} "
        f"{found['longest_save_ms']:6.0f}ms {found['peak_mib']:4.0f} {'; '.join(found['errors'][:2])}"
    )


if __name__ == "__main__":
    main()
