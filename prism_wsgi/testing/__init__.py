"""The contract of session stores as tests, and what else it takes to trust a store: subclass StoreContract to begin.

    from prism_wsgi.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def clock(self):
            return ManualClock()

        @pytest.fixture
        def store(self, clock):
            return MyStore(clock=clock)

`states.StoreMachine` tries what nobody thought of (it needs Hypothesis), `interleavings` runs requests side by side
in every order there is, and `faults.FlakyStore` fails when it is told to.

`pip install "prism_wsgi[testing]"` installs pytest and Hypothesis. A line in your `conftest.py` makes failures show
their values: `pytest.register_assert_rewrite("prism_wsgi.testing")`.
"""

from prism_wsgi.testing.contract import (
    ManualClock,
    StoreContract,
    having,
    increment,
    loaded,
    marker_of,
    moment,
    new_session,
    race,
)
from prism_wsgi.testing.faults import FlakyStore, When
from prism_wsgi.testing.interleavings import Steps, every_interleaving

__all__ = [
    "FlakyStore",
    "ManualClock",
    "Steps",
    "StoreContract",
    "When",
    "every_interleaving",
    "having",
    "increment",
    "loaded",
    "marker_of",
    "moment",
    "new_session",
    "race",
]
