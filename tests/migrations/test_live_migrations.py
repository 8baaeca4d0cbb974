"""Migrations while sessions are in use: nothing is lost, nobody is logged out, and earlier workers go on."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from prism_wsgi import SchemaMissing, SessionMiddleware, SQLAlchemyStore, StoredSession, migrate
from prism_wsgi.errors import SessionConflict
from prism_wsgi.testing import loaded, marker_of, new_session
from tests.support.earlier_store import EarlierStore
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application, count, run_at_once

pytestmark = pytest.mark.whole

EARLIER = "0003"
"""The newest revision that the earlier release knew."""
FIRST = "0004"
"""The least that this one needs."""
THREADS = 4
DRIVERS = ["sqlite", "postgresql", "mariadb"]


@pytest.mark.parametrize("driver", [*DRIVERS, "mysqlclient"])
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


@pytest.fixture(params=DRIVERS)
def earlier_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database as the earlier release left it."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    migrate.upgrade(url, revision=EARLIER)
    return url


@pytest.fixture
def earlier(earlier_url: str) -> Iterator[EarlierStore]:
    store = EarlierStore(earlier_url)
    yield store
    store.close()


def increment_until(store: EarlierStore | SQLAlchemyStore, session: StoredSession, done: threading.Event) -> int:
    """Count up what a session holds, as many workers do at once, and return how often that was done."""
    counted = 0
    while not done.is_set() or not counted:
        stored = store.load(session.id)
        assert stored is not None
        try:
            store.save(replace(stored, data=b"%d" % (int(stored.data) + 1)))
        except SessionConflict:
            continue
        counted += 1
    return counted


def test_database_of_the_earlier_release_is_migrated_in_use_and_back_without_a_loss(
    earlier_url: str, earlier: EarlierStore
) -> None:
    counter = new_session(data=b"0", user="ada")
    left, new = new_session(user="ada"), new_session(user="ada")
    sessions = [counter, left, new, new_session(), new_session(data=bytes(range(256)) * 500, user="bob " * 20)]
    for session in sessions:
        earlier.save(session)
    earlier.save(replace(marker_of(left, new), version=1, user=None))
    others = [replace(session, version=1, last_seen_at=None) for session in sessions[2:]]
    store, done, at_once = SQLAlchemyStore(earlier_url, timeout=60), threading.Event(), threading.Event()
    at_once.set()

    def go_up_and_down() -> int:
        try:
            migrate.upgrade(earlier_url)
            assert [loaded(store, session) for session in others] == others
            counted = run_at_once([lambda: increment_until(store, counter, at_once)] * 2)
            store.touch(replace(others[0], last_seen_at=others[0].created_at))
            migrate.downgrade(earlier_url, revision=EARLIER)
            migrate.upgrade(earlier_url)
        finally:
            done.set()
        return sum(counted)

    counted = sum(run_at_once([go_up_and_down, *[lambda: increment_until(earlier, counter, done)] * 2]))
    assert loaded(store, counter).data == b"%d" % counted
    assert [loaded(store, session) for session in others] == others
    assert loaded(store, left).moved_to == new.id
    assert {one.id for one in store.find(user="ada")} == {counter.id, new.id}
    assert migrate.check(earlier_url).ok
    store.close()


def test_workers_of_both_releases_sweep_one_table(earlier_url: str, earlier: EarlierStore) -> None:
    migrate.upgrade(earlier_url)
    store = SQLAlchemyStore(earlier_url)
    hour, moment = 3_600_000, 1_000_000 * 3_600_000
    for minutes in range(0, 240, 20):
        for writer in (earlier, store):
            writer.save(new_session(expires_at=moment + minutes * 60_000))
    assert store.sweep(moment + hour, 100) == 8
    # A row in a later bucket waits for the next hours, which the earlier release takes for where it belongs.
    swept = earlier.sweep(moment + 2 * hour) + earlier.sweep(moment + 4 * hour) + store.sweep(moment + 4 * hour, 100)
    assert swept == 16
    store.close()


@pytest.mark.parametrize("verb", ["load", "save", "touch", "find", "count", "ping", "destroy_all"])
def test_deploying_before_migrating_is_one_sentence_that_says_what_to_run(earlier_url: str, verb: str) -> None:
    store, session = SQLAlchemyStore(earlier_url), new_session(version=1)
    verbs: dict[str, Callable[[], object]] = {
        "load": lambda: store.load(session.id),
        "save": lambda: store.save(replace(session, version=0)),
        "touch": lambda: store.touch(session),
        "find": lambda: store.find(user="ada"),
        "count": lambda: store.count(user="ada"),
        "ping": store.ping,
        "destroy_all": lambda: store.destroy_all("ada"),
    }
    with pytest.raises(SchemaMissing, match=r"is from an earlier version of prism_wsgi. Run `prism-wsgi db upgrade"):
        verbs[verb]()
    store.close()
