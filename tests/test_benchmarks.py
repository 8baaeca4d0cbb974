"""The benchmarks measure what they say they do. No test asserts a time."""

import json
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import CHART, RESULTS
from benchmarks.machine.databases import Places
from benchmarks.machine.facts import machine
from benchmarks.machine.placement import Placement
from benchmarks.parts.plan import Plan
from benchmarks.parts.registry import run
from benchmarks.parts.requests import cells, take_turns
from benchmarks.parts.visitor import Visitor
from benchmarks.report.chart import draw
from benchmarks.report.figures import Figures, messages
from benchmarks.report.page import as_text
from benchmarks.report.targets import targets
from benchmarks.subjects.floor.middleware import FloorMiddleware
from benchmarks.subjects.floor.redis_store import RedisFloor
from benchmarks.subjects.floor.stores import SQLFloor
from benchmarks.subjects.registry import FLOOR, PRISM, subjects
from benchmarks.subjects.scenarios import LARGE, SCENARIOS, SMALL, Scenario
from benchmarks.subjects.subject import Subject
from prism_wsgi import migrate
from prism_wsgi.serializers import TypedSerializer
from tests.support import databases

NAMED = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def places(request: pytest.FixtureRequest) -> Places:
    """One engine, with the tables of prism_wsgi and of the floor."""
    if request.param == "memory":
        return {"memory": ""}
    if request.param == "redis":
        return {"redis": f"{databases.REDIS}?prefix={request.getfixturevalue('redis_prefix')}"}
    fixture = "mysqlclient_url" if request.param == "mariadb" else f"{request.param}_url"
    place: str = request.getfixturevalue(fixture)
    for table in ("prism_sessions", "floor_sessions"):
        migrate.upgrade(place, table_name=table)
    return {request.param: place}


@pytest.fixture(params=[PRISM, FLOOR])
def subject(request: pytest.FixtureRequest, places: Places) -> Iterator[Subject]:
    (found,) = subjects(places, [request.param])
    yield found
    if isinstance(found.application, FloorMiddleware) and isinstance(found.application.store, SQLFloor | RedisFloor):
        found.application.store.close()


@pytest.fixture
def figures() -> Figures:
    """One short run in memory."""
    made = cells(subjects({"memory": ""}, [PRISM, FLOOR]), [NAMED["untouched"], NAMED["read"]])
    for cell in made:
        cell.prepare()
    on = machine()
    return {"machine": on, "load_after": on["load_average"], "placement": "Anywhere."} | take_turns(made, 0)


def visitor(subject: Subject, scenario: Scenario) -> Visitor:
    application = subject.elsewhere.get(scenario.name, subject.application)
    return Visitor(application, scenario, subject.before.get(scenario.name))


def shown(browser: Visitor, cookie: str) -> bytes:
    """Return what is stored: the user, a number, how many entries the history has."""
    return browser.request("/show", cookie)


def test_sessions_have_the_sizes_they_are_called_by() -> None:
    sizes = [len(TypedSerializer().dumps(content)) for content in (SMALL, LARGE)]
    assert sizes == [pytest.approx(200, abs=10), pytest.approx(4096, abs=100)]


def test_the_floor_and_prism_wsgi_store_what_is_written(subject: Subject) -> None:
    browser = visitor(subject, NAMED["write"])
    before = shown(browser, browser.cookie)
    browser.send()
    assert before == b"alice@example.org 0 0"
    after = shown(browser, browser.cookie)
    assert after.startswith(b"alice@example.org ")
    assert after != before


def test_the_floor_and_prism_wsgi_begin_a_session_that_the_cookie_opens(subject: Subject) -> None:
    browser = visitor(subject, NAMED["new"])
    browser.send()
    stored = shown(browser, browser.received_cookie())
    assert stored.startswith(b"None ")
    assert stored != b"None None 0"


def test_the_floor_and_prism_wsgi_open_nothing_for_a_forged_cookie(subject: Subject) -> None:
    browser = visitor(subject, NAMED["forged_read"])
    browser.send()
    assert shown(browser, browser.cookie) == b"None None 0"


def test_the_floor_and_prism_wsgi_give_a_login_another_id_and_end_the_old_one(subject: Subject) -> None:
    browser = visitor(subject, NAMED["login"])
    old = browser.cookie
    browser.send()
    assert browser.cookie != old
    assert shown(browser, browser.cookie).endswith(b" 0 0")
    assert shown(browser, old) == b"None None 0"


def test_the_floor_and_prism_wsgi_set_a_new_cookie_with_each_touch(subject: Subject) -> None:
    browser = visitor(subject, NAMED["touch"])
    browser.send()
    assert browser.received_cookie()
    assert shown(browser, browser.cookie) == b"alice@example.org 0 0"


def test_a_large_session_is_read_as_a_whole(subject: Subject) -> None:
    browser = visitor(subject, NAMED["read_4k"])
    assert shown(browser, browser.cookie).endswith(b" 88")


def test_a_run_has_a_figure_for_each_subject_in_each_scenario(figures: Figures) -> None:
    measured = {(cell["name"], cell["engine"], cell["scenario"]) for cell in figures["added_us"]}
    assert measured == {(name, "memory", scenario) for name in (PRISM, FLOOR) for scenario in ("untouched", "read")}
    assert all(cell["requests"] > 0 for cell in figures["added_us"])
    assert figures["digest_us"] > 0


def test_a_run_says_of_each_target_whether_it_is_met(figures: Figures) -> None:
    text = as_text(figures)
    names = [target.name for target in targets(figures)]
    assert names == ["untouched, valid cookie", "memory, read, of the floor"]
    assert all(name in text for name in names)


def test_the_chart_shows_each_package_and_the_floor(figures: Figures) -> None:
    drawn = ElementTree.fromstring(draw(figures))
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {PRISM, "Read one key"} <= texts
    assert any(text and text.startswith("floor ") for text in texts)


def test_the_published_chart_shows_the_published_figures() -> None:
    assert CHART.read_text() == draw(json.loads(RESULTS.read_text()))


@pytest.mark.parametrize("places", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_messages_are_counted_on_the_wire(places: Places) -> None:
    plan = Plan([PRISM, FLOOR], ["untouched", "read", "write", "new"], 0, 1, (1, 1), Placement.FREE)
    counted = run("messages", places, plan)
    (engine,) = places
    for name in (PRISM, FLOOR):
        assert [messages(counted, engine, name, scenario) for scenario in plan.scenarios] == [0, 1, 2, 1]
