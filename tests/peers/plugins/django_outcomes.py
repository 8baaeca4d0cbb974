"""Runner that adds our engine to Django's tests of session engines, and writes what became of each test.

The outcomes go, as JSON, to the file that PRISM_PEER_OUTCOMES names.
"""

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner


class Outcomes(unittest.TextTestResult):
    """The result of a run, and the outcome of each test by its name."""

    outcomes: dict[str, str] = {}

    def stopTest(self, test: Any) -> None:  # noqa: N802 - unittest's name
        self.outcomes.setdefault(test.id(), "passed")
        super().stopTest(test)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802 - unittest's name
        self.outcomes[test.id()] = "skipped"
        super().addSkip(test, reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        self.outcomes[test.id()] = "skipped"
        super().addExpectedFailure(test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        self.outcomes[test.id()] = "failed"
        super().addFailure(test, err)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        self.outcomes[test.id()] = "failed"
        super().addError(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        if err is not None:
            self.outcomes[test.id()] = "failed"
        super().addSubTest(test, subtest, err)


class Runner(DiscoverRunner):  # type: ignore[misc]
    """Django's runner, with the tests of a session engine for ours."""

    def build_suite(self, *arguments: Any, **keywords: Any) -> Any:
        from sessions_tests.tests import SessionTestsMixin  # type: ignore[import-not-found]

        from prism_wsgi.django import SessionStore

        suite = super().build_suite(*arguments, **keywords)
        tests = type("PrismSessionTests", (SessionTestsMixin, SimpleTestCase), {"backend": SessionStore})
        tests.__module__ = "sessions_tests.tests"
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
        return suite

    def get_resultclass(self) -> type[Outcomes]:
        return Outcomes

    def run_suite(self, suite: Any, **keywords: Any) -> Any:
        result = super().run_suite(suite, **keywords)
        Path(os.environ["PRISM_PEER_OUTCOMES"]).write_text(json.dumps(Outcomes.outcomes))
        return result
