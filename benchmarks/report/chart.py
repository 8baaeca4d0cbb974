"""The figures as one picture: what each package adds to a request that reads and one that writes, on one engine.

Run as a module it draws docs/benchmarks.svg again from the last published run.
"""

import json
from html import escape
from pathlib import Path

from benchmarks.machine.databases import ENGINES
from benchmarks.report.figures import TIMED, Figures, added, short
from benchmarks.subjects.registry import FLOOR, PRISM

MOST_USED = "postgresql"
"""The engine that is drawn, if it was measured; the tables have the others."""
TITLES = {
    "memory": "in memory",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
    "redis": "Redis",
}
SCENARIOS = {"read": "Read one key", "write": "Write one key"}

_MARGIN, _NAMES, _BAR, _LABEL = 20, 152, 236, 84
_TOP, _LINE, _THICK, _HEAD = 80, 32, 20, 30
_OURS, _PEER, _INK, _FAINT = "#0b62d6", "#b4bac2", "#1d1f23", "#5b6169"


def draw(figures: Figures) -> str:
    """Return the chart as SVG. Its bars share one scale, which begins at zero."""
    engine = _engine(figures)
    names = _names(figures, engine)
    scenarios = [one for one in SCENARIOS if any(added(figures, engine, name, one) is not None for name in names)]
    longest = max(added(figures, engine, name, one) or 0.0 for name in names for one in scenarios)
    scale = _BAR / longest
    bottom = _TOP + _HEAD + _LINE * len(names)
    body = [
        _text(_MARGIN, 34, "What sessions add to a request", size=20, weight=700),
        _text(_MARGIN, 58, f"{TITLES[engine]}, microseconds (µs); shorter bars are faster", size=14, colour=_FAINT),
    ]
    for line, name in enumerate(names):
        weight = 700 if name == PRISM else 400
        y = _TOP + _HEAD + _LINE * line + 20
        body.append(_text(_MARGIN + _NAMES - 12, y, name, size=14, weight=weight, anchor="end"))
    for column, scenario in enumerate(scenarios):
        left = _MARGIN + _NAMES + column * (_BAR + _LABEL)
        body.append(_text(left, _TOP + 12, SCENARIOS[scenario], size=14, weight=700))
        for line, name in enumerate(names):
            median = added(figures, engine, name, scenario)
            if median is not None:
                body += _bar(left, _TOP + _HEAD + _LINE * line, median * scale, median, is_ours=name == PRISM)
        least = added(figures, engine, FLOOR, scenario)
        if least is not None:
            x = left + least * scale
            path = f"M{x:.1f} {_TOP + _HEAD - 6}V{bottom + 2}"
            body.append(f'<path d="{path}" stroke="{_INK}" stroke-dasharray="3 3"/>')
            body.append(_text(x, bottom + 18, f"floor {short(least)} µs", size=12, colour=_FAINT))
    note = "The floor is the least code that does the same work, written by hand on the raw driver."
    body.append(_text(_MARGIN, bottom + 48, note, size=12, colour=_FAINT))
    return _document(_MARGIN + _NAMES + len(scenarios) * (_BAR + _LABEL), bottom + 64, body, engine)


def _bar(left: float, top: float, length: float, median: float, *, is_ours: bool) -> list[str]:
    colour, weight = (_OURS, 700) if is_ours else (_PEER, 400)
    middle = top + _LINE / 2
    return [
        f'<rect x="{left}" y="{middle - _THICK / 2:.1f}" width="{length:.1f}" height="{_THICK}" fill="{colour}"/>',
        _text(left + length + 6, middle + 5, f"{short(median)} µs", size=13, weight=weight),
    ]


def _engine(figures: Figures) -> str:
    measured = {cell["engine"] for cell in figures[TIMED] if cell["scenario"] in SCENARIOS} & TITLES.keys()
    return MOST_USED if MOST_USED in measured else min(measured, key=ENGINES.index)


def _names(figures: Figures, engine: str) -> list[str]:
    """Return the packages that were measured on an engine: prism_wsgi, then the others by what a read costs."""
    names = {cell["name"] for cell in figures[TIMED] if cell["engine"] == engine} - {FLOOR}
    return sorted(names, key=lambda name: (name != PRISM, added(figures, engine, name, "read") or 0.0))


def _text(
    x: float, y: float, text: str, *, size: int, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _document(width: float, height: float, body: list[str], engine: str) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    font = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""
    title = f"<title>Microseconds that prism_wsgi and other packages add to a request, {TITLES[engine]}</title>"
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    lines = "\n".join([title, background, *body])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">\n{lines}\n</svg>\n'


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    chart = draw(json.loads((root / "benchmarks" / "results.json").read_text()))
    (root / "docs" / "benchmarks.svg").write_text(chart)
