"""The figures as one picture: what each library adds to a request, per engine, on a log scale.

Run as a module it draws docs/benchmarks.svg again from the last published run.
"""

import json
import math
from html import escape
from pathlib import Path

from benchmarks.report.figures import Figures, added, short
from benchmarks.subjects.registry import FLOOR, PRISM

ENGINES = {"memory": "Memory", "sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB", "redis": "Redis"}
SCENARIOS = {"read": "Read one key", "write": "Write one key", "new": "Start a session"}

_NAMES_WIDTH, _PANEL_WIDTH, _LABEL_WIDTH, _GAP = 154, 190, 92, 14
_TOP, _LINE, _BLOCK_GAP = 112, 21, 34
_OURS, _PEER, _LEAST, _INK, _FAINT = "#0b62d6", "#8a8f98", "#1d1f23", "#1d1f23", "#e3e6ea"


def draw(figures: Figures) -> str:
    """Return the chart as SVG."""
    axis = _Axis(figures)
    panels = [_NAMES_WIDTH + n * (_PANEL_WIDTH + _LABEL_WIDTH + _GAP) for n in range(len(SCENARIOS))]
    width = panels[-1] + _PANEL_WIDTH + _LABEL_WIDTH + _GAP
    body = [
        _text(16, 34, "What a session costs", size=21, weight=700),
        _text(16, 57, "Microseconds added to a request, log scale: further left is faster. ", size=13),
        _text(16, 75, "Lines start at the floor, the least code that does the same work on the raw driver.", size=13),
    ]
    body += [
        _text(x, _TOP - 9, title, size=14, weight=700) for x, title in zip(panels, SCENARIOS.values(), strict=True)
    ]
    y = _TOP
    for engine, title in ENGINES.items():
        names = _names(figures, engine)
        if not names:
            continue
        body.append(_text(16, y + 16, title, size=14, weight=700))
        bottom = y + 26 + _LINE * len(names)
        for x in panels:
            body += _grid(axis, x, y + 4, bottom)
        for line, name in enumerate(names):
            middle = y + 26 + _LINE * line + _LINE / 2
            colour, weight = _style(name)
            body.append(_text(_NAMES_WIDTH - 12, middle + 4, name, anchor="end", colour=colour, weight=weight))
            for x, scenario in zip(panels, SCENARIOS, strict=True):
                body += _line(figures, axis, engine, name, scenario, x, middle)
        y = bottom + _BLOCK_GAP
    machine = figures["machine"]
    note = (
        f"Medians of {figures['rounds']} rounds in turns, in process, {machine['implementation']} {machine['python']}"
    )
    body.append(
        _text(16, y - 4, f"{note}, {machine['processor']}. In brackets: times the floor.", size=11, colour=_PEER)
    )
    return _document(width, y + 12, body)


class _Axis:
    """Microseconds to pixels, the same in every panel."""

    def __init__(self, figures: Figures) -> None:
        shown = [
            cell["median"]
            for cell in figures["added_us"]
            if cell["engine"] in ENGINES and cell["scenario"] in SCENARIOS and cell["median"] > 0
        ]
        self._low, high = math.log10(min(shown)) - 0.1, math.log10(max(shown)) + 0.05
        self._scale = _PANEL_WIDTH / (high - self._low)
        self.decades = [10.0**n for n in range(math.ceil(self._low), math.floor(high) + 1)]

    def x(self, microseconds: float) -> float:
        return (math.log10(max(microseconds, 10**self._low)) - self._low) * self._scale


def _grid(axis: _Axis, left: float, top: float, bottom: float) -> list[str]:
    parts = []
    for decade in axis.decades:
        x = left + axis.x(decade)
        label = f"{decade:g} µs" if decade < 1000 else f"{decade / 1000:g} ms"
        parts.append(f'<path d="M{x:.1f} {top + 14:.1f}V{bottom:.1f}" stroke="{_FAINT}"/>')
        parts.append(_text(x, top + 10, label, size=10, colour=_PEER, anchor="middle"))
    return parts


def _line(figures: Figures, axis: _Axis, engine: str, name: str, scenario: str, left: float, y: float) -> list[str]:
    median, least = added(figures, engine, name, scenario), added(figures, engine, FLOOR, scenario)
    if median is None:
        return []
    x = left + axis.x(median)
    colour, weight = _style(name)
    label = f"{short(median)} µs" if median < 1000 else f"{median / 1000:.1f} ms"
    parts = []
    if name == FLOOR:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{colour}" stroke-width="1.6"/>')
    else:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if name == PRISM else 4}" fill="{colour}"/>')
    if name != FLOOR and least is not None:
        start = left + axis.x(least)
        thick = 5 if name == PRISM else 2
        parts.append(f'<path d="M{start:.1f} {y:.1f}H{x:.1f}" stroke="{colour}" stroke-width="{thick}"/>')
        ratio = median / least
        label += f" ({ratio:.1f}x)" if ratio < 10 else f" ({ratio:.0f}x)"
    return [*parts, _text(x + 10, y + 4, label, size=11.5, colour=colour, weight=weight)]


def _names(figures: Figures, engine: str) -> list[str]:
    """Return who was measured on an engine: the floor, prism_wsgi, then the peers by what a read costs."""
    names = dict.fromkeys(cell["name"] for cell in figures["added_us"] if cell["engine"] == engine)
    reads = {name: added(figures, engine, name, "read") or 0.0 for name in names}
    return sorted(names, key=lambda name: (name != FLOOR, name != PRISM, reads[name]))


def _style(name: str) -> tuple[str, int]:
    return {PRISM: (_OURS, 700), FLOOR: (_LEAST, 400)}.get(name, ("#5b6169", 400))


def _text(
    x: float, y: float, text: str, *, size: float = 12, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    style += ' paint-order="stroke" stroke="#fff" stroke-width="3"'  # lines pass behind
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _document(width: float, height: float, body: list[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    font = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""
    title = "<title>Microseconds that prism_wsgi and its peers add to a request</title>"
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    lines = "\n".join([title, background, *body])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">\n{lines}\n</svg>\n'


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    chart = draw(json.loads((root / "benchmarks" / "results.json").read_text()))
    (root / "docs" / "benchmarks.svg").write_text(chart)
