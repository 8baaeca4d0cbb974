"""The time that sessions add to a request, measured in turns.

Every subject gets a small slice of each round, so that a change of the machine's speed affects all alike.
"""

import gc
import hmac
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine.databases import Places
from benchmarks.machine.placement import place
from benchmarks.parts.plan import Plan
from benchmarks.parts.visitor import Visitor
from benchmarks.report.figures import Figures
from benchmarks.subjects.registry import subjects
from benchmarks.subjects.scenarios import SCENARIOS, Scenario, Sent
from benchmarks.subjects.subject import Subject

SLICE_NS = 8_000_000
MIN_SLICE, MAX_SLICE = 3, 200
WARM_UP = 2
MIN_ROUNDS = 3

_DIGESTS_AT_ONCE = 50


def measure(places: Places, plan: Plan) -> Figures:
    """Time every chosen subject in every chosen scenario."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in plan.scenarios]
    made = cells(subjects(places, plan.subjects), scenarios)
    for cell in made:
        cell.prepare()  # and with it every connection is there to be placed
    return {"placement": place(places, plan.placement)} | take_turns(made, plan.seconds)


@dataclass
class Cell:
    """One subject in one scenario, and how long its requests took."""

    name: str
    engine: str
    scenario: str
    framework: str
    send: Callable[[], int]
    check: Callable[[], None]
    slice: int = MIN_SLICE
    times: list[int] = field(default_factory=list)

    def prepare(self) -> None:
        """Warm up, and find how many requests fill a slice."""
        warm_up = [self.send() for _ in range(8)]
        self.slice = max(MIN_SLICE, min(MAX_SLICE, SLICE_NS // max(1, int(statistics.median(warm_up)))))
        self.check()

    def take_turn(self) -> None:
        """Spend one slice; its first requests, which find other subjects' data in the caches, do not count."""
        for _ in range(WARM_UP):
            self.send()
        self.times += [self.send() for _ in range(self.slice)]
        self.check()


BARE = "without sessions"


def cells(measured: list[Subject], scenarios: list[Scenario]) -> list[Cell]:
    """Return every subject in every scenario, and the same applications without sessions."""
    made = [_digest_cell()]
    bare = {subject.framework: subject.bare for subject in measured}
    for framework, application in bare.items():
        visitor = Visitor(application, Scenario(BARE, "/untouched", Sent.NONE, BARE), sessions=False)
        made += [Cell(BARE, "", BARE, framework, visitor.send, visitor.check) for _ in range(3)]
    for subject in measured:
        for scenario in scenarios:
            if subject.serves(scenario.name):
                application = subject.elsewhere.get(scenario.name, subject.application)
                visitor = Visitor(application, scenario, subject.before.get(scenario.name))
                send, check = visitor.send, visitor.check
                made.append(Cell(subject.name, subject.engine, scenario.name, subject.framework, send, check))
    return made


def take_turns(cells: list[Cell], seconds: float) -> Figures:
    """Give every cell, prepared, its turns for about this long; return the figures."""
    gc.collect()
    gc.freeze()
    order = random.Random(0)  # noqa: S311
    deadline = time.monotonic() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.monotonic() < deadline:
        order.shuffle(cells)
        for cell in cells:
            cell.take_turn()
        rounds += 1
    gc.unfreeze()
    return {"rounds": rounds, "digest_us": _digest_us(cells), "added_us": _added(cells)}


def _added(cells: list[Cell]) -> list[dict[str, Any]]:
    """Return microseconds added per request over the same application without sessions."""
    without: dict[str, list[int]] = {}
    for cell in cells:
        if cell.scenario == BARE:
            without.setdefault(cell.framework, []).extend(cell.times)
    bare = {framework: statistics.median(times) for framework, times in without.items()}
    figures = []
    for cell in cells:
        if cell.framework not in bare or cell.scenario == BARE:
            continue
        low, middle, high = statistics.quantiles(cell.times, n=4)
        base = bare[cell.framework]
        figures.append(
            {
                "name": cell.name,
                "engine": cell.engine,
                "scenario": cell.scenario,
                "median": (middle - base) / 1000,
                "quartiles": [(low - base) / 1000, (high - base) / 1000],
                "bare": base / 1000,
                "requests": len(cell.times),
            }
        )
    return figures


def _digest_cell() -> Cell:
    key, message = b"k" * 32, b"m" * 64

    def send() -> int:
        began = time.perf_counter_ns()
        for _ in range(_DIGESTS_AT_ONCE):
            hmac.digest(key, message, "sha256")
        return time.perf_counter_ns() - began

    return Cell("hmac.digest", "", "hmac.digest", "", send, lambda: None)


def _digest_us(cells: list[Cell]) -> float:
    times = [took for cell in cells if cell.name == "hmac.digest" for took in cell.times]
    return statistics.median(times) / _DIGESTS_AT_ONCE / 1000
