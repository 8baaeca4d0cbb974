"""Clocks that disagree: workers minutes apart, clocks set back, databases that live in another time zone."""

import pytest
from sqlalchemy import create_engine, event

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore
from prism_wsgi.testing import ManualClock
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application, count, put

TTL = 3600
MAX_LIFETIME = 7200
FIVE_MINUTES = 300

ZONES = {
    "postgresql": ["SET TIME ZONE 'Pacific/Kiritimati'", "SET TIME ZONE 'America/St_Johns'"],
    "mysql": ["SET time_zone = '+13:00'", "SET time_zone = '-12:00'"],
}


class Workers:
    """Two workers on one store, the second with a clock five minutes ahead, and a browser that visits both."""

    def __init__(self, url: str, apart: float = FIVE_MINUTES) -> None:
        self.clocks = [ManualClock(), ManualClock()]
        self.clocks[1].advance(apart)
        self.stores = [SQLAlchemyStore(url, clock=clock) for clock in self.clocks]
        self.browsers = [
            Browser(
                SessionMiddleware(
                    application,
                    store=store,
                    secret=SECRET,
                    secure=False,
                    ttl=TTL,
                    max_lifetime=MAX_LIFETIME,
                    clock=clock,
                )
            )
            for store, clock in zip(self.stores, self.clocks, strict=True)
        ]
        self.browsers[1].cookies = self.browsers[0].cookies

    def advance(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)

    def close(self) -> None:
        for store in self.stores:
            store.close()


@pytest.mark.parametrize("first", [0, 1], ids=["begun by the slow one", "begun by the fast one"])
def test_workers_five_minutes_apart_share_sessions_and_lose_nothing(empty_sqlite_url: str, first: int) -> None:
    workers = Workers(empty_sqlite_url)
    for number in range(20):
        browser = workers.browsers[(first + number) % 2]
        assert browser.do(count) == number + 1
        workers.advance(300)
    workers.close()


@pytest.mark.parametrize("first", [0, 1], ids=["begun by the slow one", "begun by the fast one"])
def test_workers_five_minutes_apart_end_a_session_five_minutes_apart_at_most(
    empty_sqlite_url: str, first: int
) -> None:
    workers = Workers(empty_sqlite_url)
    workers.browsers[first].do(count)
    workers.advance(TTL - FIVE_MINUTES - 1)
    cookies = dict(workers.browsers[0].cookies)
    for browser in workers.browsers:
        browser.cookies = dict(cookies)
        assert browser.do(lambda session: session.get("n")) == 1
    workers.close()


@pytest.mark.parametrize("first", [0, 1], ids=["begun by the slow one", "begun by the fast one"])
def test_no_worker_prolongs_a_session_past_its_absolute_lifetime(empty_sqlite_url: str, first: int) -> None:
    workers = Workers(empty_sqlite_url)
    workers.browsers[first].do(count)
    began = workers.clocks[first]()
    (row,) = workers.stores[first].find_all()
    for step in range(30):
        browser = workers.browsers[step % 2]
        browser.visit(lambda session: session.regenerate() if session.get("n") else None)
        for found in workers.stores[0].find_all():
            if found.created_at == row.created_at:
                assert found.expires_at <= began * 1000 + MAX_LIFETIME * 1000
        workers.advance(400)
    assert not [one for one in workers.stores[0].find_all() if one.created_at == row.created_at]
    workers.close()


@pytest.mark.parametrize("back", [1, FIVE_MINUTES, 10 * TTL])
def test_a_clock_set_back_ends_no_session_and_prolongs_none_past_what_it_had(
    empty_sqlite_url: str, back: int
) -> None:
    workers = Workers(empty_sqlite_url, apart=0)
    browser = workers.browsers[0]
    browser.do(count)
    (before,) = workers.stores[0].find_all()
    workers.advance(-back)
    assert browser.do(count) == 2
    (after,) = workers.stores[0].find_all()
    assert after.created_at == before.created_at
    assert after.expires_at <= before.expires_at
    workers.close()


@pytest.mark.parametrize("back", [1, FIVE_MINUTES])
def test_a_clock_that_is_put_right_again_ends_no_session(empty_sqlite_url: str, back: int) -> None:
    workers = Workers(empty_sqlite_url, apart=0)
    browser = workers.browsers[0]
    for number in range(6):
        assert browser.do(count) == number + 1
        workers.advance(-back if number % 2 else back)
    workers.close()


@pytest.mark.parametrize("zone", [0, 1])
def test_the_time_zone_of_the_database_changes_nothing(empty_url: str, zone: int) -> None:
    engine = create_engine(empty_url)
    if engine.dialect.name not in ZONES:
        pytest.skip("SQLite has no time zone")

    @event.listens_for(engine, "connect")
    def move(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(ZONES[engine.dialect.name][zone])
        cursor.close()
        connection.commit()  # type: ignore[attr-defined]

    clock = ManualClock()
    here, there = SQLAlchemyStore(empty_url, clock=clock), SQLAlchemyStore(engine, clock=clock)
    sites = [
        SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=clock)
        for store in (here, there)
    ]
    browser, other = Browser(sites[0]), Browser(sites[1])
    browser.do(put("n", 1))
    other.cookies = browser.cookies
    assert [here.find_all()] == [there.find_all()]

    def expiry(session: Session) -> float:
        return session.expires_at.timestamp()

    assert other.do(expiry) == browser.do(expiry) == clock() + TTL
    clock.advance(TTL - 1)
    assert other.read() == {"n": 1}
    clock.advance(TTL)
    assert other.read() == {}
    assert there.sweep(int(clock() * 1000), 10) == 1
    assert here.stats().expired == 0
    here.close()
    engine.dispose()


def test_sessions_live_as_long_after_2038_as_before(empty_url: str) -> None:
    clock = ManualClock()
    clock.seconds = 2.0**31 - 1
    store = SQLAlchemyStore(empty_url, clock=clock)
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=clock)
    browser = Browser(site)
    for number in range(3):
        assert browser.do(count) == number + 1
        clock.advance(TTL - 1)
    clock.advance(1)
    assert browser.read() == {}
    assert store.sweep(int(clock() * 1000), 10) == 1
    store.close()
