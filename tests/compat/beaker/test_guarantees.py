"""What Beaker's interface gains underneath: nothing lost between requests at once, and logout sticks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from prism_wsgi import Session
from prism_wsgi.compat.beaker import SessionMiddleware
from prism_wsgi.compat.beaker.session import BeakerSession
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application_of, run_at_once

Action = Callable[[BeakerSession], object]


def browser_of(**settings: Any) -> Browser:
    """Return a new visitor's browser for an application with these settings."""
    return Browser(SessionMiddleware(application_of("beaker.session"), secret=SECRET, **settings))


def values_of(browser: Browser) -> dict[str, Any]:
    """Return what the next request finds in the session, without Beaker's own keys."""
    return {key: value for key, value in browser.read().items() if not key.startswith("_")}


@pytest.fixture(params=[{}, {"auto": True}, {"save_accessed_time": False}], ids=["save", "auto", "unrecorded"])
def browser(request: pytest.FixtureRequest, empty_sqlite_url: str) -> Browser:
    browser = browser_of(type="ext:database", url=empty_sqlite_url, **request.param)
    browser.do(put("colour", "blue"))
    return browser


def put(key: str, value: object) -> Action:
    def action(session: BeakerSession) -> None:
        session[key] = value
        session.save()

    return action


def test_requests_at_once_that_change_different_keys_both_keep_their_changes(browser: Browser) -> None:
    def put_beside_another(session: BeakerSession) -> None:
        assert "size" not in session
        browser.do(put("size", "small"))
        put("shape", "round")(session)

    browser.do(put_beside_another)
    assert values_of(browser) == {"colour": "blue", "size": "small", "shape": "round"}


def test_a_request_that_only_reads_undoes_nothing(browser: Browser) -> None:
    def read_beside_another(session: BeakerSession) -> None:
        assert session["colour"] == "blue"
        browser.do(put("colour", "red"))

    browser.do(read_beside_another)
    assert values_of(browser) == {"colour": "red"}


@pytest.mark.parametrize("end", [BeakerSession.delete, BeakerSession.invalidate])
def test_a_request_under_way_cannot_bring_back_a_session_that_has_ended(browser: Browser, end: Action) -> None:
    def put_beside_the_end(session: BeakerSession) -> None:
        assert session["colour"] == "blue"
        browser.do(end)
        put("shape", "round")(session)

    browser.do(put_beside_the_end)
    assert values_of(browser) == {}


def test_counting_under_a_lock_is_exact(browser: Browser) -> None:
    def count(session: BeakerSession) -> None:
        session.lock()
        session.load()
        session["n"] = session.get("n", 0) + 1
        session.save()
        session.unlock()

    run_at_once([partial(browser.do, count)] * 8)
    assert values_of(browser)["n"] == 8


def test_a_lock_that_was_forgotten_ends_with_the_response(browser: Browser) -> None:
    browser.do(BeakerSession.lock)
    browser.do(BeakerSession.lock)
    assert values_of(browser) == {"colour": "blue"}


def test_a_session_is_not_opened_by_its_id(browser: Browser) -> None:
    with pytest.raises(NotImplementedError, match="destroy_all"):
        browser.do(lambda session: session.get_by_id(session.id))


def test_a_value_that_cannot_be_stored_is_told_where_it_is_saved(browser: Browser) -> None:
    with pytest.raises(ValueError, match="a session cannot store"):
        browser.do(put("owner", object()))
    assert values_of(browser) == {"colour": "blue"}


def test_nothing_that_is_printed_shows_what_is_in_a_session(browser: Browser) -> None:
    printed = browser.do(lambda session: f"{session!r} {session}")
    assert "blue" not in printed


PrismAction = Callable[[BeakerSession, Session], object]
SETTINGS: dict[str, dict[str, Any]] = {
    "save": {},
    "auto": {"auto": True},
    "unrecorded": {"save_accessed_time": False},
}


def both(action: PrismAction) -> Action:
    """Return what a page does that uses our session beside Beaker's."""
    return lambda session: action(session, session._session)


def enter(beaker: BeakerSession, prism: Session) -> None:
    prism["role"] = "user"
    prism.login("ada")


def look(beaker: BeakerSession, prism: Session) -> None:
    assert beaker["role"] == "user"


def change(beaker: BeakerSession, prism: Session) -> None:
    beaker["role"] = "admin"


def save(beaker: BeakerSession, prism: Session) -> None:
    beaker.save()


def lock(beaker: BeakerSession, prism: Session) -> None:
    beaker.lock()


def unlock(beaker: BeakerSession, prism: Session) -> None:
    beaker.unlock()


def leave(beaker: BeakerSession, prism: Session) -> None:
    prism.logout()


LOGOUTS: dict[str, list[PrismAction]] = {
    "looked before": [look, leave],
    "saved before": [look, save, leave],
    "changed before": [change, save, leave],
    "saved after": [look, leave, save],
    "locked before": [lock, save, leave, unlock],
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("steps", LOGOUTS.values(), ids=LOGOUTS)
def test_a_logout_by_our_session_is_not_undone_by_the_copy(
    settings: dict[str, Any], steps: list[PrismAction]
) -> None:
    browser = browser_of(**settings)
    browser.do(both(enter))
    assert browser.do(both(lambda beaker, prism: (prism.user, beaker["role"]))) == ("ada", "user")
    browser.do(lambda beaker: [step(beaker, beaker._session) for step in steps])
    assert browser.do(both(lambda beaker, prism: prism.user)) is None
    assert values_of(browser) == {}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_both_sessions_change_is_kept(settings: dict[str, Any]) -> None:
    browser = browser_of(**settings)
    browser.do(both(lambda beaker, prism: prism.update(old=1, gone=1, tags=["a"])))

    def change_both(beaker: BeakerSession, prism: Session) -> None:
        beaker["colour"] = "blue"
        del beaker["gone"]
        prism["role"] = "user"
        prism["old"] = 2
        beaker.save()
        beaker.persist()
        prism["late"] = True
        beaker["tags"].append("b")

    browser.do(both(change_both))
    assert values_of(browser) == {"old": 2, "tags": ["a", "b"], "colour": "blue", "role": "user", "late": True}
