"""The fixtures of the pages' tests: each store in turn, and its clock."""

import pytest

from prism_wsgi import SessionStore
from prism_wsgi.testing import ManualClock


@pytest.fixture
def clock(manual_clock: ManualClock) -> ManualClock:
    return manual_clock


@pytest.fixture
def store(every_store: SessionStore) -> SessionStore:
    return every_store
