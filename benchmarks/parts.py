"""The parts of a run. Each has a process of its own, so that none finds settings, patches or memory of another."""

import logging
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from benchmarks import footprint, http_load, rows, threads, touches, wire
from benchmarks.databases import Places
from benchmarks.measure import cells, measure
from benchmarks.placement import Placement, place
from benchmarks.report import Figures
from benchmarks.scenarios import SCENARIOS
from benchmarks.subjects import subjects


@dataclass(frozen=True)
class Plan:
    """What to measure and for how long: `seconds` for the requests, `rounds` for what takes turns of a second."""

    subjects: Sequence[str]
    scenarios: Sequence[str]
    seconds: float
    rounds: int
    table_sizes: tuple[int, int]
    placement: Placement


def requests(places: Places, plan: Plan) -> Figures:
    """Time every chosen subject in every chosen scenario."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in plan.scenarios]
    made = cells(subjects(places, plan.subjects), scenarios)
    for cell in made:
        cell.prepare()  # and with it every connection is there to be placed
    return {"placement": place(places, plan.placement)} | measure(made, plan.seconds)


def _messages(places: Places, plan: Plan) -> Figures:
    return {"messages": wire.count_messages(places, plan.subjects, plan.scenarios)}


def _threads(places: Places, plan: Plan) -> Figures:
    return {"threads": threads.loads_per_second(places, plan.rounds)}


def _footprint(_: Places, plan: Plan) -> Figures:
    times = footprint.import_times(3 * plan.rounds)
    return {"footprint": {"import_ms": times, "bytes_per_session": footprint.bytes_per_session()}}


def _touches(places: Places, plan: Plan) -> Figures:
    if "postgresql" not in places:
        return {}
    return {"touches": touches.touches(places["postgresql"], 2 * plan.rounds)}


def _rows(places: Places, plan: Plan) -> Figures:
    return {"rows": rows.by_table_size(places, plan.table_sizes)}


def _http(places: Places, plan: Plan) -> Figures:
    return {"http": http_load.requests_per_second(places, plan.subjects, plan.rounds)}


PARTS: dict[str, Callable[[Places, Plan], Figures]] = {
    "requests": requests,
    "messages": _messages,
    "threads": _threads,
    "footprint": _footprint,
    "touches": _touches,
    "rows": _rows,
    "http": _http,
}
SHORT_PARTS = ("requests", "messages", "threads", "footprint", "touches")


def run(part: str, places: Places, plan: Plan) -> Figures:
    """Run one part in a fresh process; return its figures."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_be_quiet) as pool:
        return pool.submit(PARTS[part], places, plan).result()


def _be_quiet() -> None:
    warnings.simplefilter("ignore")
    # Events are logged as in production, to a handler, but nobody wants to read here of forged cookies.
    logging.getLogger().addHandler(logging.NullHandler())
