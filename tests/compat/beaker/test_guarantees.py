"""What Beaker's interface gains underneath: nothing lost between requests at once, and logout sticks."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from prism_wsgi import Session, migrate
from prism_wsgi.compat.beaker import SessionMiddleware
from prism_wsgi.compat.beaker.session import BeakerSession
from tests.support.visitors import run_at_once

SECRET = "b7a0f4cf1d1c8e5d9a6e3b2f0c4d5e6f7a8b9c0d"

Action = Callable[[BeakerSession], object]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["test.answer"].append(environ["test.action"](environ["beaker.session"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


class Visitor:
    """Keeps the application's cookie; a request may be made while another is under way."""

    def __init__(self, **settings: Any) -> None:
        self._site = validator(SessionMiddleware(application, secret=SECRET, **settings))
        self._cookie = ""

    def do(self, action: Action) -> Any:
        answer: list[object] = []
        environ: WSGIEnvironment = {
            "QUERY_STRING": "",
            "HTTP_COOKIE": self._cookie,
            "test.action": action,
            "test.answer": answer,
        }
        setup_testing_defaults(environ)

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
            for name, value in headers:
                if name.lower() == "set-cookie":
                    self._cookie = value.partition(";")[0]
            return lambda data: None

        body = self._site(environ, start_response)
        list(body)
        body.close()  # type: ignore[attr-defined]
        return answer[0]

    def values(self) -> dict[str, Any]:
        return {key: value for key, value in self.do(dict).items() if not key.startswith("_")}


@pytest.fixture(params=[{}, {"auto": True}, {"save_accessed_time": False}], ids=["save", "auto", "unrecorded"])
def visitor(request: pytest.FixtureRequest, sqlite_url: str) -> Visitor:
    migrate.upgrade(sqlite_url)
    visitor = Visitor(type="ext:database", url=sqlite_url, **request.param)
    visitor.do(put("colour", "blue"))
    return visitor


def put(key: str, value: object) -> Action:
    def action(session: BeakerSession) -> None:
        session[key] = value
        session.save()

    return action


def test_requests_at_once_that_change_different_keys_both_keep_their_changes(visitor: Visitor) -> None:
    def put_beside_another(session: BeakerSession) -> None:
        assert "size" not in session
        visitor.do(put("size", "small"))
        put("shape", "round")(session)

    visitor.do(put_beside_another)
    assert visitor.values() == {"colour": "blue", "size": "small", "shape": "round"}


def test_a_request_that_only_reads_undoes_nothing(visitor: Visitor) -> None:
    def read_beside_another(session: BeakerSession) -> None:
        assert session["colour"] == "blue"
        visitor.do(put("colour", "red"))

    visitor.do(read_beside_another)
    assert visitor.values() == {"colour": "red"}


@pytest.mark.parametrize("end", [BeakerSession.delete, BeakerSession.invalidate])
def test_a_request_under_way_cannot_bring_back_a_session_that_has_ended(visitor: Visitor, end: Action) -> None:
    def put_beside_the_end(session: BeakerSession) -> None:
        assert session["colour"] == "blue"
        visitor.do(end)
        put("shape", "round")(session)

    visitor.do(put_beside_the_end)
    assert visitor.values() == {}


def test_counting_under_a_lock_is_exact(visitor: Visitor) -> None:
    def count(session: BeakerSession) -> None:
        session.lock()
        session.load()
        session["n"] = session.get("n", 0) + 1
        session.save()
        session.unlock()

    run_at_once([partial(visitor.do, count)] * 8)
    assert visitor.values()["n"] == 8


def test_a_lock_that_was_forgotten_ends_with_the_response(visitor: Visitor) -> None:
    visitor.do(BeakerSession.lock)
    visitor.do(BeakerSession.lock)
    assert visitor.values() == {"colour": "blue"}


def test_a_session_is_not_opened_by_its_id(visitor: Visitor) -> None:
    with pytest.raises(NotImplementedError, match="destroy_all"):
        visitor.do(lambda session: session.get_by_id(session.id))


def test_a_value_that_cannot_be_stored_is_told_where_it_is_saved(visitor: Visitor) -> None:
    with pytest.raises(ValueError, match="a session cannot store"):
        visitor.do(put("owner", object()))
    assert visitor.values() == {"colour": "blue"}


def test_nothing_that_is_printed_shows_what_is_in_a_session(visitor: Visitor) -> None:
    printed = visitor.do(lambda session: f"{session!r} {session}")
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
    visitor = Visitor(**settings)
    visitor.do(both(enter))
    assert visitor.do(both(lambda beaker, prism: (prism.user, beaker["role"]))) == ("ada", "user")
    visitor.do(lambda beaker: [step(beaker, beaker._session) for step in steps])
    assert visitor.do(both(lambda beaker, prism: prism.user)) is None
    assert visitor.values() == {}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_both_sessions_change_is_kept(settings: dict[str, Any]) -> None:
    visitor = Visitor(**settings)
    visitor.do(both(lambda beaker, prism: prism.update(old=1, gone=1, tags=["a"])))

    def change_both(beaker: BeakerSession, prism: Session) -> None:
        beaker["colour"] = "blue"
        del beaker["gone"]
        prism["role"] = "user"
        prism["old"] = 2
        beaker.save()
        beaker.persist()
        prism["late"] = True
        beaker["tags"].append("b")

    visitor.do(both(change_both))
    assert visitor.values() == {"old": 2, "tags": ["a", "b"], "colour": "blue", "role": "user", "late": True}
