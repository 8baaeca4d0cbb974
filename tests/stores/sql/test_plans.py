"""The plans of what pages, listings and the trail ask: an index answers each, however many rows there are."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Table, insert

from benchmarks.scale.generate import fill
from benchmarks.scale.pages import BUSY, asked, sessions
from benchmarks.scale.plans import plan_of, questions_of, scanned
from prism_wsgi import SQLAlchemyStore

SESSIONS = 20_000
EVENTS = 20_000
DAY_MS = 24 * 3_600_000
ANALYZE = {"sqlite": "ANALYZE", "postgresql": "ANALYZE", "mysql": "ANALYZE TABLE", "mariadb": "ANALYZE TABLE"}
READS_ALL = {"count()"}
"""The one question that reads the whole table, and whose documentation says so."""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def store(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"))
    yield store
    store.close()


@pytest.fixture
def full_store(store: SQLAlchemyStore) -> SQLAlchemyStore:
    """A store of so many sessions that the planner looks for an index."""
    fill(store.engine.url.render_as_string(hide_password=False), sessions(SESSIONS))
    return store


def scans_of(store: SQLAlchemyStore, table: str, ask: Any) -> list[str]:
    questions = questions_of(store.engine, table, ask)
    assert questions, "it asks nothing"
    return [step for one in questions for step in scanned(store.engine, plan_of(store.engine, one), table)]


def test_no_page_and_no_listing_reads_the_whole_table(full_store: SQLAlchemyStore) -> None:
    by_key = {"estimate()", "AdminPage, an id"}  # the planner's statistics, and the primary key
    found = {
        name: scans_of(full_store, "prism_sessions", ask)
        for name, ask in asked(full_store).items()
        if name not in by_key
    }
    assert {name for name, scans in found.items() if scans} == READS_ALL, found


def test_what_ends_sessions_reads_those_of_the_user_only(full_store: SQLAlchemyStore) -> None:
    (one,) = full_store.find(user=BUSY, limit=1)
    some = [session.id for session in full_store.find(user=BUSY, limit=5)]
    ends = {
        "destroy_many": lambda: full_store.destroy_many(some[1:]),
        "destroy_all": lambda: full_store.destroy_all(BUSY, one.id),
        "destroy_all of nobody": lambda: full_store.destroy_all("no-such-user"),
    }
    found = {name: scans_of(full_store, "prism_sessions", ask) for name, ask in ends.items()}
    assert not any(found.values()), found


@pytest.fixture
def store_with_trail(store: SQLAlchemyStore) -> SQLAlchemyStore:
    """A store whose trail has so many events that the planner looks for an index."""
    table = trail_of(store)
    now = int(time.time() * 1000)
    events = [
        {
            "timestamp": now - 89 * DAY_MS + number * 89 * DAY_MS // EVENTS,
            "kind": "logged_in",
            "user_id": BUSY if number % 100 == 0 else f"user-{number % 997}",
            "actor_id": "admin" if number % 1000 == 1 else None,
        }
        for number in range(EVENTS)
    ]
    with store.engine.connect() as connection:
        for begin in range(0, EVENTS, 2000):
            connection.execute(insert(table), events[begin : begin + 2000])
        connection.exec_driver_sql(f"{ANALYZE[store.engine.dialect.name]} {table.name}").close()
    return store


def trail_of(store: SQLAlchemyStore) -> Table:
    tables = store.table.metadata.tables.values()
    return next(table for table in tables if table.name == f"{store.table.name}_events")


def test_no_question_to_the_trail_reads_all_of_it(store_with_trail: SQLAlchemyStore) -> None:
    store = store_with_trail
    yesterday, a_day_ago = int(time.time() * 1000) - DAY_MS, int(time.time() * 1000) - 88 * DAY_MS
    asks = {
        "find_events": lambda: store.find_events(user="user-5"),
        "find_events, a busy user": lambda: store.find_events(user=BUSY),
        "find_events, a later page": lambda: store.find_events(user=BUSY, before=EVENTS // 2),
        "find_events, nobody": lambda: store.find_events(user="no-such-user"),
        "events_an_hour": lambda: store.events_an_hour(yesterday, 1000),
        "sweep_events": lambda: store.sweep_events(a_day_ago, 50),
        "erase_events": lambda: store.erase_events("user-6"),
    }
    found = {name: scans_of(store, "prism_sessions_events", ask) for name, ask in asks.items()}
    assert not any(found.values()), found
