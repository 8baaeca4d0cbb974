"""Plugin that writes what became of each test, as JSON, to the file that PRISM_PEER_OUTCOMES names."""

import json
import os
from pathlib import Path

import pytest

_WEIGHT = {"passed": 0, "skipped": 1, "failed": 2}
_outcomes: dict[str, str] = {}


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _outcomes[report.nodeid] = "failed"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    before = _outcomes.get(report.nodeid, "passed")
    _outcomes[report.nodeid] = max(before, report.outcome, key=_WEIGHT.__getitem__)


def pytest_sessionfinish() -> None:
    Path(os.environ["PRISM_PEER_OUTCOMES"]).write_text(json.dumps(_outcomes))
