"""The contract of session stores as tests, and further tools to test a store. To begin, subclass StoreContract:

    from prism_wsgi.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def clock(self):
            return ManualClock()

        @pytest.fixture
        def store(self, clock):
            return MyStore(clock=clock)

`states.StoreMachine` tries random sequences of calls (it needs Hypothesis), `interleavings` runs requests side by
side in every order of their store calls, and `faults.FlakyStore` fails when it is told to.

`pip install "prism_wsgi[testing]"` installs pytest and Hypothesis; only StoreContract and StoreMachine need them. A
line in your `conftest.py` makes failures show their values: `pytest.register_assert_rewrite("prism_wsgi.testing")`.
"""

from typing import TYPE_CHECKING, Any

from prism_wsgi.testing.clock import ManualClock
from prism_wsgi.testing.faults import FlakyStore, When
from prism_wsgi.testing.interleavings import Steps, every_interleaving
from prism_wsgi.testing.sessions import increment, loaded, marker_of, moment, new_session, race

if TYPE_CHECKING:
    from prism_wsgi.testing.contract import StoreContract, having

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


def __getattr__(name: str) -> Any:
    # A suite of unittest may use ManualClock without pytest.
    if name in ("StoreContract", "having"):
        try:
            from prism_wsgi.testing import contract
        except ModuleNotFoundError as error:
            raise ImportError(f'{name} needs pytest; install it: pip install "prism_wsgi[testing]"') from error
        return getattr(contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
