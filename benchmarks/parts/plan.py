"""Plan: what a run measures, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine.placement import Placement


@dataclass(frozen=True)
class Plan:
    """The choices of a run: `seconds` for the requests, `rounds` for the parts whose turns last about a second."""

    subjects: Sequence[str]
    scenarios: Sequence[str]
    seconds: float
    rounds: int
    table_sizes: tuple[int, int]
    placement: Placement
