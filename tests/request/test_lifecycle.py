"""A session's life: new ids, login and logout, the two lifetimes, and what is kept when the application fails."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_wsgi import MemoryStore, ResponseStarted, Session, SessionGone, StoredSession
from tests.support.browsing import Browser, Clock, Site, ThreeVerbStore, WatchedStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]


def regenerate(session: Session) -> None:
    session.regenerate()


def login(session: Session) -> None:
    session.login("ann")


def login_twice(session: Session) -> None:
    session.login("ann")
    session.login("bob")


def logout(session: Session) -> None:
    session.logout()


def session_id(session: Session) -> str:
    return session.id


def visitor(site: Site, **values: Any) -> Browser:
    browser = site.browser()
    browser.visit(write(**(values or {"n": 1})))
    site.calls.clear()
    return browser


def read_n(session: Session) -> object:
    return session.get("n")


def replay(site: Site, cookie_header: str, handler: Any = read_n) -> Any:
    """Visit with a cookie of one's own choice."""
    return site.browser().visit(handler, HTTP_COOKIE=cookie_header)


# A new id


def test_regenerate_gives_a_new_id_and_keeps_the_data(site: Site) -> None:
    browser = visitor(site)
    before, age = browser.visit(lambda session: (session.id, session.created_at)).result
    site.clock.advance(10)
    browser.visit(regenerate)
    after = browser.visit(lambda session: (session.id, session.created_at, session["n"])).result
    assert after[0] != before
    assert after[1:] == (age, 1)


def test_the_old_id_opens_nothing_once_the_response_is_out(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    browser.visit(regenerate)
    for seconds in (0, 1, 5, 60):
        site.clock.advance(seconds)
        assert replay(site, old).result is None


def test_a_request_under_way_with_the_old_cookie_neither_writes_nor_sets_a_cookie(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    browser.visit(regenerate)
    for handler in (read("n"), write(n=99), regenerate):
        assert replay(site, old, handler).all("Set-Cookie") == []
    assert browser.visit(lambda session: (session["n"], session.user)).result == (1, None)


@pytest.mark.parametrize("change", ["regenerate", "login", "confirm_login"])
def test_a_user_whose_browser_missed_the_answer_with_the_new_cookie_is_nobody_and_can_log_in(
    site: Site, change: str
) -> None:
    browser = visitor(site)
    browser.visit(lambda session: session.login("ann"))
    old = browser.cookie_header
    moves: dict[str, Callable[[Session], None]] = {
        "regenerate": lambda session: session.regenerate(),
        "login": lambda session: session.login("ann"),
        "confirm_login": lambda session: session.confirm_login(),
    }
    replay(site, old, moves[change])  # nothing of what it sets arrives
    site.clock.advance(5)
    page = browser.visit(lambda session: session.user)
    assert (page.result, page.all("Set-Cookie")) == (None, [])
    browser.visit(lambda session: session.login("ann"))
    assert browser.visit(lambda session: (session.user, session["n"])).result == ("ann", 1)


def test_a_write_with_the_old_cookie_is_logged_and_costs_no_more_than_finding_the_marker(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    browser.visit(regenerate)
    site.calls.clear()
    replay(site, old, write(n=99))
    assert site.calls == ["load"]
    assert [record.__dict__["reason"] for record in caplog.records] == ["superseded_id", "late_write_dropped"]


def test_the_marker_of_an_old_id_does_not_stay(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    browser.visit(regenerate)
    site.clock.advance(11)
    assert list(replay(site, old, write(n=2)).cookies) == ["prism_session"]


def test_regenerate_of_a_visitor_of_whom_nothing_is_stored(site: Site) -> None:
    browser = site.browser()
    first = browser.visit(session_id).result
    browser.visit(regenerate)
    assert browser.visit(session_id).result != first


def test_regenerate_of_a_visitor_of_whom_nothing_is_stored_stores_nothing(site: Site) -> None:
    browser = site.browser()
    browser.visit(session_id)
    site.calls.clear()
    browser.visit(regenerate)
    assert site.calls == ["load"]


def test_regenerate_of_a_session_that_was_emptied_retires_its_id(site: Site) -> None:
    browser = visitor(site)
    browser.visit(lambda session: session.clear())
    before = browser.visit(session_id).result
    browser.visit(regenerate)
    assert browser.visit(session_id).result != before
    marker = site.middleware.site.adapter.peek(before)
    assert marker is not None
    assert marker.superseded


def test_regenerate_in_the_first_request_costs_no_marker(site: Site) -> None:
    def write_and_regenerate(session: Session) -> None:
        session["n"] = 1
        session.regenerate()

    browser = site.browser()
    browser.visit(write_and_regenerate)
    assert site.calls == ["save"]
    assert browser.visit(read("n")).result == 1


def test_a_session_written_while_it_was_regenerated_elsewhere_keeps_neither_half(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header

    def regenerate_elsewhere_then_write(session: Session) -> None:
        session["n"] = 2
        other = site.browser()
        other.jar.cookies = browser.jar.cookies
        other.visit(regenerate)
        session["n"] = 3

    page = site.browser()
    answer = page.visit(regenerate_elsewhere_then_write, HTTP_COOKIE=old)
    assert answer.all("Set-Cookie") == []
    assert browser.visit(read("n")).result == 1


# Login and logout


def test_login_gives_a_new_id_and_records_the_user(site: Site) -> None:
    browser = visitor(site)
    old_header = browser.cookie_header
    before = browser.visit(session_id).result
    browser.visit(login)
    assert browser.visit(lambda session: (session.user, session["n"])).result == ("ann", 1)
    assert browser.visit(session_id).result != before
    assert replay(site, old_header, lambda session: (session.user, dict(session))).result == (None, {})


def test_a_cookie_planted_before_login_is_of_no_use_after_it(site: Site) -> None:
    """Session fixation, with a cookie that the site itself gave to the attacker."""
    attacker, victim = site.browser(), site.browser()
    attacker.visit()
    planted = attacker.cookie_header
    page = victim.visit(login, HTTP_COOKIE=planted)
    assert list(page.cookies) == ["prism_session"]
    site.clock.advance(60)
    assert replay(site, planted, lambda session: session.user).result is None
    assert victim.visit(lambda session: session.user).result == "ann"


def test_login_gives_a_new_csrf_token(site: Site) -> None:
    browser = site.browser()
    before = browser.visit(lambda session: session.get_csrf_token()).result
    browser.visit(login)
    assert browser.visit(lambda session: session.get_csrf_token()).result != before


def test_another_login_replaces_the_user(site: Site) -> None:
    browser = visitor(site)
    browser.visit(login)
    browser.visit(lambda session: session.login("bob"))
    assert browser.visit(lambda session: session.user).result == "bob"


@pytest.mark.parametrize("user", [5, None, b"ann", "", "x" * 256, "ann\n", "a\x00b"])
def test_a_user_that_cannot_be_stored_is_refused(site: Site, user: Any) -> None:
    browser = visitor(site)
    with pytest.raises((TypeError, ValueError), match="login"):
        browser.visit(lambda session: session.login(user))
    assert browser.visit(lambda session: (session.user, session["n"])).result == (None, 1)


def test_logout_deletes_the_row_before_the_response_says_so(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    seen = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        environ["prism.session"].logout()
        seen.extend(site.calls)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"bye"]

    page = browser.request(app)
    assert seen[0] == "load"
    assert seen[-1] == "destroy"
    assert page.attributes()["max-age"] == "0"
    assert browser.cookie_header == ""
    assert replay(site, old).result is None


def test_writing_after_logout_begins_a_new_session(site: Site) -> None:
    browser = visitor(site)
    old = browser.cookie_header
    before = browser.visit(session_id).result

    def leave_and_flash(session: Session) -> str:
        session.logout()
        session["notice"] = "Good bye"
        return session.id

    after = browser.visit(leave_and_flash).result
    assert after != before
    assert browser.visit(lambda session: (session.id, dict(session), session.user)).result == (
        after,
        {"notice": "Good bye"},
        None,
    )
    assert replay(site, old).result is None


@pytest.mark.parametrize("move", [regenerate, login])
def test_logout_ends_a_session_that_was_about_to_get_a_new_id(site: Site, move: Any) -> None:
    browser = visitor(site)
    old = browser.cookie_header

    def move_and_leave(session: Session) -> None:
        move(session)
        session.logout()

    browser.visit(move_and_leave)
    assert replay(site, old).result is None


@pytest.mark.parametrize("begin", [write(n=1), lambda session: None], ids=["stored before", "first visit"])
def test_logout_ends_what_the_same_request_has_stored_under_a_new_id(site: Site, begin: Any) -> None:
    browser = site.browser()
    browser.visit(begin)

    def login_and_leave(session: Session) -> str:
        with session.atomic():
            session.login("ann")
        stored_id = session.id
        session.logout()
        return stored_id

    stored_id = browser.visit(login_and_leave).result
    assert site.middleware.site.adapter.peek(stored_id) is None


def test_logout_deletes_what_cannot_be_read(site: Site) -> None:
    browser = visitor(site)
    row = site.store.load(browser.visit(session_id).result)
    assert row is not None
    site.store.save(replace(row, data=b"of another version"))
    browser.visit(logout)
    assert site.store.load(row.id) is None


def test_logout_twice_is_no_error(site: Site) -> None:
    browser = visitor(site)

    def twice(session: Session) -> None:
        session.logout()
        session.destroy()

    assert browser.visit(twice).attributes()["max-age"] == "0"


def test_a_visit_after_logout_is_that_of_a_new_visitor(site: Site) -> None:
    browser = visitor(site)
    browser.visit(logout)
    assert browser.visit(lambda session: (session.is_new, dict(session))).result == (True, {})


def test_the_sessions_of_a_user_end_at_once_and_everywhere(site: Site) -> None:
    assert isinstance(site.store, ThreeVerbStore)
    phones = [site.browser() for _ in range(3)]
    for phone in phones:
        phone.visit(login)
    kept = phones[0].visit(session_id).result
    other_worker = Site(site.store, site.clock)
    assert site.store.store.destroy_all("ann", except_id=kept) == 2
    for phone in phones:
        phone.site = other_worker
    assert [phone.visit(lambda session: session.user).result for phone in phones] == ["ann", None, None]


def test_clear_empties_the_session_and_leaves_who_is_logged_in(site: Site) -> None:
    browser = visitor(site)
    browser.visit(login)
    browser.visit(lambda session: session.clear())
    assert browser.visit(lambda session: (dict(session), session.user)).result == ({}, "ann")


# The idle lifetime


@pytest.mark.parametrize(("offset", "lives"), [(-1, True), (0, False), (1, False)])
def test_the_idle_lifetime_ends_at_its_second(site: Site, offset: int, lives: bool) -> None:
    browser = visitor(site)
    header = browser.cookie_header
    site.clock.advance(3600 + offset)
    assert (replay(site, header).result == 1) is lives


@pytest.mark.parametrize(("offset", "lives"), [(-1, True), (0, False), (1, False)])
def test_a_lifetime_of_the_sessions_own_ends_at_its_second(site: Site, offset: int, lives: bool) -> None:
    browser = site.browser()

    def remember(session: Session) -> None:
        session["n"] = 1
        session.ttl = 30 * 24 * 3600

    page = browser.visit(remember)
    assert page.attributes()["max-age"] == str(30 * 24 * 3600)
    header = browser.cookie_header
    site.clock.advance(30 * 24 * 3600 + offset)
    assert (replay(site, header).result == 1) is lives


def test_a_session_may_live_shorter_than_the_setting_says(site: Site) -> None:
    browser = visitor(site)

    def shorten(session: Session) -> None:
        session.ttl = timedelta(minutes=1)

    assert browser.visit(shorten).attributes()["max-age"] == "60"
    header = browser.cookie_header
    site.clock.advance(60)
    assert replay(site, header).result is None


def test_use_begins_a_short_lifetime_of_the_sessions_own_anew(site: Site) -> None:
    browser = visitor(site)

    def shorten(session: Session) -> None:
        session.ttl = 60

    browser.visit(shorten)
    for _ in range(5):
        site.clock.advance(50)
        assert browser.visit(read("n")).result == 1


def test_taking_back_a_lifetime_of_the_sessions_own(site: Site) -> None:
    browser = visitor(site)

    def set_ttl(session: Session, ttl: int) -> None:
        session.ttl = ttl

    browser.visit(lambda session: set_ttl(session, 100_000))
    assert browser.visit(lambda session: set_ttl(session, 3600)).attributes()["max-age"] == "3600"
    site.clock.advance(3601)
    assert browser.visit(read("n")).result is None


@pytest.mark.parametrize("ttl", [0, -1, 1.5, True, "60", float("inf"), float("nan"), 401 * 24 * 3600])
def test_a_lifetime_of_the_sessions_own_has_the_rule_of_the_setting(site: Site, ttl: Any) -> None:
    def set_ttl(session: Session) -> None:
        session.ttl = ttl

    with pytest.raises(ValueError, match="ttl"):
        visitor(site).visit(set_ttl)


def test_every_use_begins_the_idle_lifetime_anew(site: Site) -> None:
    browser = visitor(site)
    for _ in range(10):
        site.clock.advance(3000)
        assert browser.visit(read("n")).result == 1


def test_an_expired_row_is_unreadable_though_nobody_sweeps(site: Site) -> None:
    """And though the browser still sends its cookie: RFC 6265bis 4.1.2.1 lets it."""
    browser = visitor(site)
    header = browser.cookie_header
    site.clock.advance(100_000)
    page = replay(site, header, lambda session: (session.is_new, dict(session)))
    assert page.result == (True, {})
    assert site.calls == []  # the token says so itself


def test_a_store_that_knows_no_time_does_not_make_sessions_live_longer(clock: Clock) -> None:
    class Timeless(MemoryStore):
        def _now(self) -> int:
            return 0

    browser = visitor(Site(ThreeVerbStore(Timeless(ttl=10**10)), clock))
    row_id = browser.visit(session_id).result
    row = browser.site.store.load(row_id)
    assert row is not None
    row.expires_at = int(clock() * 1000) + 1000
    browser.site.store.save(row)
    clock.advance(1)
    assert browser.visit(read_n).result is None


def test_expires_at_is_when_the_session_ends(site: Site) -> None:
    browser = visitor(site)
    expires_at, created_at = browser.visit(lambda session: (session.expires_at, session.created_at)).result
    assert created_at == datetime.fromtimestamp(site.clock(), UTC)
    assert expires_at == created_at + timedelta(hours=1)


def test_expires_at_stays_until_activity_is_recorded(site: Site) -> None:
    browser = visitor(site)
    first = browser.visit(lambda session: session.expires_at).result
    site.clock.advance(1)
    assert browser.visit(lambda session: session.expires_at).result == first


@pytest.mark.parametrize("persistent", [False, True])
def test_whether_the_cookie_outlives_the_browser_is_what_the_session_says(
    store: ThreeVerbStore, persistent: bool
) -> None:
    browser = visitor(Site(store, persistent=persistent))
    assert browser.visit(lambda session: session.persistent).result is persistent

    def turn(session: Session) -> None:
        session.persistent = not persistent

    assert ("max-age" in browser.visit(turn).attributes()) is not persistent
    assert browser.visit(lambda session: session.persistent).result is not persistent
    assert browser.visit(write(n=2)).all("Set-Cookie") == []


def test_expires_at_follows_a_lifetime_of_the_sessions_own_before_anything_is_saved(site: Site) -> None:
    def remember(session: Session) -> datetime:
        session.ttl = timedelta(days=30)
        return session.expires_at

    assert site.browser().visit(remember).result == datetime.fromtimestamp(site.clock(), UTC) + timedelta(days=30)


# Recording activity


def test_activity_is_recorded_once_a_touch_interval(site: Site) -> None:
    browser = visitor(site)
    for seconds in (100, 100, 100):
        site.clock.advance(seconds)
        assert browser.visit(read("n")).all("Set-Cookie") == []
    assert site.calls == ["load"] * 3
    site.calls.clear()
    site.clock.advance(60)
    assert browser.visit(read("n")).attributes()["max-age"] == "3600"
    assert site.calls in (["load", "touch"], ["load", "save"])
    site.calls.clear()
    assert browser.visit(read("n")).all("Set-Cookie") == []
    assert site.calls == ["load"]


def test_the_browser_and_the_server_agree_when_the_session_ends(site: Site) -> None:
    browser = visitor(site)
    for seconds in (400, 1000, 123.4, 1999.9, 2500):
        site.clock.advance(seconds)
        browser.visit(read("n"))
        row = site.store.load(browser.visit(session_id).result)
        assert row is not None
        (cookie,) = browser.jar.cookies.values()
        assert cookie.expires is not None
        assert abs(cookie.expires - row.expires_at / 1000) <= 1


def test_a_touch_changes_neither_data_nor_version() -> None:
    site = Site()
    browser = visitor(site)
    row_id = browser.visit(session_id).result
    before = site.store.load(row_id)
    site.clock.advance(1000)
    browser.visit(read("n"))
    after = site.store.load(row_id)
    assert before is not None
    assert after is not None
    assert (after.data, after.version) == (before.data, before.version)
    assert after.expires_at == before.expires_at + 1_000_000


def test_two_requests_that_record_the_same_activity_write_it_once(site: Site) -> None:
    browser = visitor(site)
    site.clock.advance(1000)
    header = browser.cookie_header
    replay(site, header)
    site.calls.clear()
    site.clock.advance(1)
    assert list(replay(site, header).cookies) == ["prism_session"]
    assert site.calls == ["load"]


@pytest.mark.parametrize(("interval", "seconds"), [(0, 1), (1, 1), (10, 10), (timedelta(minutes=5), 300)])
def test_the_touch_interval_is_a_setting(store: ThreeVerbStore, interval: Any, seconds: int) -> None:
    browser = visitor(Site(store, touch_interval=interval))
    browser.site.clock.advance(seconds)
    browser.visit(read("n"))
    assert store.calls in (["load", "touch"], ["load", "save"])


def test_activity_is_recorded_in_whole_seconds(site: Site) -> None:
    browser = visitor(site)
    site.clock.advance(1000.456)
    assert browser.visit(read("n")).cookies
    row = site.middleware.site.adapter.peek(browser.visit(session_id).result)
    assert row is not None
    assert row.expires_at % 1000 == 0


@pytest.mark.parametrize(("factor", "seconds", "due"), [(2, 360, True), (0.1, 35, False), (0.1, 36, True)])
def test_activity_is_recorded_as_often_as_a_short_lifetime_needs_and_a_long_one_no_less_often(
    store: ThreeVerbStore, factor: float, seconds: int, due: bool
) -> None:
    browser = Site(store, ttl=3600, touch_interval=360).browser()

    def choose(session: Session) -> None:
        session["n"] = 1
        session.ttl = int(3600 * factor)

    browser.visit(choose)
    store.calls.clear()
    browser.site.clock.advance(seconds)
    browser.visit(read("n"))
    assert len(store.calls) == (2 if due else 1)


def test_an_untouched_session_is_not_kept_alive(site: Site) -> None:
    browser = visitor(site)
    site.clock.advance(3000)
    assert browser.visit().all("Set-Cookie") == []
    site.clock.advance(600)
    assert browser.visit(read("n")).result is None


# The absolute lifetime


@pytest.mark.parametrize(("offset", "lives"), [(-1, True), (0, False), (1, False)])
def test_the_absolute_lifetime_ends_at_its_second_whatever_the_use(
    store: ThreeVerbStore, clock: Clock, offset: int, lives: bool
) -> None:
    browser = visitor(Site(store, clock, max_lifetime=10_000))
    began = clock()
    while clock() < began + 9_000:
        clock.advance(1000)
        browser.visit(lambda session: session.update(n=1))
    browser.visit(regenerate)
    clock.now = began + 10_000 + offset
    header = browser.cookie_header or "none=1"
    assert (replay(browser.site, header).result == 1) is lives


def test_the_cookie_does_not_outlive_the_absolute_lifetime(store: ThreeVerbStore, clock: Clock) -> None:
    browser = visitor(Site(store, clock, max_lifetime=4000))
    clock.advance(3000)
    assert browser.visit(write(n=2)).attributes()["max-age"] == "1000"


def test_a_lower_absolute_lifetime_counts_for_sessions_that_exist(store: ThreeVerbStore, clock: Clock) -> None:
    browser = visitor(Site(store, clock, ttl=10_000))
    clock.advance(3000)
    browser.visit(read_n)
    clock.advance(999)
    browser.site = Site(store, clock, ttl=4000, max_lifetime=4000)
    assert replay(browser.site, browser.cookie_header).result == 1
    clock.advance(1)
    assert replay(browser.site, browser.cookie_header).result is None


OPERATIONS = {
    "read": read("n"),
    "write": lambda session: session.update(n=session.get("n", 0) + 1),
    "regenerate": regenerate,
    "login": login,
    "longer": lambda session: setattr(session, "ttl", 100_000),
    "shorter": lambda session: setattr(session, "ttl", 50),
}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([*OPERATIONS, "restart"]), st.floats(-3000, 5000)), min_size=1, max_size=15
    ),
    three_verbs=st.booleans(),
)
@settings(max_examples=40)
def test_nothing_moves_the_end_past_the_absolute_lifetime(steps: list[tuple[str, float]], three_verbs: bool) -> None:
    clock = Clock()
    rows: list[StoredSession] = []

    class Recording(MemoryStore):
        def save(self, session: StoredSession) -> None:
            rows.append(session)
            super().save(session)

        def replace(self, old: StoredSession, new: StoredSession) -> None:
            rows.append(new)
            super().replace(old, new)

        def touch(self, session: StoredSession) -> bool:
            kept = self.load(session.id)
            assert kept is None or session.expires_at <= (kept.authenticated_at or kept.created_at) + 8_000_000
            return super().touch(session)

    inner = Recording(clock=clock, ttl=10**8)
    store = ThreeVerbStore(inner) if three_verbs else WatchedStore(inner)
    browser = Site(store, clock, max_lifetime=8000).browser()
    for operation, seconds in steps:
        if operation == "restart":
            browser.site = Site(store, clock, ttl=2000, max_lifetime=8000)
        else:
            browser.visit(OPERATIONS[operation])
        for row in rows:
            assert row.superseded or row.expires_at <= (row.authenticated_at or row.created_at) + 8_000_000
        clock.advance(seconds)


# When the application fails

FAILURES = ["200 OK", "302 Found", "404 Not Found", "500 Oops", "503 Oops", "raises", "raises while streaming"]


class AppError(Exception):
    """What an application raises."""


def failing_visit(browser: Browser, outcome: str, value: int) -> Any:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        session = environ["prism.session"]
        session["n"] = value
        if outcome == "raises":
            raise AppError
        status = "200 OK" if outcome == "raises while streaming" else outcome
        start_response(status, [("Content-Type", "text/plain")])
        if outcome == "raises while streaming":
            return stream(session)
        return [b"hello"]

    def stream(session: Session) -> Any:
        yield b"one"
        session["late"] = value
        raise AppError

    try:
        return browser.request(app)
    except AppError:
        return None


@pytest.mark.parametrize("save_on_error", [False, True])
@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize("plain", [False, True])
def test_changes_are_dropped_when_the_application_fails_unless_asked_otherwise(
    store: ThreeVerbStore, outcome: str, save_on_error: bool, plain: bool
) -> None:
    browser = visitor(Site(store, save_on_error=save_on_error, plain=plain))
    failing_visit(browser, outcome, 2)
    fails = outcome in ("500 Oops", "503 Oops", "raises")
    streams = outcome == "raises while streaming"
    assert browser.visit(read("n")).result == (1 if fails and not save_on_error else 2)
    assert browser.visit(read("late")).result == (2 if streams and save_on_error else None)


@pytest.mark.parametrize("save_on_error", [False, True])
def test_a_failed_first_request_leaves_no_row_that_nobody_can_open(
    store: ThreeVerbStore, save_on_error: bool
) -> None:
    browser = Site(store, save_on_error=save_on_error).browser()
    assert failing_visit(browser, "raises", 2) is None
    assert store.calls == []


@pytest.mark.parametrize("save_on_error", [False, True])
@pytest.mark.parametrize("step", [regenerate, login])
def test_a_new_id_that_the_browser_never_hears_of_is_not_taken(
    store: ThreeVerbStore, step: Any, save_on_error: bool
) -> None:
    browser = visitor(Site(store, save_on_error=save_on_error))

    def fail(session: Session) -> None:
        step(session)
        raise AppError

    with pytest.raises(AppError):
        browser.visit(fail)
    assert browser.visit(lambda session: (session.get("n"), session.user)).result == (1, None)


def test_a_regenerate_of_a_failed_request_is_taken_back(site: Site) -> None:
    browser = visitor(site)
    before = browser.visit(session_id).result
    assert browser.visit(regenerate, status="500 Oops").all("Set-Cookie") == []
    assert browser.visit(lambda session: (session.id, session["n"])).result == (before, 1)


@pytest.mark.parametrize("begin", [write(n=1), read("n")], ids=["stored before", "nothing stored yet"])
@pytest.mark.parametrize("move", [login, login_twice, lambda session: None], ids=["login", "two logins", "write"])
def test_what_a_failing_page_writes_while_it_streams_is_saved_without_what_came_before(
    site: Site, begin: Any, move: Any
) -> None:
    browser = site.browser()
    browser.visit(begin)
    before = browser.visit(lambda session: (session.id, dict(session))).result

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        session = environ["prism.session"]
        session["n"] = 2
        move(session)
        start_response("500 Oops", [("Content-Type", "text/plain")])
        return stream(session)

    def stream(session: Session) -> Any:
        yield b"one"
        session["late"] = 1

    browser.request(app)
    after = browser.visit(lambda session: (session.id, dict(session), session.user)).result
    assert after == (before[0], before[1] | {"late": 1}, None)


def test_a_write_behind_a_logout_whose_answer_is_under_way_is_refused(site: Site) -> None:
    browser = visitor(site)
    refused: list[ResponseStarted] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        environ["prism.session"].logout()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(environ["prism.session"])

    def stream(session: Session) -> Any:
        yield b"one"
        try:
            session["n"] = 2
        except ResponseStarted as error:
            refused.append(error)

    browser.request(app)
    assert refused, "the cookie that was sent deletes, so that the new session would be nobody's"
    assert site.calls[-1] == "destroy"


def test_what_a_failing_page_changed_inside_a_value_is_dropped(site: Site) -> None:
    browser = visitor(site, items=[1])
    browser.visit(lambda session: session["items"].append(2), status="500 Oops")
    assert browser.visit(read("items")).result == [1]


def test_a_login_that_an_atomic_block_has_saved_outlasts_the_failure_of_its_page(site: Site) -> None:
    browser = visitor(site)

    def login_and_fail(session: Session) -> None:
        with session.atomic():
            session.login("ann")
        session["n"] = 2

    browser.visit(login_and_fail, status="500 Oops")
    assert browser.visit(lambda session: (session.user, session["n"])).result == ("ann", 1)


@pytest.mark.parametrize("save_on_error", [False, True])
def test_a_logout_holds_whatever_happens_then(store: ThreeVerbStore, save_on_error: bool) -> None:
    site = Site(store, save_on_error=save_on_error)
    browser = visitor(site)
    header = browser.cookie_header

    def leave_and_fail(session: Session) -> None:
        session.logout()
        raise AppError

    with pytest.raises(AppError):
        browser.visit(leave_and_fail)
    assert replay(site, header).result is None
    browser = visitor(site)
    assert browser.visit(logout, status="500 Oops").attributes()["max-age"] == "0"


def test_a_counter_in_an_atomic_block_is_saved_at_once(site: Site) -> None:
    browser = visitor(site, n=0)

    def count(session: Session) -> None:
        with session.atomic():
            session["n"] += 1
        raise AppError

    for _ in range(3):
        with pytest.raises(AppError):
            browser.visit(count)
    assert browser.visit(read("n")).result == 3


# Two requests at once


def test_what_one_request_reads_another_cannot_change_under_its_hands(site: Site) -> None:
    browser = visitor(site, cart=[1])
    lent: list[Any] = []
    browser.visit(lambda session: lent.append(session["cart"]))
    lent[0].append("from a request that is over")
    assert browser.visit(read("cart")).result == [1]


def test_a_session_that_is_gone_cannot_be_saved_again() -> None:
    store = MemoryStore()
    with pytest.raises(SessionGone):
        store.save(StoredSession("ab" * 32, b"", 3, 0, 10**14))


def test_an_absolute_lifetime_shorter_than_the_idle_one_ends_the_session() -> None:
    site = Site(ttl=3600, max_lifetime=60)
    browser = site.browser()
    assert "; Max-Age=60;" in browser.visit(write(n=1)).all("Set-Cookie")[0]
    site.clock.advance(59)
    assert browser.visit(read("n")).result == 1
    site.clock.advance(1)
    assert browser.visit(read("n")).result is None


def test_a_cookie_never_stored_lapses_with_the_absolute_lifetime() -> None:
    site = Site(ttl=3600, max_lifetime=60)
    browser = site.browser()
    first = browser.visit(session_id).result
    planted = browser.cookie_header
    site.clock.advance(60)
    assert replay(site, planted, session_id).result != first
    assert site.calls == []
