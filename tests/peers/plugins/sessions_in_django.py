"""Settings for Django's own tests, whose sessions we keep."""

import os
import sys

sys.path.insert(0, os.getcwd())  # Django's tests/, which has its own settings for SQLite

from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403

SESSION_ENGINE = "prism_wsgi.django"
PRISM_SESSION_STORE = "default"
TEST_RUNNER = "django_outcomes.Runner"
