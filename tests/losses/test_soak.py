"""The soak, for a few seconds on each engine: nothing is lost through races, broken networks and killed processes."""

import pytest

from tests.losses.soak import soak


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_nothing_is_lost_in_a_few_seconds(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = soak(engine, seconds=4, seed=1)
    with capsys.disabled():
        print(f"\n{figures}")
    assert figures.losses == []
    assert figures.outcomes["ok"] > 20
