"""The figures as tables, for a terminal and for docs/benchmarks.md alike."""

from collections.abc import Sequence
from typing import Any

from benchmarks.scenarios import SCENARIOS
from benchmarks.subjects import FLOOR, PRISM

Figures = dict[str, Any]


def added(figures: Figures, engine: str, name: str, scenario: str) -> float | None:
    """Return the median of one cell in added microseconds, or None when it was not measured."""
    for cell in figures.get("added_us", []):
        if (cell["engine"], cell["name"], cell["scenario"]) == (engine, name, scenario):
            return float(cell["median"])
    return None


def fastest_peer(figures: Figures, engine: str, scenario: str) -> float | None:
    """Return the least that a peer on this engine adds, or None when none was measured."""
    medians = [
        cell["median"]
        for cell in figures.get("added_us", [])
        if (cell["engine"], cell["scenario"]) == (engine, scenario) and cell["name"] not in (PRISM, FLOOR)
    ]
    return min(medians, default=None)


def added_table(figures: Figures, engine: str) -> list[list[str]]:
    """Return what each subject adds in each scenario on an engine, with ratios to the floor."""
    cells = [cell for cell in figures["added_us"] if cell["engine"] == engine]
    names = list(dict.fromkeys(cell["name"] for cell in cells))
    measured = {cell["scenario"] for cell in cells}
    scenarios = [scenario.name for scenario in SCENARIOS if scenario.name in measured]
    names.sort(key=lambda name: (name != FLOOR, name != PRISM))
    rows = [[engine, *scenarios]]
    for name in names:
        rows.append([name, *(_figure(figures, engine, name, scenario) for scenario in scenarios)])
    if PRISM in names and len(names) > 2:
        rows.append(
            ["fastest peer / prism_wsgi", *(_peer_ratio(figures, engine, scenario) for scenario in scenarios)]
        )
    return rows


def _figure(figures: Figures, engine: str, name: str, scenario: str) -> str:
    median = added(figures, engine, name, scenario)
    if median is None:
        return ""
    least = added(figures, engine, FLOOR, scenario)
    ratio = (
        "" if least is None or name == FLOOR or least <= 0 else f" ({median / least:.{2 if name == PRISM else 1}f}x)"
    )
    return f"{short(median)}{ratio}"


def _peer_ratio(figures: Figures, engine: str, scenario: str) -> str:
    ours, peer = added(figures, engine, PRISM, scenario), fastest_peer(figures, engine, scenario)
    return f"{peer / ours:.1f}" if ours and peer else ""


def short(value: float) -> str:
    """Return a number with two or three digits that matter."""
    return f"{value:.1f}" if abs(value) < 20 else f"{value:,.0f}"


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned so that it can be read as it is. The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
