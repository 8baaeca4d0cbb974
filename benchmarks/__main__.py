"""Measure prism_wsgi beside the floor and its peers: `python3 dev.py bench`."""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import report
from benchmarks.databases import ENGINES, fresh_databases
from benchmarks.measure import cells, measure
from benchmarks.placement import Placement, place
from benchmarks.report import Figures
from benchmarks.scenarios import SCENARIOS
from benchmarks.subjects import FLOOR, PEERS, PRISM, subjects


def main() -> None:
    options = _parser().parse_args()
    figures: Figures = {"measured_on": measured_on()}
    figures |= time_requests(options)
    print(as_text(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def time_requests(options: argparse.Namespace) -> Figures:
    """Time every chosen subject in every chosen scenario."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenarios]
    with fresh_databases(options.engines) as places:
        made = cells(subjects(places, options.subjects), scenarios)
        for cell in made:
            cell.prepare()
        placed = place(places, options.placement)
        return {"placement": placed} | measure(made, options.seconds)


def measured_on() -> dict[str, object]:
    """Say what the figures were measured on."""
    packages = ("prism_wsgi", "sqlalchemy", "psycopg", "mysqlclient", "msgpack", "webob", "beaker", "django")
    packages += ("flask", "flask-session", "pyramid_session_redis", "gunicorn")
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in packages},
        "load_average": os.getloadavg(),
    }


def as_text(figures: Figures) -> str:
    """Return the figures as a person reads them."""
    parts = [f"{figures['rounds']} rounds, one hmac.digest {figures['digest_us']:.2f} µs. {figures['placement']}"]
    parts.append("Microseconds added per request over the same application without sessions, medians:")
    for engine in ENGINES:
        if any(cell["engine"] == engine for cell in figures["added_us"]):
            parts.append(report.as_markdown(report.added_table(figures, engine)))
    return "\n\n".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    scenarios = [scenario.name for scenario in SCENARIOS]
    everybody = [PRISM, FLOOR, *PEERS]
    _add_choice(parser, "--engines", ENGINES, ENGINES)
    _add_choice(parser, "--scenarios", scenarios, scenarios)
    _add_choice(parser, "--subjects", everybody, everybody)
    parser.add_argument("--seconds", type=float, default=480, help="time for timing requests (default: %(default)s)")
    parser.add_argument("--placement", type=Placement, choices=list(Placement), default=Placement.APART)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def _add_choice(
    parser: argparse.ArgumentParser,
    name: str,
    choices: tuple[str, ...] | list[str],
    default: tuple[str, ...] | list[str],
) -> None:
    listed = ", ".join(choices)
    parser.add_argument(name, nargs="+", choices=choices, default=default, metavar="NAME", help=f"of {listed}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
