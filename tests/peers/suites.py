"""What `suites.toml` declares, and the verdict on a run."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DECLARED = Path(__file__).parent / "suites.toml"


@dataclass(frozen=True, slots=True)
class Difference:
    """Tests that must fail, and why."""

    reason: str
    tests: list[str]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one project, and what is expected of them; `suites.toml` explains the fields."""

    name: str
    release: str
    plugin: str
    passes: int
    tests: list[str] = field(default_factory=lambda: ["tests"])
    options: dict[str, Any] = field(default_factory=dict)
    server: str | None = None
    runner: str = "pytest"
    differences: list[Difference] = field(default_factory=list)

    @property
    def listed(self) -> set[str]:
        """The names of the tests that must fail."""
        return {test for difference in self.differences for test in difference.tests}


@dataclass(frozen=True, slots=True)
class Declaration:
    """All suites, and what is installed beside them."""

    needs: list[str]
    suites: list[Suite]


def declaration() -> Declaration:
    """Return what `suites.toml` declares. Raises TypeError for a field that it must not have, or lacks."""
    read = tomllib.loads(DECLARED.read_text())
    suites = [
        Suite(**{**given, "name": name, "differences": [Difference(**one) for one in given.get("differences", ())]})
        for name, given in read["suites"].items()
    ]
    return Declaration(read["needs"], suites)


def complaints(suite: Suite, outcomes: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a run, which ended in `outcomes`, "passed", "failed" or "skipped" for each test."""
    passed, failed = tests_that("passed", outcomes), tests_that("failed", outcomes)
    found = []
    if len(passed) < suite.passes:
        found.append(f"{len(passed)} tests passed, fewer than {suite.passes}")
    found.extend(f"failed, and is not listed: {test}" for test in _in_order(failed - suite.listed))
    found.extend(f"listed, and passed: {test}" for test in _in_order(passed & suite.listed))
    found.extend(f"listed, and did not run: {test}" for test in _in_order(suite.listed - passed - failed))
    return found


def tests_that(outcome: str, outcomes: Mapping[str, str]) -> set[str]:
    """Return the tests that ended so."""
    return {test for test, one in outcomes.items() if one == outcome}


def _in_order(tests: Iterable[str]) -> list[str]:
    return sorted(tests)
