"""prism_wsgi.testing: what can be used without pytest and Hypothesis."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.whole  # each starts a program

WITHOUT_TEST_TOOLS = """
import sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None
"""


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_clock_and_helpers_are_there_without_pytest_and_hypothesis() -> None:
    program = f"""{WITHOUT_TEST_TOOLS}
from prism_wsgi import MemoryStore
from prism_wsgi.testing import FlakyStore, ManualClock, Steps, every_interleaving, new_session
clock = ManualClock()
store = FlakyStore(MemoryStore(clock=clock))
session = new_session()
store.save(session)
clock.advance(3600)
print(store.load(session.id))
"""
    assert output_of(program) == "None\n"


def test_without_pytest_the_contract_says_what_to_install() -> None:
    program = f"""{WITHOUT_TEST_TOOLS}
import prism_wsgi.testing
try:
    prism_wsgi.testing.StoreContract
except ImportError as error:
    print(error)
"""
    assert output_of(program) == 'StoreContract needs pytest; install it: pip install "prism_wsgi[testing]"\n'
