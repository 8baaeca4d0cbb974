"""Races between processes: what test_guarantees.py asks of threads, asked of workers that share a database only."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, permutations
from typing import Any, NamedTuple

import pytest

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore
from prism_wsgi.sweeper import Sweeper
from prism_wsgi.testing import ManualClock, increment, loaded, new_session
from tests.support.keys import SECRET
from tests.support.visitors import FORK, Action, Browser, application, count, put, run_in_processes

TTL = 3600
PROCESSES = 4
ROUNDS = 3


class Answer(NamedTuple):
    """What a process has to say of a visit."""

    status: str
    set_cookies: list[str]
    value: Any


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every process; what a forked one moves is its own."""
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"), clock=clock)
    yield store
    store.close()


@pytest.fixture
def browser(store: SQLAlchemyStore, clock: ManualClock) -> Browser:
    """A browser that has been to the site once, and has a cookie for which nothing is stored yet."""
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=clock)
    browser = Browser(site)
    browser.visit(lambda session: None)
    return browser


def visited(browser: Browser, action: Action) -> Answer:
    visit = browser.visit(action)
    return Answer(visit.status, visit.set_cookies, visit.answer)


def at_once(browser: Browser, actions: Sequence[Action]) -> list[Answer]:
    """Make one request for each action, in a process of its own; all have read the session before one goes on."""
    have_read = FORK.Barrier(len(actions))

    def together(action: Action) -> Action:
        def act(session: Session) -> object:
            session.get("anything")
            have_read.wait(30)
            return action(session)

        return act

    answers = run_in_processes([partial(visited, browser, together(action)) for action in actions])
    assert {answer.status for answer in answers} == {"200 OK"}
    return answers


def one_after_the_other(browser: Browser, slow: Action, quick: Action) -> Answer:
    """Make a request that reads the session and goes on when `quick`, in another process, has been answered."""
    has_read, is_answered = FORK.Event(), FORK.Event()

    def wait(session: Session) -> object:
        session.get("anything")
        has_read.set()
        assert is_answered.wait(30)
        return slow(session)

    def overtake() -> Answer:
        assert has_read.wait(30)
        answer = visited(browser, quick)
        is_answered.set()
        return answer

    late, first = run_in_processes([partial(visited, browser, wait), overtake])
    assert late.status == first.status == "200 OK"
    browser._take(first.set_cookies)
    answer: Answer = late
    return answer


def append(key: str, value: object) -> Action:
    return lambda session: session[key].append(value)


def regenerate(session: Session) -> str:
    session.regenerate()
    return session.id


# No lost updates


def test_changes_of_different_keys_and_inside_of_their_values_all_survive(browser: Browser) -> None:
    lists: dict[str, list[int]] = {f"list {number}": [] for number in range(2)}
    browser.do(lambda session: session.update(lists))
    for turn in range(ROUNDS):
        at_once(browser, [put(f"{turn}", 1), put(f"{turn} too", 2), *(append(key, turn) for key in lists)])
    written = {f"{turn}": 1 for turn in range(ROUNDS)} | {f"{turn} too": 2 for turn in range(ROUNDS)}
    assert browser.read() == written | {key: list(range(ROUNDS)) for key in lists}


def test_concurrent_first_writes_share_one_session(browser: Browser, store: SQLAlchemyStore) -> None:
    answers = at_once(browser, [put(f"key {number}", number) for number in range(8)])
    assert len(store.find_all()) == 1
    for answer in answers:
        browser._take(answer.set_cookies)
        assert browser.read() == {f"key {number}": number for number in range(8)}


def test_first_counts_at_once_are_exact(browser: Browser) -> None:
    assert sorted(answer.value for answer in at_once(browser, [count] * 8)) == list(range(1, 9))


# A new id, and none


def test_of_regenerations_at_once_one_wins_and_no_other_id_opens(browser: Browser, store: SQLAlchemyStore) -> None:
    for turn in range(ROUNDS):
        browser.do(put("turn", turn))
        answers = at_once(browser, [regenerate] * PROCESSES)
        (winner,) = (answer for answer in answers if answer.set_cookies)
        assert [session.id for session in store.find_all()] == [winner.value]
        browser._take(winner.set_cookies)
        assert browser.read() == {"turn": turn}


def test_logout_wins_over_writers(browser: Browser, store: SQLAlchemyStore) -> None:
    for _ in range(ROUNDS):
        browser.do(put("x", 1))
        answers = at_once(browser, [lambda session: session.logout(), put("y", 1), put("z", 1), count])
        assert [answer.set_cookies for answer in answers[1:]] == [[], [], []]
        assert store.find_all() == []
        assert browser.read() == {}


LATE: dict[str, Action] = {"a write": put("late", 1), "a count": count, "a regeneration": regenerate}
ENDS: dict[str, Action] = {
    "logout": lambda session: session.logout(),
    "login": lambda session: session.login("alice"),
    "regeneration": regenerate,
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_comes_late_changes_nothing_once_the_session_has_ended_or_moved(
    browser: Browser, store: SQLAlchemyStore, late: Action, end: Action
) -> None:
    browser.do(put("x", 1))
    assert one_after_the_other(browser, late, end).set_cookies == []
    assert browser.read() == ({} if end is ENDS["logout"] else {"x": 1})
    assert [session.user for session in store.find_all()] == {
        ENDS["logout"]: [],
        ENDS["login"]: ["alice"],
        ENDS["regeneration"]: [None],
    }[end]


def test_browser_ends_logged_in_in_whatever_order_the_answers_reach_it(browser: Browser) -> None:
    for _ in range(ROUNDS):
        browser.cookies.clear()
        browser.do(put("x", 1))
        answers = at_once(browser, [lambda session: session.login("alice"), put("y", 1), count, put("z", [1])])
        for order in permutations(answer.set_cookies for answer in answers):
            receiving = Browser(browser._site)
            receiving.cookies = dict(browser.cookies)
            for set_cookies in order:
                receiving._take(set_cookies)
            assert receiving.do(lambda session: session.user) == "alice"


# Time


@pytest.mark.parametrize("in_time", [0, 2], ids=["nobody in time", "somebody in time"])
def test_use_that_began_while_the_session_lived_keeps_it_for_everybody(
    browser: Browser, store: SQLAlchemyStore, clock: ManualClock, in_time: int
) -> None:
    """Every request read the session while it lived, so it stays, though it has expired when some record it."""
    browser.do(put("x", 1))
    clock.advance(TTL - 1)

    def expire(session: Session) -> None:
        clock.advance(1)

    answers = at_once(browser, [lambda session: None] * in_time + [expire] * 2)
    assert [bool(answer.set_cookies) for answer in answers[:in_time]] == [True] * in_time
    clock.advance(1)
    for answer in answers:
        browser._take(answer.set_cookies)
    assert len(store.find_all()) == 1
    assert browser.read() == {"x": 1}


def test_sweepers_delete_nothing_that_was_touched_in_time(store: SQLAlchemyStore, clock: ManualClock) -> None:
    """The sweepers' clock is ahead, so that they meet sessions that live and are being touched."""
    soon = int(clock() * 1000) + 60_000
    sessions = [new_session(expires_at=soon) for _ in range(200)]
    for session in sessions:
        store.save(session)
    begin = FORK.Barrier(PROCESSES)

    def touch(ids: list[str]) -> list[str]:
        begin.wait(30)
        return [
            session_id
            for session_id in ids
            if store.touch(replace(new_session(version=1, expires_at=soon + 3_600_000), id=session_id))
        ]

    def sweep() -> int:
        begin.wait(30)
        result = Sweeper(store, batch_size=5, pause=0, clock=lambda: clock() + 120).sweep()
        assert result.error is None
        return result.deleted

    ids = [session.id for session in sessions]
    parts = [partial(touch, ids[::2]), partial(touch, ids[::-2])]
    *touched, here, there = run_in_processes([*parts, sweep, sweep])
    kept = sorted(chain(*touched))
    assert [session.id for session in store.find_all(limit=1000)] == kept
    assert here + there == len(ids) - len(kept)


# SQLite's one writer


def test_eight_processes_write_one_row_of_sqlite_500_times_each_without_an_error(empty_sqlite_url: str) -> None:
    store = SQLAlchemyStore(empty_sqlite_url)
    session = new_session(data=b"0")
    store.save(session)
    begin = FORK.Barrier(8)

    def increase() -> None:
        begin.wait(30)
        for _ in range(500):
            increment(store, session.id)

    run_in_processes([increase] * 8)
    kept = loaded(store, session)
    store.close()
    assert (kept.data, kept.version) == (b"4000", 4001)
