"""The five guarantees, on every store: no lost updates, logout sticks, ids are never adopted, readers never write.

(That a failing store is never taken for an anonymous visitor is tested where stores fail.)
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import (
    MemoryStore,
    RedisStore,
    Session,
    SessionConflict,
    SessionMiddleware,
    SessionStore,
    SessionTooLarge,
    SQLAlchemyStore,
    StoredSession,
)
from prism_wsgi.request import atomic
from prism_wsgi.retry import pause
from prism_wsgi.testing import ManualClock
from tests.support.databases import REDIS
from tests.support.keys import ENCRYPTION_KEY, SECRET
from tests.support.plain_store import PlainStore
from tests.support.visitors import FORK, Action, Browser, application, count, put, run_at_once, run_in_processes

TTL = 3600
ROUNDS = 5


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(
    params=["memory", "memory, encrypted", "sqlite", "postgresql", "mariadb", "mysqlclient", "redis", "plain"]
)
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[SessionStore]:
    if request.param.startswith("memory"):
        yield MemoryStore(clock=clock)
    elif request.param == "plain":
        yield PlainStore(tmp_path / "plain.db", clock)
    elif request.param == "redis":
        redis_store = RedisStore(REDIS, prefix=request.getfixturevalue("redis_prefix"), clock=clock)
        yield redis_store
        redis_store.close()
    else:
        store = SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"), clock=clock)
        yield store
        store.close()


@pytest.fixture
def site(store: SessionStore, clock: ManualClock, request: pytest.FixtureRequest) -> SessionMiddleware:
    key = ENCRYPTION_KEY if "memory, encrypted" in request.node.name else None
    return SessionMiddleware(
        application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=clock, encryption_key=key
    )


@pytest.fixture
def browser(site: SessionMiddleware) -> Browser:
    """A browser that has been to the site once, and has a cookie for which nothing is stored yet."""
    browser = Browser(site)
    browser.visit(lambda session: None)
    assert browser.cookies
    return browser


def copy_of(browser: Browser, site: SessionMiddleware) -> Browser:
    """Another browser with the same cookies, as of now."""
    other = Browser(site)
    other.cookies = dict(browser.cookies)
    return other


def stored(site: SessionMiddleware, session_id: str) -> StoredSession | None:
    return site.site.adapter.peek(session_id)


def lease_of(site: SessionMiddleware, session_id: str) -> int:
    row = stored(site, session_id)
    assert row is not None
    return site.site.codec.decode(row).lock


def id_of(session: Session) -> str:
    return session.id


def meanwhile(first: Action, between: Callable[[], object], then: Action) -> Action:
    """An action in two steps, between which the rest of the world moves on."""

    def action(session: Session) -> object:
        first(session)
        between()
        return then(session)

    return action


def look(session: Session) -> None:
    session.get("anything")


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if "reason" in record.__dict__]


# No lost updates


def test_changes_of_different_keys_all_survive(browser: Browser) -> None:
    browser.do(put("before", 0))
    for turn in range(ROUNDS):
        keys = [f"{turn}-{number}" for number in range(8)]
        loaded = threading.Barrier(len(keys))
        actions = [meanwhile(look, lambda: loaded.wait(30), put(key, key)) for key in keys]  # noqa: B023
        assert {visit.status for visit in browser.at_once(actions)} == {"200 OK"}
    expected = {f"{turn}-{number}" for turn in range(ROUNDS) for number in range(8)}
    assert browser.read().keys() == expected | {"before"}


def test_of_changes_to_one_key_the_later_save_stands(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("x", "before"))
    other = copy_of(browser, site)
    browser.do(meanwhile(look, lambda: other.do(put("x", "first")), put("x", "second")))
    assert browser.read() == {"x": "second"}


def test_changes_inside_values_of_different_keys_all_survive(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(lambda session: session.update(cart=[1], settings={"theme": "dark"}, old=1))
    other = copy_of(browser, site)

    def change(session: Session) -> None:
        session["cart"].append(2)
        del session["old"]

    browser.do(meanwhile(look, lambda: other.do(lambda session: session["settings"].update(size=3)), change))
    assert browser.read() == {"cart": [1, 2], "settings": {"theme": "dark", "size": 3}}


def test_key_deleted_meanwhile_stays_deleted(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(lambda session: session.update(a=1, b=1))
    other = copy_of(browser, site)
    browser.do(meanwhile(look, lambda: other.do(lambda session: session.pop("a")), put("b", 2)))
    assert browser.read() == {"b": 2}


def test_concurrent_first_writes_share_one_session(browser: Browser, site: SessionMiddleware) -> None:
    visits = browser.at_once([put(f"key {number}", number) for number in range(32)])
    assert {visit.status for visit in visits} == {"200 OK"}
    assert browser.read() == {f"key {number}": number for number in range(32)}


def test_own_lifetime_and_data_set_by_two_requests_both_survive(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site)

    def shorten(session: Session) -> None:
        session.ttl = 60

    browser.do(meanwhile(look, lambda: other.do(shorten), put("x", 2)))
    assert browser.do(lambda session: (session["x"], session.ttl)) == (2, 60)


# Read-only stays read-only


def test_reader_never_rolls_back_a_writer(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("cart", [1]))
    other = copy_of(browser, site)
    browser.do(meanwhile(lambda session: session["cart"], lambda: other.do(put("cart", [1, 2])), look))
    assert browser.read() == {"cart": [1, 2]}


def test_touch_never_rolls_back_a_writer(browser: Browser, site: SessionMiddleware, clock: ManualClock) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site)
    clock.advance(TTL / 2)
    reader = browser.visit(meanwhile(look, lambda: other.do(put("x", 2)), look))
    assert reader.set_cookies == [], "the write has recorded the use, and this version is not stored any more"
    assert other.read() == {"x": 2}
    clock.advance(TTL * 0.9)
    assert other.read() == {"x": 2}


def test_touches_and_writes_at_once_lose_nothing(browser: Browser, clock: ManualClock) -> None:
    browser.do(put("x", 1))
    clock.advance(TTL / 2)
    loaded = threading.Barrier(12)
    reads = [meanwhile(look, lambda: loaded.wait(30), look)] * 6
    writes = [meanwhile(look, lambda: loaded.wait(30), put(f"key {number}", number)) for number in range(6)]
    assert {visit.status for visit in browser.at_once(reads + writes)} == {"200 OK"}
    clock.advance(TTL * 0.9)
    assert browser.read() == {"x": 1} | {f"key {number}": number for number in range(6)}


# Logout sticks


@pytest.mark.parametrize(
    "late",
    [
        put("x", 2),
        lambda session: session["nested"].append(1),
        lambda session: session.regenerate(),
        count,
    ],
    ids=["write", "nested write", "regenerate", "atomic"],
)
def test_logout_wins_over_a_request_in_flight(
    browser: Browser,
    site: SessionMiddleware,
    late: Action,
    caplog: pytest.LogCaptureFixture,
) -> None:
    browser.do(lambda session: session.update(x=1, nested=[]))
    session_id = browser.do(id_of)
    other = copy_of(browser, site)
    slow = copy_of(browser, site)
    ids: list[str] = []

    def finish(session: Session) -> None:
        late(session)
        ids.append(session.id)

    visit = slow.visit(meanwhile(look, lambda: other.do(lambda session: session.logout()), finish))
    assert visit.status == "200 OK"
    assert visit.set_cookies == []
    assert stored(site, session_id) is None
    assert stored(site, ids[0]) is None
    assert reasons(caplog) == ["late_write_dropped"]
    assert caplog.records[0].__dict__["session_id"] == session_id
    assert not other.cookies


@pytest.mark.parametrize(
    "begin",
    [look, lambda session: None, lambda session: session.regenerate()],
    ids=["loaded before", "not loaded yet", "about to move it too"],
)
@pytest.mark.parametrize("moves", [1, 2])
def test_logout_ends_a_session_that_another_request_has_just_moved(
    browser: Browser, site: SessionMiddleware, begin: Action, moves: int
) -> None:
    browser.do(lambda session: session.login("alice"))
    other = copy_of(browser, site)

    def move() -> None:
        for _ in range(moves):
            other.do(lambda session: session.regenerate())

    browser.do(meanwhile(begin, move, lambda session: session.logout()))
    assert other.do(lambda session: session.user) is None


def test_logout_ends_a_session_that_another_request_was_the_first_to_move(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(lambda session: session.login("alice"))
    other = copy_of(browser, site)

    def move_too_late(session: Session) -> None:
        with session.atomic():
            session.regenerate()
            other.do(lambda session: session.regenerate())
        session.logout()

    browser.do(move_too_late)
    assert other.do(lambda session: session.user) is None


def test_logout_with_a_cookie_from_before_the_login_ends_nothing(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("x", 1))
    planted = copy_of(browser, site)
    browser.do(lambda session: session.login("alice"))
    planted.do(lambda session: session.logout())
    assert browser.do(lambda session: session.user) == "alice"


def test_touch_of_an_ended_session_sets_no_cookie(
    browser: Browser, site: SessionMiddleware, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    browser.do(put("x", 1))
    session_id = browser.do(id_of)
    other = copy_of(browser, site)
    clock.advance(TTL / 2)
    visit = browser.visit(meanwhile(look, lambda: other.do(lambda session: session.logout()), look))
    assert visit.set_cookies == []
    assert stored(site, session_id) is None
    assert reasons(caplog) == []


def test_login_while_another_request_logs_out_begins_a_session_with_nothing_of_the_old_one(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site)

    def login(session: Session) -> None:
        session["y"] = 2
        session.login("alice")

    browser.visit(meanwhile(look, lambda: other.do(lambda session: session.logout()), login))
    assert browser.do(lambda session: (dict(session), session.user)) == ({"y": 2}, "alice")


def test_logout_wins_over_many_writers(browser: Browser, site: SessionMiddleware) -> None:
    for _ in range(ROUNDS):
        browser.do(put("x", 1))
        session_id = browser.do(id_of)
        loaded = threading.Barrier(8)
        writes = [meanwhile(look, lambda: loaded.wait(30), put(f"key {number}", 1)) for number in range(7)]  # noqa: B023
        logout = meanwhile(look, lambda: loaded.wait(30), lambda session: session.logout())  # noqa: B023
        visits = copy_of(browser, site).at_once([logout, *writes])
        assert {visit.status for visit in visits} == {"200 OK"}
        assert stored(site, session_id) is None
        assert browser.read() == {}


# A new id


def test_of_many_regenerations_at_once_one_wins(browser: Browser, site: SessionMiddleware) -> None:
    for turn in range(ROUNDS):
        browser.do(put("turn", turn))
        old_id = browser.do(id_of)
        loaded = threading.Barrier(8)

        def regenerate(session: Session, loaded: threading.Barrier = loaded) -> str:
            session.get("turn")
            loaded.wait(30)
            session.regenerate()
            return session.id

        visits = browser.at_once([regenerate] * 8)
        assert {visit.status for visit in visits} == {"200 OK"}
        winners = [visit for visit in visits if visit.set_cookies]
        assert len(winners) == 1
        assert [visit for visit in visits if stored(site, visit.answer) is not None] == winners
        assert browser.read() == {"turn": turn}
        assert browser.do(id_of) == winners[0].answer != old_id


def test_old_cookie_reads_nothing_writes_nothing_and_sets_nothing(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("x", 1))
    old_id = browser.do(id_of)
    other = copy_of(browser, site)
    browser.do(lambda session: session.login("alice"))

    visit = other.visit(lambda session: (dict(session), session.user, session.update(y=1)))
    assert visit.answer == ({}, None, None)
    assert visit.set_cookies == []
    marker = stored(site, old_id)
    assert marker is not None
    assert marker.superseded
    assert marker.moved_to == browser.do(id_of)
    assert browser.do(lambda session: (dict(session), session.user)) == ({"x": 1}, "alice")


@pytest.mark.parametrize("begin", [put("x", 1), lambda session: None], ids=["stored before", "nothing stored yet"])
def test_browser_ends_logged_in_whatever_else_it_asked_for_meanwhile(browser: Browser, begin: Action) -> None:
    for turn in range(ROUNDS):
        browser.cookies.clear()
        browser.do(begin)
        loaded = threading.Barrier(6)
        others = [
            put("y", turn),
            look,
            count,
            put("z", [turn]),
            lambda session: session.pop("y", 0),
        ]
        login = meanwhile(look, lambda: loaded.wait(30), lambda session: session.login("alice"))  # noqa: B023
        slow = [meanwhile(look, lambda: loaded.wait(30), action) for action in others]  # noqa: B023
        visits = browser.at_once([login, *slow])
        assert {visit.status for visit in visits} == {"200 OK"}
        # Whoever else was sent a cookie had saved before the login, but answers may overtake each other.
        browser._take(visits[0].set_cookies)
        assert browser.do(lambda session: session.user) == "alice"


def test_write_under_way_during_a_login_is_dropped_or_kept_but_never_splits_the_session(
    browser: Browser, site: SessionMiddleware
) -> None:
    other = copy_of(browser, site)
    browser.do(meanwhile(look, lambda: other.do(put("first", 1)), lambda session: session.login("alice")))
    assert browser.do(lambda session: (dict(session), session.user)) == ({"first": 1}, "alice")
    assert other.visit(put("late", 1)).set_cookies == []
    assert browser.read() == {"first": 1}


def test_session_that_moves_takes_along_what_another_request_changed_meanwhile(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(lambda session: session.update(kept=1, changed=1, removed=1))
    other = copy_of(browser, site)

    def change(session: Session) -> None:
        session["changed"] = 2
        del session["removed"]

    browser.do(meanwhile(look, lambda: other.do(change), lambda session: session.regenerate()))
    assert browser.read() == {"kept": 1, "changed": 2}


def test_login_does_not_take_over_the_user_of_another_login(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("x", 1))
    other = copy_of(browser, site)
    login = meanwhile(
        look, lambda: other.do(lambda session: session.login("bob")), lambda session: session.login("eve")
    )
    browser.visit(login)
    assert browser.do(lambda session: (dict(session), session.user)) == ({}, "eve")
    assert other.do(lambda session: (dict(session), session.user)) == ({"x": 1}, "bob")


# Ids are never adopted


@pytest.mark.parametrize("write", [put("y", 1), count, lambda session: session.login("eve")])
def test_id_that_is_not_stored_any_more_is_not_written_under(
    browser: Browser, site: SessionMiddleware, write: Action
) -> None:
    browser.do(put("x", 1))
    old_id = browser.do(id_of)
    site.site.adapter.end(old_id)
    before = copy_of(browser, site)
    assert before.do(lambda session: (write(session), session.id)[1]) != old_id
    assert stored(site, old_id) is None
    assert before.cookies != browser.cookies
    assert "x" not in before.read()


def test_expired_id_is_not_written_under(browser: Browser, site: SessionMiddleware, clock: ManualClock) -> None:
    browser.do(put("x", 1))
    old_id = browser.do(id_of)
    clock.advance(TTL)
    assert browser.do(lambda session: (session.update(y=1), session.id)[1]) != old_id
    assert browser.read() == {"y": 1}


def test_cookie_of_a_visitor_for_whom_nothing_was_stored_lapses(browser: Browser, clock: ManualClock) -> None:
    old_id = browser.do(id_of)
    clock.advance(TTL)
    assert browser.do(lambda session: (session.update(y=1), session.id)[1]) != old_id


@pytest.mark.parametrize("write", [put("y", 1), count, lambda session: session.login("bob")])
def test_first_cookie_is_not_written_under_once_its_marker_has_expired(
    browser: Browser, site: SessionMiddleware, clock: ManualClock, write: Action
) -> None:
    first = copy_of(browser, site)
    old_id = browser.do(id_of)
    browser.do(lambda session: session.login("alice"))
    clock.advance(60)
    first.do(write)
    assert first.do(id_of) != old_id
    assert stored(site, old_id) is None
    assert first.do(lambda session: session.user) in (None, "bob")
    assert browser.do(lambda session: session.user) == "alice"


# atomic()


def inside_atomic(session: Session, *actions: Action) -> None:
    with session.atomic():
        for action in actions:
            action(session)


def crash(session: Session) -> None:
    raise ZeroDivisionError


def test_counting_in_threads_is_exact(browser: Browser) -> None:
    def count_often() -> None:
        for _ in range(12):
            browser.do(count)

    run_at_once([count_often] * 8)
    assert browser.read() == {"n": 96}


def test_counting_beside_other_writers_is_exact(browser: Browser) -> None:
    browser.do(put("n", 0))
    actions = [count] * 8 + [put(f"key {number}", number) for number in range(8)]
    for _ in range(ROUNDS):
        assert {visit.status for visit in browser.at_once(actions)} == {"200 OK"}
    assert browser.read() == {"n": 8 * ROUNDS} | {f"key {number}": number for number in range(8)}


def test_nobody_enters_atomic_while_another_is_inside(
    browser: Browser, site: SessionMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.do(put("n", 0))
    inside, waiting = threading.Event(), threading.Event()
    entered: list[int] = []

    def pause_and_tell(attempt: int) -> None:
        waiting.set()
        pause(attempt)

    def hold(session: Session) -> None:
        with session.atomic():
            inside.set()
            assert waiting.wait(20)
            assert entered == []
            session["n"] += 1

    def follow() -> None:
        assert inside.wait(20)
        entered.append(copy_of(browser, site).do(count))

    monkeypatch.setattr(atomic, "pause", pause_and_tell)
    run_at_once([lambda: browser.do(hold), follow])
    assert entered == [2]
    assert browser.read() == {"n": 2}


def test_atomic_sees_what_was_saved_since_the_session_was_read(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("n", 1))
    other = copy_of(browser, site)
    assert browser.do(meanwhile(look, lambda: other.do(count), count)) == 3


def test_atomic_of_a_session_that_another_request_has_ended_sees_an_empty_one(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("n", 1))
    other = copy_of(browser, site)
    seen: list[dict[str, Any]] = []

    def add(session: Session) -> None:
        with session.atomic():
            seen.append(dict(session))
            session["n"] = 5

    browser.do(meanwhile(look, lambda: other.do(lambda session: session.destroy()), add))
    assert seen == [{}]
    assert other.read() == {}


def test_atomic_saves_at_once(browser: Browser, site: SessionMiddleware) -> None:
    other = copy_of(browser, site)
    browser.do(put("n", 1))
    other.cookies = dict(browser.cookies)
    seen: list[dict[str, Any]] = []
    browser.do(meanwhile(count, lambda: seen.append(other.read()), look))
    assert seen == [{"n": 2}]


def test_atomic_block_that_raises_saves_nothing_and_lets_the_next_one_in(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("n", 1))

    def fail(session: Session) -> None:
        session["kept"] = True
        with pytest.raises(ZeroDivisionError):
            inside_atomic(session, put("n", 2), crash)
        assert dict(session) == {"n": 1, "kept": True}

    browser.do(fail)
    assert lease_of(site, browser.do(id_of)) == 0
    assert browser.do(count) == 2
    assert browser.read() == {"n": 2, "kept": True}


def test_atomic_of_a_session_that_is_about_to_move_is_merged_with_what_another_saves(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("n", 1))
    other = copy_of(browser, site)

    def move_and_count(session: Session) -> None:
        session.regenerate()
        inside_atomic(session, lambda session: other.do(put("theirs", 1)), count)

    browser.do(move_and_count)
    assert browser.read() == {"n": 2, "theirs": 1}


def fail_inside_atomic(session: Session) -> None:
    with pytest.raises(ZeroDivisionError):
        inside_atomic(session, put("n", 5), crash)


@pytest.mark.parametrize(("first", "counted"), [(fail_inside_atomic, 1), (count, 2)], ids=["raised", "ended well"])
def test_atomic_after_another_block_is_a_block_of_its_own(
    browser: Browser, site: SessionMiddleware, first: Action, counted: int
) -> None:
    browser.do(lambda session: None)
    other = copy_of(browser, site)
    seen: list[dict[str, Any]] = []

    def use_two_blocks(session: Session) -> None:
        first(session)
        count(session)
        seen.append(other.read())

    browser.do(use_two_blocks)
    assert seen == [{"n": counted}]


def test_write_after_a_block_that_raised_and_would_have_moved_the_session_is_kept(browser: Browser) -> None:
    browser.do(put("n", 1))
    session_id = browser.do(id_of)

    def fail_and_write(session: Session) -> str:
        with pytest.raises(ZeroDivisionError):
            inside_atomic(session, lambda session: session.login("alice"), crash)
        session["late"] = 1
        return session.id

    assert browser.do(fail_and_write) == session_id
    assert browser.read() == {"n": 1, "late": 1}


def test_whoever_waits_too_long_for_atomic_is_told_so(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "WAIT_SECONDS", 0.05)
    browser.do(put("n", 1))
    held = browser.do(die_inside_atomic)
    assert browser.visit(count).status.startswith("503")
    assert browser.read() == {"n": 1}
    del held


def test_atomic_inside_atomic_is_one_block(browser: Browser) -> None:
    def nest(session: Session) -> None:
        with session.atomic():
            session["n"] = 1
            with session.atomic():
                session["n"] += 1
            session["n"] += 1

    browser.do(nest)
    assert browser.read() == {"n": 3}


@pytest.mark.parametrize("begin", [put("n", 1), lambda session: None], ids=["stored before", "nothing stored yet"])
def test_outer_block_that_raises_drops_what_the_inner_one_did(browser: Browser, begin: Action) -> None:
    browser.do(begin)

    def nest(session: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            inside_atomic(session, count, crash)

    before = browser.read()
    browser.do(nest)
    assert browser.read() == before


def test_outer_block_of_a_session_without_cookie_drops_what_the_inner_one_did(site: SessionMiddleware) -> None:
    browser = Browser(site)

    def nest(session: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            inside_atomic(session, count, crash)

    browser.do(nest)
    assert browser.read() == {}


def test_login_inside_a_block_that_raises_did_not_happen(browser: Browser) -> None:
    browser.do(put("n", 1))
    session_id = browser.do(id_of)

    def fail(session: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            inside_atomic(session, lambda session: session.login("alice"), crash)

    browser.do(fail)
    assert browser.do(lambda session: (session.id, session.user, dict(session))) == (session_id, None, {"n": 1})


def test_login_inside_a_block_moves_the_session(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("n", 1))
    other = copy_of(browser, site)

    def login(session: Session) -> None:
        with session.atomic():
            session["n"] += 1
            session.login("alice")

    browser.do(login)
    assert browser.do(lambda session: (session.user, dict(session))) == ("alice", {"n": 2})
    assert lease_of(site, browser.do(id_of)) == 0
    assert other.read() == {}


@pytest.mark.parametrize("fails", [False, True], ids=["ends well", "raises"])
def test_logout_inside_a_block_ends_the_session(browser: Browser, site: SessionMiddleware, fails: bool) -> None:
    browser.do(lambda session: session.update(n=1, private="data"))
    session_id = browser.do(id_of)

    def logout(session: Session) -> str:
        try:
            with session.atomic():
                session["n"] += 1
                session.logout()
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert dict(session) == {}
        return session.id

    visit = browser.visit(logout)
    assert "Max-Age=0" in visit.set_cookies[0]
    assert stored(site, session_id) is None
    assert stored(site, visit.answer) is None


def test_block_that_grows_too_large_saves_nothing_and_lets_the_next_one_in(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("n", 1))

    def grow(session: Session) -> None:
        with pytest.raises(SessionTooLarge):
            inside_atomic(session, put("n", 2), put("large", "x" * 100_000))

    browser.do(grow)
    assert lease_of(site, browser.do(id_of)) == 0
    assert browser.read() == {"n": 1}


def test_block_that_could_not_be_entered_leaves_nobody_waiting(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("n", 1))

    def fail_to_enter(session: Session) -> None:
        session["large"] = "x" * 100_000
        with pytest.raises(SessionTooLarge), session.atomic():
            pass
        del session["large"]
        session["n"] = 2

    browser.do(fail_to_enter)
    assert lease_of(site, browser.do(id_of)) == 0
    assert browser.read() == {"n": 2}


def die_inside_atomic(session: Session) -> AbstractContextManager[Session]:
    """Enter `atomic()` and never leave, as a request does whose process is killed."""
    block = session.atomic()
    block.__enter__()
    return block


def test_place_of_a_dead_holder_is_taken(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 0.05)
    browser.do(put("n", 1))
    held = browser.do(die_inside_atomic)
    assert browser.do(count) == 2
    del held


def test_everyone_who_waits_for_a_dead_holder_gets_in_once(
    browser: Browser, site: SessionMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 0.5)  # on a busy machine, a moment is no sign of death
    browser.do(put("n", 0))
    held = browser.do(die_inside_atomic)
    visits = browser.at_once([count] * 8)
    assert sorted(visit.answer for visit in visits) == list(range(1, 9))
    del held


def test_place_of_a_dead_holder_is_taken_although_others_keep_writing(
    browser: Browser, site: SessionMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 0.3)
    monkeypatch.setattr(atomic, "WAIT_SECONDS", 3.0)
    browser.do(put("n", 1))
    held = browser.do(die_inside_atomic)
    counted = threading.Event()

    def keep_writing() -> None:
        number = 0
        while not counted.wait(0.01):
            number += 1
            browser.do(put("beat", number))

    def count_once() -> Any:
        try:
            return browser.visit(count)
        finally:
            counted.set()

    visit, _ = run_at_once([count_once, keep_writing])
    assert (visit.status, visit.answer) == ("200 OK", 2)
    del held


def test_late_holder_that_regenerates_takes_nobodys_count_away(
    browser: Browser, site: SessionMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 0.05)
    browser.do(put("n", 1))
    other = copy_of(browser, site)

    def stay_too_long(session: Session) -> None:
        with pytest.raises(SessionConflict):
            inside_atomic(session, count, lambda _: other.do(count), lambda session: session.regenerate())

    browser.visit(stay_too_long)
    assert browser.read() == {"n": 2}


def test_late_holder_learns_that_nothing_of_its_block_was_saved(
    browser: Browser, site: SessionMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 0.05)
    browser.do(put("n", 1))
    other = copy_of(browser, site)

    def stay_too_long(session: Session) -> dict[str, Any]:
        with pytest.raises(SessionConflict):
            inside_atomic(session, count, put("mine", True), lambda _: other.do(count))
        return dict(session)

    assert "mine" not in browser.do(stay_too_long)
    assert browser.read() == {"n": 2}
    assert lease_of(site, browser.do(id_of)) == 0


def store_at(where: str) -> SessionStore:
    if where.startswith(REDIS):
        return RedisStore(REDIS, prefix=where.removeprefix(REDIS))
    return SQLAlchemyStore(where) if "://" in where else PlainStore(Path(where))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis", "plain"])
def test_counting_in_processes_is_exact(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    where = str(tmp_path / "plain.db")
    if kind == "redis":
        where = REDIS + request.getfixturevalue("redis_prefix")
    elif kind != "plain":
        where = request.getfixturevalue(f"empty_{kind}_url")
    browser = Browser(SessionMiddleware(application, store=store_at(where), secret=SECRET, secure=False))
    browser.do(put("n", 0))
    start = FORK.Barrier(4)

    def count_often() -> None:
        own = Browser(SessionMiddleware(application, store=store_at(where), secret=SECRET, secure=False))
        own.cookies = browser.cookies
        start.wait(30)
        for _ in range(25):
            own.do(count)

    run_in_processes([count_often] * 4)
    assert browser.read() == {"n": 100}


def test_events_of_the_guarantees_name_the_session_and_no_data(
    browser: Browser, site: SessionMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "prism_wsgi")
    browser.do(put("x", "before"))
    session_id = browser.do(id_of)
    other = copy_of(browser, site)
    browser.do(meanwhile(look, lambda: other.do(put("y", "canary")), put("x", "canary")))
    browser.do(meanwhile(look, lambda: other.do(lambda session: session.logout()), put("x", "canary too")))
    assert reasons(caplog) == ["conflict_merged", "late_write_dropped"]
    for record in caplog.records:
        assert record.__dict__["session_id"] == session_id
        assert "canary" not in record.getMessage()
        assert not any(value in record.getMessage() for value in browser.cookies.values())
