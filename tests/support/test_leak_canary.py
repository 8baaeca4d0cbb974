"""The canary of every test sings when it should: a leak planted in each place is found."""

import logging
import warnings
from collections.abc import Callable

import pytest

from prism_wsgi import SessionMiddleware, StoredSession, StoreUnavailable
from prism_wsgi.errors import InsecureSecretWarning
from prism_wsgi.persistence.document import Document
from prism_wsgi.request.state import SessionState
from tests.support.leak_canary import Canary
from tests.support.visitors import Browser, application, put

KEY = "canary-key-Zx81Zx81-0123456789-abcdef"
DATA = "canary-data-Qw42Qw42-0123456789"

Leak = Callable[[Browser], str]


def cookie(browser: Browser) -> str:
    return browser.cookies["prism_session"]


def secret(browser: Browser) -> str:
    return cookie(browser).partition(".")[0]


WHAT: dict[str, Leak] = {"cookie": cookie, "secret": secret, "data": lambda browser: DATA, "key": lambda browser: KEY}


@pytest.fixture
def browser() -> Browser:
    browser = Browser(SessionMiddleware(application, secret=KEY))
    browser.do(put("key", DATA))
    return browser


@pytest.fixture(params=WHAT)
def leaked(request: pytest.FixtureRequest, browser: Browser) -> str:
    return WHAT[request.param](browser)


def found(canary: Canary) -> bool:
    """Tell whether the canary found something, and let this test pass all the same."""
    leaks = canary.leaks()
    canary.said.clear()
    return bool(leaks)


def test_an_ordinary_visit_leaks_nothing(browser: Browser, canary: Canary) -> None:
    assert canary.hidden
    assert canary.said
    assert not found(canary)


def test_a_leak_into_the_log_is_found(leaked: str, canary: Canary) -> None:
    logging.getLogger("prism_wsgi.anything").debug("saved %s", leaked)
    assert found(canary)


def test_a_leak_into_an_attribute_of_a_log_record_is_found(leaked: str, canary: Canary) -> None:
    logging.getLogger("prism_wsgi").debug("saved", extra={"cookie": leaked})
    assert found(canary)


def test_a_leak_into_a_warning_is_found(leaked: str, canary: Canary) -> None:
    with pytest.warns(InsecureSecretWarning):
        warnings.warn(f"{leaked} is weak", InsecureSecretWarning)
    assert found(canary)


def test_a_leak_into_the_cause_of_an_error_is_found(
    leaked: str, browser: Browser, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(state: SessionState, data: bytes | None = None) -> None:
        raise StoreUnavailable("the store failed") from ValueError(f"INSERT ... ({leaked})")

    monkeypatch.setattr("prism_wsgi.request.saving.save", save)
    monkeypatch.setattr(
        "prism_wsgi.request.exchange.Exchange.recover", lambda self, error: (_ for _ in ()).throw(error)
    )
    with pytest.raises(StoreUnavailable):
        browser.do(put("other", 1))
    assert found(canary)


def test_a_leak_into_what_an_object_prints_is_found(
    leaked: str, browser: Browser, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionState, "__repr__", lambda self: f"<SessionState {leaked}>")
    browser.do(put("other", 1))
    assert found(canary)


def test_a_stored_session_and_its_document_print_themselves_without_data() -> None:
    row = StoredSession("ab" * 32, DATA.encode(), 1, 0, 1)
    assert DATA not in f"{row!r} {row} {Document({'key': DATA})!r}"
    assert row.id in repr(row)
