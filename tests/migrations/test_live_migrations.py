"""Migrations while sessions are in use: what runs needs no revision but the first, and waits for none."""

import threading

import pytest

from prism_wsgi import SessionMiddleware, SQLAlchemyStore, migrate
from tests.support.visitors import Browser, application, count, run_at_once

pytestmark = pytest.mark.whole

SECRET = "0123456789abcdef0123456789abcdef-for-tests"
FIRST = "0001"
THREADS = 4


@pytest.mark.parametrize("driver", ["sqlite", "postgresql", "mariadb", "mysqlclient"])
def test_sessions_are_counted_exactly_while_their_table_is_migrated_up_and_down(
    driver: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{driver}_url")
    migrate.upgrade(url, revision=FIRST)
    store = SQLAlchemyStore(url)
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(count)
    migrated = threading.Event()

    def go_up_and_down() -> int:
        try:
            for _ in range(3):
                migrate.upgrade(url)
                migrate.downgrade(url, revision=FIRST)
            migrate.upgrade(url)
        finally:
            migrated.set()
        return 0

    def count_until_migrated() -> int:
        browser.do(count)
        counted = 1
        while not migrated.is_set():
            browser.do(count)
            counted += 1
        return counted

    counted = sum(run_at_once([go_up_and_down, *[count_until_migrated] * THREADS]))
    assert browser.read() == {"n": 1 + counted}
    store.close()
