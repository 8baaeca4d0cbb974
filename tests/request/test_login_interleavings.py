"""Logins, administrators, other devices and the limit, in every order in which a store can see the requests."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware, SessionStore
from prism_wsgi.testing import ManualClock, Steps, every_interleaving
from tests.support.keys import SECRET
from tests.support.visitors import Action, Browser, application, put

MOST = {True: 400, False: 12}
"""How many orders are tried in memory, and on a database, where each takes longer."""


class Scene:
    """Browsers of one site over a store that starts empty; what `beside` returns takes steps with the others."""

    def __init__(self, steps: Steps, store: Any, clock: ManualClock, **settings: Any) -> None:
        self.store, self._clock, self._settings = store, clock, settings
        for user in ("ada", "bob", "root"):
            store.destroy_all(user)
        self._direct, self._stepping = self._site(store), self._site(steps.of(store))

    def visitor(self, *actions: Action) -> Browser:
        """Return a browser that has done these, one request each."""
        browser = Browser(self._direct)
        for action in actions:
            browser.do(action)
        return browser

    def beside(self, browser: Browser) -> Browser:
        """Return a browser with the cookies that this one has now, whose requests take steps."""
        return _with_cookies(browser, self._stepping)

    def direct(self, browser: Browser) -> Browser:
        """Return a browser with the cookies that this one has now, whose requests take no steps."""
        return _with_cookies(browser, self._direct)

    def users_of(self, *browsers: Browser) -> list[str | None]:
        """Return who each browser is logged in as, by the cookies it has."""
        return [self.direct(browser).do(lambda session: session.user) for browser in browsers]

    def live(self, user: str) -> int:
        return len(self.store.find(user=user))

    def _site(self, store: Any) -> SessionMiddleware:
        return SessionMiddleware(
            application, store=store, secret=SECRET, secure=False, clock=self._clock, **self._settings
        )


def _with_cookies(browser: Browser, site: SessionMiddleware) -> Browser:
    other = Browser(site)
    other.cookies = dict(browser.cookies)
    return other


Scenario = Callable[[Scene], tuple[Sequence[Callable[[], object]], Callable[[], object]]]
Play = Callable[..., None]


@pytest.fixture
def play(every_store: SessionStore, manual_clock: ManualClock) -> Play:
    """Return what plays a scenario in many orders: it is given the scene, and returns the actors and a check."""

    def play(scenario: Scenario, **settings: Any) -> None:
        def act(steps: Steps) -> Any:
            return scenario(Scene(steps, every_store, manual_clock, **settings))

        most = MOST[isinstance(every_store, MemoryStore)]
        assert every_interleaving(act, limit=most) > 1

    return play


def log_in(user: str) -> Action:
    return lambda session: session.login(user)


def confirm(session: Session) -> None:
    session.confirm_login()


def regenerate(session: Session) -> None:
    session.regenerate()


def log_out(session: Session) -> None:
    session.logout()


def look(session: Session) -> object:
    return session.get("x")


def impersonate(session: Session) -> None:
    session.impersonate("ada")


def stop_impersonating(session: Session) -> None:
    session.stop_impersonating()


BESIDE: dict[str, Action] = {
    "a read": look,
    "a write": put("x", 1),
    "a new id": regenerate,
    "a confirmation": confirm,
}
beside_one = pytest.mark.parametrize("other", BESIDE.values(), ids=BESIDE)


@beside_one
def test_a_login_is_logged_in_and_the_cookie_from_before_it_opens_nothing(play: Play, other: Action) -> None:
    """Guarantee 6. The other request is the same visitor's, who is not logged in and cannot confirm anything."""
    other = look if other is confirm else other

    def scenario(scene: Scene) -> Any:
        before = scene.visitor(put("basket", 1))
        entering, using = scene.beside(before), scene.beside(before)

        def check() -> None:
            assert scene.users_of(entering, before) == ["ada", None]
            assert scene.live("ada") == 1

        return [partial(entering.do, log_in("ada")), partial(using.do, other)], check

    play(scenario)


def test_each_of_two_clicks_on_one_login_is_logged_in_with_what_was_there(play: Play) -> None:
    """The second login comes upon the marker that the first one has left."""

    def scenario(scene: Scene) -> Any:
        before = scene.visitor(put("basket", 1))
        clicks = [scene.beside(before), scene.beside(before)]

        def check() -> None:
            assert scene.users_of(*clicks, before) == ["ada", "ada", None]
            for click in clicks:
                assert scene.direct(click).read() == {"basket": 1}

        return [partial(click.do, log_in("ada")) for click in clicks], check

    play(scenario)


def test_of_logins_as_two_users_on_one_cookie_each_has_a_session_of_its_own(play: Play) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(put("basket", 1))
        ada, bob = scene.beside(before), scene.beside(before)

        def check() -> None:
            assert scene.users_of(ada, bob, before) == ["ada", "bob", None]
            assert (scene.live("ada"), scene.live("bob")) == (1, 1)

        return [partial(ada.do, log_in("ada")), partial(bob.do, log_in("bob"))], check

    play(scenario)


def test_a_logout_from_before_a_login_does_not_end_the_login(play: Play) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(put("basket", 1))
        entering, leaving = scene.beside(before), scene.beside(before)

        def check() -> None:
            assert scene.users_of(entering, leaving, before) == ["ada", None, None]

        return [partial(entering.do, log_in("ada")), partial(leaving.do, log_out)], check

    play(scenario)


@pytest.mark.parametrize("move", [regenerate, confirm], ids=["a new id", "a confirmation"])
@pytest.mark.parametrize("looks_first", [False, True], ids=["logs out", "looks, then logs out"])
def test_a_logout_ends_the_session_wherever_it_has_moved(play: Play, move: Action, looks_first: bool) -> None:
    def end(session: Session) -> None:
        if looks_first:
            look(session)
        session.logout()

    def scenario(scene: Scene) -> Any:
        before = scene.visitor(log_in("ada"))
        moving, leaving = scene.beside(before), scene.beside(before)

        def act() -> None:
            # The logout may have ended the session before this request looks at it: nobody can confirm then.
            moving.do(lambda session: move(session) if session.user else None)

        def check() -> None:
            assert scene.users_of(moving, leaving, before) == [None, None, None]
            assert scene.live("ada") == 0

        return [act, partial(leaving.do, end)], check

    play(scenario)


@beside_one
def test_a_confirmation_moves_the_session_once_and_nobody_is_logged_out(play: Play, other: Action) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(log_in("ada"))
        confirming, using = scene.beside(before), scene.beside(before)

        def act(browser: Browser, action: Action) -> None:
            # Behind a move, the cookie from before opens nothing, and there is nobody to confirm.
            browser.do(lambda session: action(session) if session.user else None)

        def check() -> None:
            assert scene.live("ada") == 1
            assert scene.users_of(before) == [None]
            assert "ada" in scene.users_of(confirming, using)

        return [partial(act, confirming, confirm), partial(act, using, other)], check

    play(scenario)


@pytest.mark.parametrize("other", [look, put("x", 1), regenerate], ids=["a read", "a write", "a new id"])
def test_an_impersonation_begins_whole_or_not_at_all(play: Play, other: Action) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(log_in("root"), put("plans", 1))
        acting, using = scene.beside(before), scene.beside(before)

        def begin() -> None:
            acting.do(lambda session: impersonate(session) if session.user else None)

        def check() -> None:
            assert scene.users_of(before) == [None]
            (one,) = scene.store.find(user="root")
            assert (one.user, one.actor) in (("ada", "root"), ("root", None))
            if one.actor is not None:
                assert scene.direct(acting).read() == {}

        return [begin, partial(using.do, other)], check

    play(scenario)


@pytest.mark.parametrize("other", [look, put("x", 1), regenerate], ids=["a read", "a write", "a new id"])
def test_the_end_of_an_impersonation_brings_nothing_of_the_user_along(play: Play, other: Action) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(log_in("root"), impersonate, put("diary", 1))
        stopping, using = scene.beside(before), scene.beside(before)

        def stop() -> None:
            stopping.do(lambda session: stop_impersonating(session) if session.actor else None)

        def check() -> None:
            assert scene.users_of(before) == [None]
            (one,) = scene.store.find(user="root")
            assert (one.user, one.actor) in (("root", None), ("ada", "root"))
            if one.actor is None:
                assert scene.direct(stopping).read() == {}

        return [stop, partial(using.do, other)], check

    play(scenario)


@pytest.mark.parametrize(
    ("begun", "move", "user"),
    [
        ([log_in("root")], impersonate, "root"),
        ([log_in("root"), impersonate], stop_impersonating, "root"),
        ([log_in("root"), impersonate], stop_impersonating, "ada"),
    ],
    ids=["it begins, and the administrator", "it ends, and the administrator", "it ends, and the user"],
)
def test_an_impersonation_is_over_when_someone_logs_out_elsewhere(
    play: Play, begun: list[Action], move: Action, user: str
) -> None:
    def scenario(scene: Scene) -> Any:
        before = scene.visitor(*begun)
        acting, elsewhere = scene.beside(before), scene.beside(scene.visitor(log_in(user)))

        def check() -> None:
            # The user ends the impersonation only: an administrator who has stopped by then stays logged in.
            assert [(one.user, one.actor) for one in scene.store.find(user=user)] == [(user, None)]
            assert scene.users_of(elsewhere, before) == [user, None]

        dismiss = partial(elsewhere.do, lambda session: session.logout_elsewhere())
        return [lambda: acting.do(lambda session: move(session) if session.user else None), dismiss], check

    play(scenario)


@beside_one
def test_a_revoked_session_is_gone_whatever_it_does_meanwhile(play: Play, other: Action) -> None:
    def scenario(scene: Scene) -> Any:
        there = scene.visitor(log_in("ada"))
        revoked = there.do(lambda session: session.id)
        here, using = scene.beside(scene.visitor(log_in("ada"))), scene.beside(there)
        answers: list[bool] = []

        def revoke() -> None:
            answers.append(here.do(lambda session: session.revoke(revoked)))

        def check() -> None:
            assert answers == [True]
            assert scene.users_of(here, there, using) == ["ada", None, None]
            assert scene.live("ada") == 1

        return [revoke, lambda: using.do(lambda session: other(session) if session.user else None)], check

    play(scenario)


@beside_one
def test_logging_out_elsewhere_ends_what_moves_meanwhile_and_spares_this_device(play: Play, other: Action) -> None:
    def scenario(scene: Scene) -> Any:
        there = scene.visitor(log_in("ada"))
        here, using = scene.beside(scene.visitor(log_in("ada"))), scene.beside(there)

        def check() -> None:
            assert scene.users_of(here, there, using) == ["ada", None, None]
            assert scene.live("ada") == 1

        end = partial(here.do, lambda session: session.logout_elsewhere())
        return [end, lambda: using.do(lambda session: other(session) if session.user else None)], check

    play(scenario)


@pytest.mark.parametrize("move", [regenerate, confirm, log_in("ada")], ids=["a new id", "a confirmation", "a login"])
def test_logging_out_elsewhere_and_a_move_of_this_device_in_one_request_hold_beside_a_write(
    play: Play, move: Action
) -> None:
    def scenario(scene: Scene) -> Any:
        before, there = scene.visitor(log_in("ada")), scene.visitor(log_in("ada"))
        here, writing = scene.beside(before), scene.beside(before)

        def change_password(session: Session) -> None:
            move(session)
            session.logout_elsewhere()

        def check() -> None:
            assert scene.users_of(here, before, there) == ["ada", None, None]
            assert scene.live("ada") == 1

        return [partial(here.do, change_password), partial(writing.do, put("x", 1))], check

    play(scenario)


def test_the_limit_leaves_exactly_as_many_in_every_order(play: Play) -> None:
    def scenario(scene: Scene) -> Any:
        devices = [scene.beside(scene.visitor()) for _ in range(3)]

        def check() -> None:
            assert sorted(map(str, scene.users_of(*devices))) == ["None", "None", "ada"]
            assert scene.live("ada") == 1

        return [partial(device.do, log_in("ada")) for device in devices], check

    play(scenario, max_sessions_per_user=1)


@beside_one
def test_the_limit_ends_an_older_session_whatever_it_does_meanwhile(
    play: Play, manual_clock: ManualClock, other: Action
) -> None:
    def scenario(scene: Scene) -> Any:
        older = scene.visitor(log_in("ada"))
        manual_clock.advance(1)
        newer, using = scene.beside(scene.visitor()), scene.beside(older)

        def check() -> None:
            # A confirmation at the same moment is as new as the login, and either may be the one that stays.
            users = scene.users_of(newer, using)
            assert users in ([["ada", None]] if other is not confirm else [["ada", None], [None, "ada"]])
            assert scene.live("ada") == 1

        use = partial(using.do, lambda session: other(session) if session.user else None)
        return [partial(newer.do, log_in("ada")), use], check

    play(scenario, max_sessions_per_user=1)
