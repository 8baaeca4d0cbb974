"""TimeLeft over WSGI, on every store."""

import pytest

from prism_wsgi import SessionStore
from prism_wsgi.pages import TimeLeft
from prism_wsgi.testing import ManualClock
from tests.support.page_visits import Visitor, site_with


@pytest.fixture
def visitor(store: SessionStore, clock: ManualClock) -> Visitor:
    return Visitor(site_with(TimeLeft(clock=clock), store, clock, ttl=600))


def test_seconds_left_become_fewer_although_they_are_asked_for(visitor: Visitor, clock: ManualClock) -> None:
    visitor.login("ada")
    left = []
    for _ in range(3):
        left.append(visitor.get("/left").json["seconds"])
        clock.advance(200)
    assert left == [600, 400, 200]
    assert visitor.get("/left").json["seconds"] is None
    assert visitor.user == "nobody"


def test_staying_begins_the_time_anew(visitor: Visitor, clock: ManualClock) -> None:
    visitor.login("ada")
    clock.advance(500)
    assert visitor.get("/left?stay").status_int == 200
    assert visitor.get("/left").json["seconds"] == 600


def test_nobody_has_no_time_left(visitor: Visitor) -> None:
    assert visitor.get("/left").json["seconds"] is None


def test_sentences_say_how_many_minutes_are_left(visitor: Visitor, clock: ManualClock) -> None:
    visitor.login("ada")
    clock.advance(590)
    answer = visitor.get("/left").json
    assert answer["warning"] == "You will be logged out in 1 minute, unless you go on."
    assert answer["stay"] == "Stay logged in"
    assert answer["warn_before"] == 120


def test_script_is_served_beside_it_and_gives_no_cookie(visitor: Visitor) -> None:
    answer = visitor.get("/left?file=time_left.js")
    assert answer.content_type == "text/javascript"
    assert "Set-Cookie" not in answer.headers
    assert visitor.post("/left").status_int == 405
    assert visitor.get("/left?file=../texts.py").content_type == "application/json"
