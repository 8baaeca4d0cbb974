"""Every use of a session with every call of its store failing in turn, before or after its effect."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware, StoreUnavailable
from prism_wsgi.testing import FlakyStore, ManualClock, When, new_session
from tests.support.keys import SECRET
from tests.support.visitors import Action, Browser, Visit, application, count, put

TTL = 3600
MOST_CALLS = 12
"""More than any request here makes, so that the last failures ordered are never met."""


def start_again(session: Session) -> None:
    session.logout()
    session["x"] = 1


USES: dict[str, Action] = {
    "read": lambda session: session.get("kept"),
    "write": put("x", 1),
    "count": count,
    "login": lambda session: session.login("alice"),
    "regenerate": lambda session: session.regenerate(),
    "logout": lambda session: session.logout(),
    "logout and write": start_again,
}
ERRORS: dict[str, Callable[[], Exception]] = {
    "unavailable": lambda: StoreUnavailable("injected"),
    "timeout": lambda: TimeoutError("injected"),
    "driver": lambda: RuntimeError("injected"),
}


@dataclass
class Scene:
    """Alice's browser, and the store it needs."""

    store: Any
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.flaky = FlakyStore(self.store)
        self.browser = Browser(self.site(self.flaky))
        self.browser.do(lambda session: session.login("alice"))
        self.browser.do(put("kept", 1))
        self.clock.advance(TTL / 2)  # so that activity is recorded
        self.before = dict(self.browser.cookies)
        self.flaky.heal()

    def site(self, store: Any) -> SessionMiddleware:
        return SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=self.clock)

    def values_of(self, cookies: dict[str, str]) -> dict[str, Any]:
        browser = Browser(self.site(self.store))
        browser.cookies = dict(cookies)
        return browser.read()

    def check(self, use: str, visit: Visit) -> None:
        self.flaky.heal()
        old, new = self.values_of(self.before), self.values_of(self.browser.cookies)
        if visit.status.startswith("503"):
            assert visit.set_cookies == []
            assert self.browser.cookies == self.before
            # Nothing else than before, or than it would have been; a session that was ended may be gone.
            assert old in ({}, {"kept": 1}, {"kept": 1, "x": 1}, {"kept": 1, "n": 1})
            assert old or use in ("login", "regenerate", "logout", "logout and write")
            return
        assert visit.status == "200 OK"
        expected: dict[str, dict[str, Any]] = {
            "write": {"kept": 1, "x": 1},
            "count": {"kept": 1, "n": 1},
            "logout": {},
            "logout and write": {"x": 1},
        }
        assert new == expected.get(use, {"kept": 1})
        if self.browser.cookies != self.before and use not in ("read", "write", "count"):
            assert old == {}


class ThreeVerbs:
    """A MemoryStore without its optional verbs."""

    def __init__(self) -> None:
        store = MemoryStore(ttl=10 * TTL)
        self.load, self.save, self.destroy = store.load, store.save, store.destroy


@pytest.mark.parametrize("make_store", [lambda: MemoryStore(ttl=10 * TTL), ThreeVerbs], ids=["memory", "three verbs"])
@pytest.mark.parametrize("when", When, ids=lambda when: when.name.lower())
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("use", USES)
def test_failure_of_any_call_is_a_503_that_sets_no_cookie_or_nothing_at_all(
    use: str, error: str, when: When, make_store: Callable[[], Any]
) -> None:
    refused = 0
    for at in range(1, MOST_CALLS + 1):
        scene = Scene(make_store())
        scene.flaky.fail(at, when=when, error=ERRORS[error]())
        visit = scene.browser.visit(USES[use])
        failed = len(scene.flaky.calls) >= at
        refused += visit.status.startswith("503")
        assert failed or visit.status == "200 OK"
        scene.check(use, visit)
    assert refused >= 1
    assert not failed, "raise MOST_CALLS: the last call was not reached"


def test_failure_comes_at_the_call_that_was_named() -> None:
    flaky = FlakyStore(MemoryStore())
    flaky.fail(2, verb="load", times=2)
    outcomes: list[object] = []
    for _ in range(4):
        flaky.destroy("")
        try:
            outcomes.append(flaky.load(""))
        except StoreUnavailable:
            outcomes.append("failed")
    assert outcomes == [None, "failed", "failed", None]
    assert flaky.calls == ["destroy", "load"] * 4


@pytest.mark.parametrize(("when", "is_stored"), [(When.BEFORE, False), (When.AFTER, True)])
def test_failure_comes_on_the_side_of_the_effect_that_was_named(when: When, is_stored: bool) -> None:
    store, session = MemoryStore(), new_session()
    flaky = FlakyStore(store)
    flaky.fail(when=when, error=OSError("mine"))
    with pytest.raises(OSError, match="mine"):
        flaky.save(session)
    assert (store.load(session.id) is not None) is is_stored


def test_flaky_store_has_the_verbs_of_the_store_it_wraps() -> None:
    assert hasattr(FlakyStore(MemoryStore()), "touch")
    assert not hasattr(FlakyStore(ThreeVerbs()), "touch")
