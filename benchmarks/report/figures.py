"""Figures: what a run has measured, and looking things up in it."""

from typing import Any

from benchmarks.subjects.registry import FLOOR, PRISM

Figures = dict[str, Any]

TIMED = "added_us"


def added(figures: Figures, engine: str, name: str, scenario: str) -> float | None:
    """Return the median of one cell in added microseconds, or None when it was not measured."""
    return _look_up(figures, TIMED, "median", engine, name, scenario)


def messages(figures: Figures, engine: str, name: str, scenario: str) -> float | None:
    """Return the number of messages of a request, or None when they were not counted."""
    return _look_up(figures, "messages", "messages", engine, name, scenario)


def fastest_peer(figures: Figures, engine: str, scenario: str) -> float | None:
    """Return the least that a peer on this engine adds, or None when none was measured."""
    medians = [
        float(cell["median"])
        for cell in figures.get(TIMED, [])
        if (cell["engine"], cell["scenario"]) == (engine, scenario) and cell["name"] not in (PRISM, FLOOR)
    ]
    return min(medians, default=None)


def short(value: float) -> str:
    """Return a number with two or three significant digits."""
    return f"{value:.1f}" if abs(value) < 20 else f"{value:,.0f}"


def _look_up(figures: Figures, part: str, value: str, engine: str, name: str, scenario: str) -> float | None:
    for cell in figures.get(part, []):
        if (cell["engine"], cell["name"], cell["scenario"]) == (engine, name, scenario):
            return float(cell[value])
    return None
