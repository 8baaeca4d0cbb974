"""Measure prism_wsgi beside the floor and its peers, on fresh databases that are dropped at the end."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine.databases import ENGINES, fresh_databases
from benchmarks.machine.facts import machine
from benchmarks.machine.placement import Placement
from benchmarks.parts.plan import Plan
from benchmarks.parts.registry import PARTS, SHORT_PARTS, run
from benchmarks.report.chart import draw
from benchmarks.report.figures import Figures
from benchmarks.report.page import as_text, write_page
from benchmarks.subjects.registry import MODULES
from benchmarks.subjects.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
CHART = ROOT / "docs" / "benchmarks.svg"
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    """Run the chosen parts, print the figures, and write the files that the options name."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no database behind
    figures = measured(options)
    print("\n" + as_text(figures))
    if options.json:
        _write_json(options.json, figures)
    if options.publish:
        _write_json(RESULTS, figures)
        CHART.write_text(draw(figures))
        write_page(PAGE, figures)


def measured(options: argparse.Namespace) -> Figures:
    """Return the figures of a run."""
    plan = Plan(
        options.subjects,
        options.scenarios,
        seconds=min(options.seconds, 60) if options.quick else options.seconds,
        rounds=min(options.rounds, 3) if options.quick else options.rounds,
        table_sizes=tuple(options.rows),
        placement=options.placement,
    )
    figures: Figures = {"machine": machine()}
    with fresh_databases(options.engines) as places:
        for part in PARTS if options.publish else options.parts:
            print(f"Measuring {part} ...", flush=True)
            figures |= run(part, places, plan)
    figures["load_after"] = machine()["load_average"]
    return figures


def _write_json(path: Path, figures: Figures) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    _add_choice(parser, "--parts", PARTS, SHORT_PARTS)
    _add_choice(parser, "--engines", ENGINES, ENGINES)
    scenarios = tuple(scenario.name for scenario in SCENARIOS)
    _add_choice(parser, "--scenarios", scenarios, scenarios)
    _add_choice(parser, "--subjects", tuple(MODULES), tuple(MODULES))
    seconds = "how long requests are timed; default: %(default)s"
    parser.add_argument("--seconds", type=float, default=480, metavar="N", help=seconds)
    rounds = "how often the other parts take turns; default: %(default)s"
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help=rounds)
    sizes = "the sizes of the tables that the part `rows` fills; default: %(default)s"
    parser.add_argument("--rows", type=int, nargs=2, default=(10_000, 5_000_000), metavar="N", help=sizes)
    where = "the databases' processors beside the application's: %(choices)s; default: %(default)s"
    parser.add_argument("--placement", type=Placement, choices=list(Placement), default=Placement.APART, help=where)
    parser.add_argument("--quick", action="store_true", help="two minutes: shorter, and coarser")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    publish = "run every part, and renew results.json, the chart and the page under docs/"
    parser.add_argument("--publish", action="store_true", help=publish)
    return parser


def _add_choice(parser: argparse.ArgumentParser, name: str, choices: Sequence[str], default: Sequence[str]) -> None:
    listed = f"of {', '.join(choices)}; default: {'all' if choices == default else ', '.join(default)}"
    parser.add_argument(name, nargs="+", choices=choices, default=default, metavar="NAME", help=listed)


if __name__ == "__main__":
    main()
