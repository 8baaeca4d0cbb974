"""What a request that saves more than once asks of the store, and what a new id leaves behind of another's lock."""

import logging

import pytest
from browsing import Site, WatchedStore, read, write

from prism_wsgi import Session, lease

pytest_plugins = ["site_fixtures"]


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


def test_a_login_while_another_request_is_inside_atomic_leaves_no_lock_on_the_new_id(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LOCK_SECONDS", 0.0)
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
