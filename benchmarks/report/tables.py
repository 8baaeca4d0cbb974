"""The figures as tables, for a terminal and for docs/benchmarks.md alike."""

from collections.abc import Sequence
from typing import Any

from benchmarks.machine.databases import ENGINES
from benchmarks.report.figures import TIMED, Figures, added, fastest_peer, messages, short
from benchmarks.subjects.registry import FLOOR, PRISM
from benchmarks.subjects.scenarios import SCENARIOS


def tables(figures: Figures) -> list[tuple[str, list[list[str]]]]:
    """Return every table for which there are figures, each with its heading."""
    found = []
    for engine in ENGINES:
        if any(cell["engine"] == engine for cell in figures.get(TIMED, [])):
            found.append((f"{engine}: µs added per request (times the floor)", _added_table(figures, engine)))
    if "messages" in figures:
        found.append(("Messages to the database per request", _messages_table(figures)))
    if "threads" in figures:
        rows = [["8 threads", "loads/s, store", "loads/s, raw connections", "ratio"]]
        for engine, rates in figures["threads"].items():
            ratio = f"{rates['store'] / rates['raw']:.2f}"
            rows.append([engine, f"{rates['store']:,.0f}", f"{rates['raw']:,.0f}", ratio])
        found.append(("Eight threads sharing one store", rows))
    if "rows" in figures:
        rows = [["engine", "rows", "load, median µs", "load, 99 % µs", "inserts/s"]]
        for engine, sizes in figures["rows"].items():
            rows += [
                [
                    engine,
                    f"{one['rows']:,}",
                    short(one["load_us"]),
                    short(one["load_p99_us"]),
                    f"{one['inserts_per_second']:,.0f}",
                ]
                for one in sizes
            ]
        found.append(("Small and large tables", rows))
    if "http" in figures:
        found.append(("Requests a second through gunicorn", _http_table(figures)))
    return found


def _added_table(figures: Figures, engine: str) -> list[list[str]]:
    cells = [cell for cell in figures[TIMED] if cell["engine"] == engine]
    names, scenarios = _names(cells), _scenarios(cells)
    rows = [["", *scenarios]]
    rows += [[name, *(_figure(figures, engine, name, scenario) for scenario in scenarios)] for name in names]
    if PRISM in names and set(names) - {PRISM, FLOOR}:
        rows.append(["*fastest peer*", *(_peer_ratio(figures, engine, scenario) for scenario in scenarios)])
    return rows


def _messages_table(figures: Figures) -> list[list[str]]:
    cells = figures["messages"]
    scenarios = _scenarios(cells)
    rows = [["", "", *scenarios]]
    for engine in ENGINES:
        for name in _names([cell for cell in cells if cell["engine"] == engine]):
            counts = [messages(figures, engine, name, scenario) for scenario in scenarios]
            rows.append([engine, name, *("" if count is None else f"{count:g}" for count in counts)])
    return rows


def _http_table(figures: Figures) -> list[list[str]]:
    cells = figures["http"]
    scenarios = _scenarios(cells)
    rates = {
        (cell["engine"], cell["name"], cell["scenario"]): f"{cell['per_second']:,.0f}"
        + (f" ({cell['failed']} failed)" if cell["failed"] else "")
        for cell in cells
    }
    rows = [["", "", *scenarios]]
    served = sorted({(cell["engine"], cell["name"]) for cell in cells}, key=lambda who: _order(*who))
    for engine, name in served:
        rows.append([engine, name, *(rates.get((engine, name, scenario), "") for scenario in scenarios)])
    return rows


def _order(engine: str, name: str) -> tuple[int, bool, bool, str]:
    return ENGINES.index(engine) if engine else -1, name != FLOOR, name != PRISM, name


def _names(cells: list[dict[str, Any]]) -> list[str]:
    return sorted({cell["name"] for cell in cells}, key=lambda name: _order("", name))


def _scenarios(cells: list[dict[str, Any]]) -> list[str]:
    measured = {cell["scenario"] for cell in cells}
    return [scenario.name for scenario in SCENARIOS if scenario.name in measured]


def _figure(figures: Figures, engine: str, name: str, scenario: str) -> str:
    median, least = added(figures, engine, name, scenario), added(figures, engine, FLOOR, scenario)
    if median is None:
        return ""
    if least is None or name == FLOOR:
        return short(median)
    return f"{short(median)} ({median / least:.{2 if name == PRISM else 0}f}x)"


def _peer_ratio(figures: Figures, engine: str, scenario: str) -> str:
    ours, peer = added(figures, engine, PRISM, scenario), fastest_peer(figures, engine, scenario)
    return f"{peer / ours:.1f}x ours" if ours and peer else ""


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned so that it can be read as it is. The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    head, *lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (head, rule, *lines))
