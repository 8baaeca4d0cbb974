"""The fixture that puts any application on a socket, for the test modules that name this one as a plugin."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.served import Browser
from tests.support.serving import Browse, serving


@pytest.fixture
def browse() -> Iterator[Browse]:
    """Serve an application and return a browser pointed at it."""
    with ExitStack() as running:
        yield lambda app: Browser(running.enter_context(serving(app)))
