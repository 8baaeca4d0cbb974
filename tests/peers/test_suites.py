"""The suites of other projects are declared well, and a run that is not as declared is a failure."""

import re
from collections import Counter

import pytest

from tests.peers.suites import DECLARED, Difference, Suite, complaints, declaration

SUITES = declaration().suites

SUITE = Suite("Shop", "shop==1.0", "plugin", passes=2, differences=[Difference("It costs money.", ["test_pay"])])
GOOD = {"test_see": "passed", "test_choose": "passed", "test_pay": "failed", "test_send": "skipped"}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_a_suite_names_one_release_and_a_plugin_that_is_there(suite: Suite) -> None:
    assert re.fullmatch(r"[\w-]+==[\w.]+", suite.release)
    assert (DECLARED.parent / "plugins" / f"{suite.plugin}.py").is_file()
    assert suite.passes > 0


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_each_difference_has_a_reason_and_names_tests_of_the_suite_once(suite: Suite) -> None:
    tests = [test for difference in suite.differences for test in difference.tests]
    assert [test for test, times in Counter(tests).items() if times > 1] == []
    assert [test for test in tests if not test.startswith(tuple(suite.tests))] == []
    assert all(difference.reason and not difference.reason.endswith(".") for difference in suite.differences)


def test_what_the_suites_need_is_pinned() -> None:
    assert [need for need in declaration().needs if "==" not in need] == []


def test_a_run_as_declared_is_no_failure() -> None:
    assert complaints(SUITE, GOOD) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"test_see": "skipped"}, "1 tests passed, fewer than 2"),
        ({"test_send": "failed"}, "failed, and is not listed: test_send"),
        ({"test_pay": "passed"}, "listed, and passed: test_pay"),
        ({"test_pay": "skipped"}, "listed, and did not run: test_pay"),
    ],
)
def test_a_run_that_is_not_as_declared_is_a_failure(changed: dict[str, str], complaint: str) -> None:
    assert complaints(SUITE, {**GOOD, **changed}) == [complaint]


def test_a_suite_that_did_not_start_is_a_failure() -> None:
    assert complaints(SUITE, {}) == ["0 tests passed, fewer than 2", "listed, and did not run: test_pay"]
