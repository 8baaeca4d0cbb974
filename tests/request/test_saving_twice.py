"""What a request that saves more than once asks of the store, and what a new id leaves behind of another's lock."""

import logging
from collections.abc import Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from prism_wsgi import MemoryStore, Session, StoredSession, tokens
from prism_wsgi.errors import SessionConflict
from prism_wsgi.persistence import identity
from prism_wsgi.request import atomic
from tests.support.browsing import Clock, Site, ThreeVerbStore, WatchedStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]


def test_a_second_save_of_one_request_goes_on_from_the_first(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prism_wsgi")
    browser = site.browser()
    browser.visit(write(n=1))

    def save_twice(session: Session) -> None:
        with session.atomic():
            session["n"] += 1
        session["n"] += 1

    site.calls.clear()
    browser.visit(save_twice)
    # to read, to take the lock afresh, to give it back, to save what came after
    assert site.calls == ["load", "load", "save", "save", "save"]
    assert caplog.records == []
    assert browser.visit(read("n")).result == 3


def test_a_second_save_of_one_request_is_merged_with_what_another_saved_after_the_first(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    header = browser.cookie_header

    def save_twice(session: Session) -> None:
        with session.atomic():
            session["n"] += 1
        site.browser().visit(write(theirs=1), HTTP_COOKIE=header)
        session["mine"] = 1

    browser.visit(save_twice)
    assert browser.visit(dict).result == {"n": 2, "theirs": 1, "mine": 1}


def test_atomic_saves_at_once_in_what_begins_after_logout(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))

    def begin_again(session: Session) -> str:
        session.logout()
        with session.atomic():
            session["n"] = 2
        return site.calls[-1]

    assert browser.visit(begin_again).result == "save"


def test_what_a_page_writes_while_it_streams_goes_on_from_the_activity_recorded(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    site.clock.advance(1000)
    site.calls.clear()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        session = environ["prism.session"]
        assert session["n"] == 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        session["n"] = 2

    browser.request(app)
    assert site.calls == ["load", "touch" if isinstance(site.store, WatchedStore) else "save", "save"]
    assert browser.visit(read("n")).result == 2


def test_a_new_id_given_up_for_a_rivals_save_leaves_nothing_stored(clock: Clock) -> None:
    memory = MemoryStore(clock=clock)
    site = Site(ThreeVerbStore(memory), clock)
    browser = site.browser()
    browser.visit(write(n=1))
    header = browser.cookie_header

    def be_overtaken(session: Session) -> None:
        session.login("ann")
        site.browser().visit(write(theirs=1), HTTP_COOKIE=header)

    browser.visit(be_overtaken)
    assert browser.visit(dict).result == {"n": 1, "theirs": 1}
    assert [row.user for row in memory.find_all()] == ["ann"]


def test_a_save_under_an_id_that_atomic_has_stored_is_merged_as_any_other(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))

    def move_and_write(session: Session) -> None:
        with session.atomic():
            session.regenerate()
        row = site.store.load(session.id)
        assert row is not None
        site.store.save(row)
        session["late"] = 1

    assert browser.visit(move_and_write).status == 200
    assert browser.visit(dict).result == {"n": 1, "late": 1}


def test_atomic_waits_for_nobody_where_nobody_else_can_be(site: Site) -> None:
    def count(session: Session) -> None:
        with session.atomic():
            session["n"] = session.get("n", 0) + 1

    def move_and_count(session: Session) -> None:
        session.regenerate()
        count(session)

    browser = site.browser()
    browser.visit(count)
    assert site.calls == ["save"]
    old = browser.cookie_header
    site.calls.clear()
    browser.visit(move_and_count)
    assert site.calls == (["load", "replace"] if isinstance(site.store, WatchedStore) else ["load", "save", "save"])
    site.calls.clear()
    site.browser().visit(count, HTTP_COOKIE=old)
    assert site.calls == ["load"]


def test_a_login_while_another_request_is_inside_atomic_leaves_no_lock_on_the_new_id(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "WAIT_SECONDS", 0.0)
    browser = site.browser()
    browser.visit(write(n=1))
    header = browser.cookie_header

    def count(session: Session) -> None:
        with session.atomic():
            session["n"] += 1

    def be_overtaken(session: Session) -> None:
        with session.atomic():
            browser.visit(lambda session: session.login("ann"))
            assert browser.visit(count).status == 200

    site.browser().visit(be_overtaken, HTTP_COOKIE=header)
    assert browser.visit(lambda session: (session.user, session["n"])).result == ("ann", 2)


def test_a_new_id_is_one_transaction_where_the_store_has_them(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    browser.visit(lambda session: session.regenerate())
    one_by_one = not isinstance(site.store, WatchedStore)
    assert site.calls == (["load", "save", "save"] if one_by_one else ["load", "replace"])


class EndingStore(WatchedStore):
    """A session is saved by one request and ended by another just when it is to get a new id."""

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        self.store.destroy(old.id)
        raise SessionConflict("saved by another request")


def test_a_session_that_ends_while_it_gets_a_new_id_does_not_come_back_under_it(clock: Clock) -> None:
    memory = MemoryStore(clock=clock)
    browser = Site(EndingStore(memory), clock).browser()
    browser.visit(write(n=1))
    page = browser.visit(lambda session: session.regenerate())
    assert (page.status, page.all("Set-Cookie")) == (200, [])
    assert len(memory) == 0


def test_a_new_id_that_is_taken_is_drawn_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other, browser = site.browser(), site.browser()
    other.visit(write(n="other"))
    browser.visit(write(n=1))
    draws = iter([other.token.partition(".")[0]])
    draw = tokens.new_secret
    monkeypatch.setattr(identity, "new_secret", lambda now: next(draws, None) or draw(now))
    site.calls.clear()
    assert browser.visit(lambda session: session.regenerate()).status == 200
    assert len(site.calls) <= 6, "drawn again at once, not after every other way was tried"
    assert (browser.visit(read("n")).result, other.visit(read("n")).result) == (1, "other")
