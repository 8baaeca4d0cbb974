"""Who is logged in, on every store: lifetimes of a login, step-up, limits, other devices, administrators."""

from collections.abc import Callable
from operator import methodcaller
from typing import Any
from uuid import UUID

import pytest

from prism_wsgi import (
    ConfigError,
    MemoryStore,
    NotLoggedIn,
    ResponseStarted,
    Session,
    SessionMiddleware,
    SessionStore,
)
from prism_wsgi.testing import ManualClock
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application, put

HOUR = 3600
MakeSite = Callable[..., SessionMiddleware]


@pytest.fixture
def clock(manual_clock: ManualClock) -> ManualClock:
    return manual_clock


@pytest.fixture
def store(every_store: SessionStore) -> SessionStore:
    return every_store


@pytest.fixture
def make_site(store: SessionStore, clock: ManualClock) -> MakeSite:
    """Return a site over the store, with more settings."""

    def make(**settings: Any) -> SessionMiddleware:
        return SessionMiddleware(application, store=store, secret=SECRET, secure=False, clock=clock, **settings)

    return make


@pytest.fixture
def site(make_site: MakeSite) -> SessionMiddleware:
    return make_site()


@pytest.fixture
def browser(site: SessionMiddleware) -> Browser:
    return Browser(site)


def log_in(user: str, **choices: Any) -> Any:
    return lambda session: session.login(user, **choices)


def who(session: Session) -> tuple[str | None, dict[str, Any]]:
    return session.user, dict(session)


def logged_in(site: SessionMiddleware, user: str) -> Browser:
    browser = Browser(site)
    browser.do(log_in(user))
    return browser


def copy_of(browser: Browser, site: SessionMiddleware) -> Browser:
    """Another browser with the same cookies, as of now."""
    other = Browser(site)
    other.cookies = dict(browser.cookies)
    return other


# A login


def test_a_login_records_when_and_how_the_user_proved_who_they_are(browser: Browser, clock: ManualClock) -> None:
    browser.do(log_in("ada", auth_method="pwd otp"))
    moment, method = browser.do(lambda session: (session.authenticated_at, session.auth_method))
    assert (moment.timestamp(), method) == (clock(), "pwd otp")


def test_a_login_names_its_own_lifetimes(browser: Browser, clock: ManualClock) -> None:
    browser.do(log_in("ada", ttl=900, max_lifetime=2 * HOUR, persistent=False))
    assert browser.do(lambda session: (session.ttl, session.max_lifetime, session.persistent)) == (900, 7200, False)
    for _ in range(8):
        clock.advance(840)
        assert browser.do(who)[0] == "ada"
    clock.advance(840)
    assert browser.do(who)[0] is None  # two hours after the login, however much the session was used


def test_what_one_login_chose_is_forgotten_by_the_next(browser: Browser) -> None:
    browser.do(log_in("ada", ttl=900, max_lifetime=HOUR, persistent=False))
    browser.do(log_in("ada"))
    assert browser.do(lambda session: (session.ttl, session.max_lifetime, session.persistent)) == (3600, None, True)


def test_what_this_request_chose_before_or_after_counts_as_given_to_the_login(browser: Browser) -> None:
    def choose(session: Session) -> None:
        session.ttl = 900
        session.login("ada")
        session.persistent = False

    browser.do(log_in("ada", ttl=60))
    browser.do(choose)
    assert browser.do(lambda session: (session.ttl, session.persistent)) == (900, False)


def test_an_anonymous_visitors_data_stays_and_another_users_does_not(browser: Browser) -> None:
    browser.do(put("basket", 1))
    browser.do(log_in("ada"))
    assert browser.do(who) == ("ada", {"basket": 1})

    def take_over(session: Session) -> None:
        session["note"] = "kept"
        session.login("bob")

    browser.do(take_over)
    assert browser.do(who) == ("bob", {"note": "kept"})


def test_the_same_users_data_stays_under_a_new_id(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(log_in("ada"))
    browser.do(put("basket", 1))
    before = copy_of(browser, site)
    browser.do(log_in("ada"))
    assert (browser.do(who), before.do(who)) == (("ada", {"basket": 1}), (None, {}))


def test_what_another_user_writes_meanwhile_does_not_come_along(
    browser: Browser, site: SessionMiddleware, clock: ManualClock
) -> None:
    browser.do(log_in("ada"))
    late = copy_of(browser, site)

    def take_over(session: Session) -> None:
        session.login("bob")
        late.do(put("diary", "ada's"))

    browser.do(take_over)
    assert browser.do(who) == ("bob", {})


def test_a_second_click_logs_in_with_a_copy_and_the_first_answer_stays_good(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(put("basket", 1))
    second = copy_of(browser, site)
    browser.do(log_in("ada"))
    second.do(log_in("ada"))
    assert (browser.do(who), second.do(who)) == (("ada", {"basket": 1}), ("ada", {"basket": 1}))


def test_another_users_login_on_a_marker_begins_empty(browser: Browser, site: SessionMiddleware) -> None:
    browser.do(put("basket", 1))
    second = copy_of(browser, site)
    browser.do(log_in("ada"))
    second.do(log_in("bob"))
    assert (browser.do(who), second.do(who)) == (("ada", {"basket": 1}), ("bob", {}))


@pytest.mark.parametrize("value", ["", "x" * 256, "a\nb"])
def test_a_user_without_a_printable_name_is_refused(value: str, browser: Browser) -> None:
    with pytest.raises(ValueError, match="printable"):
        browser.do(log_in(value))


@pytest.mark.parametrize("value", ["", "x" * 65, "pässword"])
def test_an_auth_method_that_its_column_does_not_hold_is_refused(value: str, browser: Browser) -> None:
    with pytest.raises(ValueError, match="auth_method"):
        browser.do(log_in("ada", auth_method=value))


def test_a_refused_login_changes_nothing(browser: Browser) -> None:
    browser.do(log_in("ada"))

    def try_and_go_on(session: Session) -> None:
        with pytest.raises(ConfigError):
            session.login("bob", ttl=-1)

    browser.do(try_and_go_on)
    assert browser.do(who) == ("ada", {})


# Step-up


def test_a_login_is_fresh_for_a_while_and_again_after_a_confirmation(browser: Browser, clock: ManualClock) -> None:
    browser.do(log_in("ada", auth_method="pwd"))
    clock.advance(300)
    assert browser.do(lambda session: (session.is_fresh(300), session.is_fresh(299))) == (True, False)
    browser.do(lambda session: session.confirm_login("pwd otp"))
    assert browser.do(lambda session: (session.is_fresh(1), session.auth_method)) == (True, "pwd otp")


def test_a_confirmation_moves_the_session_and_keeps_data_and_csrf_token(
    browser: Browser, site: SessionMiddleware
) -> None:
    browser.do(log_in("ada"))
    browser.do(put("basket", 1))
    token, before = browser.do(lambda session: (session.get_csrf_token(), session.id))
    old = copy_of(browser, site)
    browser.do(lambda session: session.confirm_login())
    assert browser.do(lambda session: (session["basket"], session.get_csrf_token())) == (1, token)
    assert browser.do(lambda session: session.id) != before
    assert old.do(who) == (None, {})


def test_nobody_is_fresh_and_nobody_can_confirm(browser: Browser) -> None:
    assert browser.do(lambda session: session.is_fresh(10**6)) is False
    with pytest.raises(NotLoggedIn):
        browser.do(lambda session: session.confirm_login())


def test_a_login_of_which_no_moment_is_known_is_not_fresh(make_site: MakeSite) -> None:
    browser = Browser(make_site())
    browser.do(put("user_id", "7"))
    browser._site = Browser(make_site(user_id_key="user_id"))._site
    browser.do(put("basket", 1))
    assert browser.do(lambda session: (session.user, session.authenticated_at, session.is_fresh(10**9))) == (
        "7",
        None,
        False,
    )


def test_the_absolute_lifetime_counts_from_the_last_proof(make_site: MakeSite, clock: ManualClock) -> None:
    browser = Browser(make_site(max_lifetime=2 * HOUR))
    browser.do(put("basket", 1))
    clock.advance(HOUR - 1)
    browser.do(log_in("ada"))
    for _ in range(2):
        clock.advance(HOUR - 1)
        assert browser.do(who)[0] == "ada"
    browser.do(lambda session: session.confirm_login())
    clock.advance(HOUR - 1)
    assert browser.do(who)[0] == "ada"


def test_only_a_proof_lengthens_the_absolute_lifetime(browser: Browser) -> None:
    browser.do(log_in("ada", max_lifetime=HOUR))

    def lengthen(session: Session) -> None:
        session.max_lifetime = 2 * HOUR

    def shorten(session: Session) -> None:
        session.max_lifetime = 600

    def confirm_and_lengthen(session: Session) -> None:
        session.confirm_login()
        session.max_lifetime = 2 * HOUR

    with pytest.raises(ValueError, match="lengthen"):
        browser.do(lengthen)
    browser.do(shorten)
    assert browser.do(lambda session: session.max_lifetime) == 600
    browser.do(confirm_and_lengthen)
    assert browser.do(lambda session: session.max_lifetime) == 2 * HOUR


# A limit


def test_the_newest_logins_stay_and_the_others_end(make_site: MakeSite, clock: ManualClock) -> None:
    site = make_site(max_sessions_per_user=2)
    devices = []
    for _ in range(4):
        clock.advance(1)
        devices.append(logged_in(site, "ada"))
    assert [device.do(lambda session: session.user) for device in devices] == [None, None, "ada", "ada"]
    assert logged_in(site, "bob").do(lambda session: session.user) == "bob"


def test_the_limit_ends_a_login_that_is_older_by_its_workers_clock_though_it_has_just_come(
    make_site: MakeSite, clock: ManualClock
) -> None:
    site = make_site(max_sessions_per_user=1)
    first = logged_in(site, "ada")
    clock.advance(-5)
    second = logged_in(site, "ada")
    assert [device.do(lambda session: session.user) for device in (first, second)] == ["ada", None]


def test_a_confirmation_makes_a_login_the_newest(make_site: MakeSite, clock: ManualClock) -> None:
    site = make_site(max_sessions_per_user=2)
    devices = []
    for _ in range(2):
        devices.append(logged_in(site, "ada"))
        clock.advance(1)
    devices[0].do(lambda session: session.confirm_login())
    clock.advance(1)
    devices.append(logged_in(site, "ada"))
    assert [device.do(lambda session: session.user) for device in devices] == ["ada", None, "ada"]


def test_a_session_without_the_moment_of_its_login_counts_from_its_beginning(
    make_site: MakeSite, clock: ManualClock
) -> None:
    site = make_site(max_sessions_per_user=2)
    devices = [logged_in(site, "ada")]
    clock.advance(1)
    devices.append(Browser(make_site()))
    devices[1].do(put("user_id", "ada"))
    devices[1]._site = Browser(make_site(user_id_key="user_id"))._site
    devices[1].do(put("basket", 1))  # from now on it is the user's, and nobody knows since when
    clock.advance(1)
    devices.append(logged_in(site, "ada"))
    assert [device.do(lambda session: session.user) for device in devices] == [None, "ada", "ada"]


def test_a_limit_needs_a_store_that_lists_users() -> None:
    class ThreeVerbs:
        def load(self, session_id: str) -> None: ...
        def save(self, session: object) -> None: ...
        def destroy(self, session_id: str) -> None: ...

    with pytest.raises(ConfigError, match="max_sessions_per_user"):
        SessionMiddleware(application, store=ThreeVerbs(), secret=SECRET, max_sessions_per_user=3)


# Other devices


def test_a_user_sees_and_ends_their_other_sessions_and_nobody_elses(site: SessionMiddleware) -> None:
    here, there, bob = logged_in(site, "ada"), logged_in(site, "ada"), logged_in(site, "bob")
    bobs = bob.do(lambda session: session.id)
    (other,) = here.do(lambda session: [one.id for one in session.other_sessions()])
    assert other == there.do(lambda session: session.id)
    assert here.do(lambda session: session.revoke(bobs)) is False
    assert here.do(lambda session: session.revoke(other)) is True
    assert [one.do(lambda session: session.user) for one in (here, there, bob)] == ["ada", None, "bob"]


@pytest.mark.parametrize(
    "move",
    [lambda session: session.regenerate(), lambda session: session.login("ada"), lambda session: None],
    ids=["regenerate", "login", "nothing"],
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_logging_out_elsewhere_spares_this_device_before_and_after_a_new_id(
    site: SessionMiddleware, move: Any, first: bool
) -> None:
    here, there, bob = logged_in(site, "ada"), logged_in(site, "ada"), logged_in(site, "bob")

    def change_password(session: Session) -> int:
        if first:
            move(session)
        ended = session.logout_elsewhere()
        if not first:
            move(session)
        return ended

    assert here.do(change_password) == 1
    assert [one.do(lambda session: session.user) for one in (here, there, bob)] == ["ada", None, "bob"]


@pytest.mark.parametrize(
    "move",
    [lambda session: session.regenerate(), lambda session: session.login("ada")],
    ids=["regenerate", "login"],
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_the_others_are_listed_and_ended_before_and_after_a_new_id(
    site: SessionMiddleware, move: Any, first: bool
) -> None:
    here, there = logged_in(site, "ada"), logged_in(site, "ada")

    def end_the_others(session: Session) -> list[bool]:
        if first:
            move(session)
        ended = [session.revoke(one.id) for one in session.other_sessions()]
        ended.append(session.revoke(session.id))
        if not first:
            move(session)
        return ended

    assert here.do(end_the_others) == [True, False]
    assert [one.do(lambda session: session.user) for one in (here, there)] == ["ada", None]


def test_this_session_is_none_of_the_others_and_is_not_revoked(browser: Browser) -> None:
    browser.do(log_in("ada"))
    assert browser.do(lambda session: (session.other_sessions(), session.revoke(session.id))) == ([], False)
    assert browser.do(lambda session: session.user) == "ada"


def test_nobody_has_other_sessions(browser: Browser) -> None:
    browser.do(put("basket", 1))
    assert browser.do(lambda session: session.other_sessions()) == []
    for verb in (lambda session: session.revoke("0" * 64), lambda session: session.logout_elsewhere()):
        with pytest.raises(NotLoggedIn):
            browser.do(verb)


# Administrators


def impersonating(site: SessionMiddleware) -> Browser:
    browser = Browser(site)
    browser.do(log_in("root", auth_method="hwk"))
    browser.do(put("secret plans", 1))
    browser.do(lambda session: session.impersonate("ada"))
    return browser


def test_an_impersonated_session_begins_empty_and_says_who_acts(site: SessionMiddleware) -> None:
    browser = impersonating(site)
    assert browser.do(lambda session: (session.user, session.actor, dict(session))) == ("ada", "root", {})
    assert browser.do(lambda session: (session.auth_method, session.is_fresh(60))) == ("hwk", False)


def test_an_impersonated_session_has_the_moment_of_the_administrators_login(
    site: SessionMiddleware, clock: ManualClock
) -> None:
    browser = logged_in(site, "root")
    proved = browser.do(lambda session: session.authenticated_at)
    clock.advance(60)
    browser.do(lambda session: session.impersonate("ada"))
    assert browser.do(lambda session: session.authenticated_at) == proved


@pytest.mark.parametrize("verb", ["impersonate", "stop_impersonating"])
def test_a_cookie_from_before_an_impersonation_or_its_end_opens_nothing_after_it(
    site: SessionMiddleware, verb: str
) -> None:
    browser = impersonating(site) if verb == "stop_impersonating" else logged_in(site, "root")
    before = copy_of(browser, site)
    browser.do(lambda session: session.impersonate("ada") if verb == "impersonate" else session.stop_impersonating())
    assert before.do(who) == (None, {})


@pytest.mark.parametrize(
    "verb",
    [
        lambda session: session.confirm_login(),
        lambda session: session.revoke("0" * 64),
        lambda session: session.logout_elsewhere(),
        lambda session: session.impersonate("bob"),
    ],
    ids=["confirm_login", "revoke", "logout_elsewhere", "impersonate"],
)
def test_an_administrator_cannot_act_for_the_user_on_the_users_sessions(site: SessionMiddleware, verb: Any) -> None:
    with pytest.raises(NotLoggedIn):
        impersonating(site).do(verb)


@pytest.mark.parametrize("user", ["ada", "root"])
def test_ending_either_users_sessions_ends_the_impersonation(
    site: SessionMiddleware, store: SessionStore, user: str
) -> None:
    browser = impersonating(site)
    store.destroy_all(user)  # type: ignore[attr-defined]
    assert browser.do(lambda session: (session.user, session.actor)) == (None, None)


def test_stopping_begins_an_empty_session_of_the_actor_with_what_is_left_of_the_lifetime(
    make_site: MakeSite, clock: ManualClock
) -> None:
    browser = impersonating(make_site(max_lifetime=2 * HOUR))
    proved = browser.do(lambda session: session.authenticated_at)
    browser.do(put("note", 1))
    clock.advance(HOUR - 1)
    browser.do(lambda session: session.stop_impersonating())
    assert browser.do(who) == ("root", {})
    assert browser.do(lambda session: (session.actor, session.authenticated_at)) == (None, proved)
    clock.advance(HOUR - 1)
    browser.do(who)
    clock.advance(10)
    assert browser.do(who) == (None, {})


def test_an_impersonated_session_is_neither_counted_nor_ended_by_the_limit(
    make_site: MakeSite, clock: ManualClock
) -> None:
    site = make_site(max_sessions_per_user=1)
    admin, ada = impersonating(site), logged_in(site, "ada")
    assert (admin.do(lambda session: session.user), ada.do(lambda session: session.user)) == ("ada", "ada")
    clock.advance(1)
    logged_in(site, "ada")
    assert (admin.do(lambda session: session.user), ada.do(lambda session: session.user)) == ("ada", None)


def test_nobody_impersonates_and_nobody_stops(browser: Browser) -> None:
    for verb in (lambda session: session.impersonate("ada"), lambda session: session.stop_impersonating()):
        with pytest.raises(NotLoggedIn):
            browser.do(verb)


def test_an_impersonation_whose_administrator_is_logged_out_meanwhile_does_not_begin(
    site: SessionMiddleware, store: SessionStore
) -> None:
    browser = logged_in(site, "root")

    def dismissed_meanwhile(session: Session) -> None:
        session.impersonate("ada")
        store.destroy_all("root")  # type: ignore[attr-defined]

    browser.do(dismissed_meanwhile)
    assert browser.do(lambda session: (session.user, session.actor)) == (None, None)


def test_a_new_id_after_the_headers_is_refused(clock: ManualClock) -> None:
    kept: list[Session] = []
    site = SessionMiddleware(application, store=MemoryStore(clock=clock), secret=SECRET, clock=clock)
    browser = Browser(site)
    browser.do(kept.append)
    for move in ("login", "impersonate"):
        with pytest.raises(ResponseStarted):
            getattr(kept[0], move)("ada")


# The key of a login library


def test_a_user_under_the_named_key_is_logged_in_and_out(make_site: MakeSite, store: SessionStore) -> None:
    site = make_site(user_id_key="user_id")
    browser = Browser(site)
    browser.do(put("basket", 1))
    planted = copy_of(browser, site)
    browser.do(put("user_id", 7))
    assert browser.do(who) == ("7", {"basket": 1, "user_id": 7})
    assert planted.do(who) == (None, {})
    before = copy_of(browser, site)
    browser.do(lambda session: session.pop("user_id"))
    assert browser.do(who) == (None, {"basket": 1})
    assert before.do(who) == (None, {})
    assert store.destroy_all("7") == 0  # type: ignore[attr-defined]


def test_who_is_gone_from_the_named_key_leaves_no_proof_and_no_csrf_token(make_site: MakeSite) -> None:
    browser = Browser(make_site(user_id_key="user_id"))
    browser.do(lambda session: session.update(user_id="7", basket=1))
    token = browser.do(lambda session: session.get_csrf_token())
    browser.do(put("user_id", None))
    assert browser.do(lambda session: (session.user, session.authenticated_at, session["basket"])) == (None, None, 1)
    assert browser.do(lambda session: session.get_csrf_token()) != token


def test_a_uuid_under_the_named_key_is_a_user_by_its_text(make_site: MakeSite) -> None:
    browser, number = Browser(make_site(user_id_key="user_id")), UUID(int=7)
    browser.do(put("user_id", number))
    assert browser.do(lambda session: (session.user, session["user_id"])) == (str(number), number)


@pytest.mark.parametrize("changes_in_block", [True, False])
def test_a_login_under_the_named_key_before_atomic_moves_the_session_too(
    make_site: MakeSite, changes_in_block: bool
) -> None:
    site = make_site(user_id_key="user_id")
    browser = Browser(site)
    browser.do(put("basket", 1))
    planted = copy_of(browser, site)

    def log_in_and_count(session: Session) -> None:
        session["user_id"] = "7"
        with session.atomic():
            if changes_in_block:
                session["n"] = 1

    browser.do(log_in_and_count)
    assert browser.do(lambda session: session.user) == "7"
    assert planted.do(who) == (None, {})

    def log_out_and_count(session: Session) -> None:
        del session["user_id"]
        with session.atomic():
            session["n"] = 2

    before = copy_of(browser, site)
    browser.do(log_out_and_count)
    assert browser.do(lambda session: session.user) is None
    assert before.do(who) == (None, {})


def test_the_same_user_assigned_again_gives_a_session_from_before_its_user(make_site: MakeSite) -> None:
    browser = Browser(make_site())
    browser.do(put("user_id", "7"))
    browser._site = Browser(make_site(user_id_key="user_id"))._site
    browser.do(put("user_id", "7"))
    assert browser.do(lambda session: session.user) == "7"


def test_a_change_of_the_named_key_begins_empty_but_for_what_was_assigned(make_site: MakeSite) -> None:
    browser = Browser(make_site(user_id_key="user_id"))
    browser.do(lambda session: session.update(user_id="7", diary="7's"))
    browser.do(lambda session: session.update(user_id="8", theme="dark"))
    assert browser.do(who) == ("8", {"user_id": "8", "theme": "dark"})


def test_a_session_that_has_the_key_from_before_is_given_its_user_at_the_next_save(make_site: MakeSite) -> None:
    browser = Browser(make_site())
    browser.do(put("user_id", "7"))
    old_id = browser.do(lambda session: session.id)
    browser._site = Browser(make_site(user_id_key="user_id"))._site
    assert browser.do(lambda session: session.user) is None
    browser.do(put("basket", 1))
    assert browser.do(lambda session: (session.user, session.id, session.authenticated_at)) == ("7", old_id, None)


def test_a_call_of_login_decides_whatever_stands_under_the_key(make_site: MakeSite) -> None:
    browser = Browser(make_site(user_id_key="user_id"))

    def decide(session: Session) -> None:
        session["user_id"] = "7"
        session.login("ada")

    browser.do(decide)
    assert browser.do(who) == ("ada", {"user_id": "7"})


def log_out_and_name(session: Session) -> None:
    session.logout()
    session["user_id"] = "7"


def impersonate_and_name(session: Session) -> None:
    session.impersonate("bob")
    session["user_id"] = "7"


def stop_and_name(session: Session) -> None:
    session.impersonate("bob")
    session.stop_impersonating()
    session["user_id"] = "7"


@pytest.mark.parametrize(
    ("decide", "decided"),
    [(log_out_and_name, (None, None)), (impersonate_and_name, ("bob", "ada")), (stop_and_name, ("ada", None))],
    ids=["logout", "impersonate", "stop_impersonating"],
)
def test_a_call_that_says_who_is_logged_in_decides_whatever_stands_under_the_key(
    make_site: MakeSite, decide: Any, decided: tuple[str | None, str | None]
) -> None:
    browser = Browser(make_site(user_id_key="user_id"))
    browser.do(log_in("ada"))
    browser.do(decide)
    assert browser.do(lambda session: (session.user, session.actor)) == decided


@pytest.mark.parametrize("value", [1.5, True, [7], b"7", "", "a\nb"])
def test_what_names_no_user_is_refused_at_the_assignment(value: Any, make_site: MakeSite) -> None:
    with pytest.raises((TypeError, ValueError)):
        Browser(make_site(user_id_key="user_id")).do(put("user_id", value))


def browser_of_key(clock: ManualClock) -> Browser:
    """Return the browser of a site whose login library writes the user under `user_id`."""
    store = MemoryStore(clock=clock)
    return Browser(SessionMiddleware(application, store=store, secret=SECRET, clock=clock, user_id_key="user_id"))


def test_an_assignment_of_the_key_after_the_headers_is_refused(clock: ManualClock) -> None:
    kept: list[Session] = []
    browser = browser_of_key(clock)
    browser.do(put("a", 1))
    browser.do(kept.append)
    with pytest.raises(ResponseStarted, match="user_id"):
        kept[0]["user_id"] = "7"


def test_a_removal_of_the_key_after_the_headers_is_refused(clock: ManualClock) -> None:
    kept: list[Session] = []
    browser = browser_of_key(clock)
    browser.do(put("user_id", "7"))
    browser.do(kept.append)
    for remove in (lambda session: session.pop("user_id"), Session.clear):
        with pytest.raises(ResponseStarted, match="user_id"):
            remove(kept[0])
    assert browser.do(lambda session: session.user) == "7"


# Reading without using


@pytest.mark.parametrize("how", ["is_passive", "session.passive"])
def test_a_passive_request_reads_the_session_and_does_not_keep_it_alive(
    make_site: MakeSite, store: SessionStore, clock: ManualClock, how: str
) -> None:
    settings = {"is_passive": lambda environ: True} if how == "is_passive" else {}
    browser = Browser(make_site(ttl=900))
    browser.do(log_in("ada"))
    polling = Browser(make_site(ttl=900, **settings))
    polling.cookies = dict(browser.cookies)

    def poll(session: Session) -> str | None:
        if how == "session.passive":
            session.passive = True
        return session.user

    before = store.load(browser.do(lambda session: session.id))
    clock.advance(600)
    visit = polling.visit(poll)
    assert (visit.answer, visit.set_cookies) == ("ada", [])
    assert before is not None
    assert store.load(before.id) == before
    clock.advance(301)
    assert polling.visit(poll).answer is None


def test_a_write_of_a_passive_request_is_kept_and_does_not_keep_the_session_alive(
    make_site: MakeSite, clock: ManualClock
) -> None:
    browser = Browser(make_site(ttl=900))
    browser.do(log_in("ada"))
    browser._site = Browser(make_site(ttl=900, is_passive=lambda environ: True))._site
    clock.advance(600)
    browser.do(put("seen", 1))
    assert browser.do(who) == ("ada", {"seen": 1})
    clock.advance(301)
    assert browser.do(who) == (None, {})


# A form's token


def test_only_the_sessions_own_csrf_token_is_one(browser: Browser) -> None:
    assert browser.do(lambda session: session.is_csrf_token("")) is False
    token = browser.do(lambda session: session.get_csrf_token())
    for value, is_one in (
        (token, True),
        (token[:-1], False),
        ("", False),
        (None, False),
        (7, False),
        ("\udcff", False),
    ):
        assert browser.do(methodcaller("is_csrf_token", value)) is is_one


# Logins that nobody has told of


@pytest.mark.parametrize("key", ["_user_id", "_auth_user_id", "auth.userid", "user_id"])
def test_a_user_under_the_key_of_a_login_library_who_is_not_logged_in_is_warned_of_once(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = SessionMiddleware(application, store=MemoryStore(), secret=SECRET, secure=False)
    for user in ("7", "8"):
        Browser(site).do(put(key, user))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"set user_id_key={key!r}" in record.getMessage()


def test_nothing_is_said_of_a_user_who_is_logged_in_or_gone_and_of_a_key_that_is_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def log_in(session: Session) -> None:
        session["user_id"] = 7
        session.login("7")

    site = SessionMiddleware(application, store=MemoryStore(), secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(log_in)
    browser.do(put("user_id", 7))
    Browser(site).do(put("user_id", None))
    Browser(site).do(put("user", "7"))
    followed = SessionMiddleware(application, store=MemoryStore(), secret=SECRET, secure=False, user_id_key="user_id")
    Browser(followed).do(put("user_id", 7))
    assert caplog.records == []
