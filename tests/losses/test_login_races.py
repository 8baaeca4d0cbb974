"""Many logins, and the ends of logins, at once: in threads, and in processes that share a store only."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware, SessionStore
from prism_wsgi.testing import ManualClock
from tests.support.keys import SECRET
from tests.support.visitors import FORK, Action, Browser, application, put, run_at_once, run_in_processes
from tests.support.waiting import PATIENCE

LOGINS = 12
LIMIT = 3
ROUNDS = 2

AtOnce = Callable[[Sequence[tuple[Browser, Action]]], None]


@pytest.fixture(params=["threads", "processes"])
def at_once(request: pytest.FixtureRequest, every_store: SessionStore) -> AtOnce:
    """Return what makes one request of each browser; all have read their session before one goes on."""
    if request.param == "processes" and isinstance(every_store, MemoryStore):
        pytest.skip("processes do not share a MemoryStore")
    run = run_at_once if request.param == "threads" else run_in_processes

    def make_requests(requests: Sequence[tuple[Browser, Action]]) -> None:
        have_read = FORK.Barrier(len(requests))

        def visit(browser: Browser, action: Action) -> list[str]:
            def act(session: Session) -> object:
                session.get("x")
                have_read.wait(PATIENCE)
                return action(session)

            found = browser.visit(act)
            assert found.status == "200 OK"
            return found.set_cookies

        # What a process took into its copy of the browser is lost with it.
        for (browser, _), set_cookies in zip(requests, run([partial(visit, *one) for one in requests]), strict=True):
            browser._take(set_cookies)

    return make_requests


@pytest.fixture
def store(every_store: SessionStore) -> Any:
    return every_store


@pytest.fixture
def make_site(store: SessionStore, manual_clock: ManualClock) -> Callable[..., SessionMiddleware]:
    return partial(
        SessionMiddleware,
        application,
        store=store,
        secret=SECRET,
        secure=False,
        clock=manual_clock,
        cookie_on="write",
    )


def log_in(session: Session) -> None:
    session.login("ada")


def logged_in(site: SessionMiddleware, user: str = "ada") -> Browser:
    browser = Browser(site)
    browser.do(lambda session: session.login(user))
    return browser


def user_of(browser: Browser) -> str | None:
    user: str | None = browser.do(lambda session: session.user)
    return user


MEANWHILE: list[Action] = [
    put("x", 1),
    lambda session: session.regenerate(),
    lambda session: session.confirm_login(),
    lambda session: session.get("x"),
]


def test_of_twelve_logins_at_once_exactly_three_stay(
    at_once: AtOnce, store: Any, make_site: Callable[..., SessionMiddleware]
) -> None:
    site = make_site(max_sessions_per_user=LIMIT)
    devices = [Browser(site) for _ in range(LOGINS)]
    at_once([(device, log_in) for device in devices])
    assert [user_of(device) for device in devices].count("ada") == LIMIT
    assert len(store.find(user="ada")) == LIMIT


def test_logins_of_one_cookie_at_once_are_all_logged_in(
    at_once: AtOnce, make_site: Callable[..., SessionMiddleware]
) -> None:
    site = make_site()
    before = Browser(site)
    before.do(put("basket", 1))
    clicks = [Browser(site) for _ in range(4)]
    for click in clicks:
        click.cookies = dict(before.cookies)
    at_once([(click, log_in) for click in clicks])
    assert [(user_of(click), click.read()) for click in clicks] == [("ada", {"basket": 1})] * 4
    assert user_of(before) is None


def test_logging_out_elsewhere_ends_every_other_device_whatever_it_does_at_that_moment(
    at_once: AtOnce, store: Any, make_site: Callable[..., SessionMiddleware]
) -> None:
    site = make_site()
    for _ in range(ROUNDS):
        here, others = logged_in(site), [logged_in(site) for _ in MEANWHILE]
        at_once([(here, lambda session: session.logout_elsewhere()), *zip(others, MEANWHILE, strict=True)])
        assert [user_of(device) for device in (here, *others)] == ["ada", *[None] * len(others)]
        assert len(store.find(user="ada")) == 1
        here.do(lambda session: session.logout())


def test_a_revoked_session_is_gone_whatever_it_does_at_that_moment(
    at_once: AtOnce, store: Any, make_site: Callable[..., SessionMiddleware]
) -> None:
    site = make_site()
    for meanwhile in MEANWHILE:
        here, there = logged_in(site), logged_in(site)
        revoked = there.do(lambda session: session.id)
        at_once([(here, partial(Session.revoke, session_id=revoked)), (there, meanwhile)])
        assert (user_of(here), user_of(there)) == ("ada", None)
        assert len(store.find(user="ada")) == 1
        here.do(lambda session: session.logout())


def test_a_dismissed_administrator_impersonates_nobody_who_was_about_to(
    at_once: AtOnce, store: Any, make_site: Callable[..., SessionMiddleware]
) -> None:
    site = make_site()
    for _ in range(ROUNDS):
        elsewhere, acting = logged_in(site, "root"), logged_in(site, "root")
        at_once(
            [
                (elsewhere, lambda session: session.logout_elsewhere()),
                (acting, lambda session: session.impersonate("ada")),
            ]
        )
        assert (user_of(elsewhere), user_of(acting)) == ("root", None)
        assert store.find(user="ada") == []
        elsewhere.do(lambda session: session.logout())
