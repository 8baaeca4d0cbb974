"""A run as text: for the terminal, and inside docs/benchmarks.md."""

from pathlib import Path

from benchmarks.report.figures import Figures
from benchmarks.report.tables import as_markdown, tables
from benchmarks.report.targets import targets

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


def as_text(figures: Figures) -> str:
    """Return the figures, and how they stand to the targets, as Markdown."""
    parts = [_measured_on(figures)]
    parts += [f"### {heading}\n\n{as_markdown(rows)}" for heading, rows in tables(figures)]
    rows = [["target", "limit", "measured", ""]]
    rows += [[one.name, one.limit, one.measured, "met" if one.is_met else "**not met**"] for one in targets(figures)]
    parts.append(f"### Targets\n\n{as_markdown(rows)}")
    return "\n\n".join(parts)


def write_page(page: Path, figures: Figures) -> None:
    """Replace the figures in a page, between its two markers."""
    text = page.read_text()
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    page.write_text(f"{before}{_BEGIN}\n\n{as_text(figures)}\n\n{_END}{after}")


def _measured_on(figures: Figures) -> str:
    machine = figures["machine"]
    packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
    before, after = (machine["load_average"][0], figures["load_after"][0])
    lines = [
        f"Measured on {machine['processors']} processors ({machine['processor']}), {machine['system']}, "
        f"{machine['implementation']} {machine['python']}; load average {before:.1f} before, {after:.1f} after.",
        f"{packages}.",
    ]
    if "rounds" in figures:
        digest = f"one `hmac.digest` took {figures['digest_us']:.2f} µs."
        lines.append(f"{figures['placement']} {figures['rounds']} rounds; {digest}")
    return "\n\n".join(lines)
