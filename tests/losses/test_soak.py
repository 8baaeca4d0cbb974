"""The soak, for a few seconds on each engine: nothing is lost through races, broken networks and killed processes.

Nor is anything lost, or mixed up, where exceptions from outside interrupt requests.
"""

import pytest

from tests.losses.interrupts import ENGINES, interrupt
from tests.losses.soak import soak


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_nothing_is_lost_in_a_few_seconds(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = soak(engine, seconds=4, seed=1)
    with capsys.disabled():
        print(f"\n{figures}")
    assert figures.losses == []
    assert figures.outcomes["ok"] > 20


@pytest.mark.parametrize("engine", ENGINES)
def test_signals_in_gunicorns_workers_mix_up_no_sessions_and_cost_no_connection(
    engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = interrupt(engine, seconds=4, seed=1)
    with capsys.disabled():
        print(f"\n{figures}")
    assert figures.faults == []
    assert figures.interrupted > 5
    assert figures.counted > 5


@pytest.mark.parametrize("engine", ["sentinel", "cluster"])
def test_nothing_that_a_replica_has_is_lost_when_it_takes_over(
    engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = soak(engine, seconds=4, seed=1)
    with capsys.disabled():
        print(f"\n{figures}")
    assert figures.losses == []
    assert figures.outcomes["ok"] > 20
    assert figures.failovers
