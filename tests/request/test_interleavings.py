"""Two requests of one browser, and the sweeper or the clock beside them, in every order the store can see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import pytest

from prism_wsgi import MemoryStore, SessionConflict, SessionMiddleware
from prism_wsgi.persistence import document
from prism_wsgi.request import saving
from prism_wsgi.testing import FlakyStore, ManualClock, Steps, every_interleaving
from tests.support.keys import SECRET
from tests.support.visitors import Action, Browser, Visit, application, count, put

TTL = 3600
LIMIT = 60
"""Orders tried of requests that may wait for each other in ever more ways."""


@dataclass
class Scene:
    """A browser that is logged in, and requests it makes at once, each through a site whose store takes steps."""

    steps: Steps
    clock: ManualClock = field(default_factory=ManualClock)
    visits: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock, ttl=10 * TTL)
        self.browser = Browser(self.site(self.store))
        self.browser.do(lambda session: session.login("alice"))
        self.browser.do(put("kept", 1))
        self.first_cookies = dict(self.browser.cookies)
        self.browser._site = self.site(self.steps.of(self.store))
        self.clock.advance(TTL / 2)  # so that every request records activity

    def site(self, store: Any) -> SessionMiddleware:
        return SessionMiddleware(application, store=store, secret=SECRET, secure=False, ttl=TTL, clock=self.clock)

    def actor(self, action: Action) -> Callable[[], None]:
        return lambda: self.visits.append(self.browser.visit(action))

    def read_with(self, cookies: dict[str, str]) -> dict[str, Any]:
        """Return what a browser with these cookies reads, and never mind the steps."""
        browser = Browser(self.site(self.store))
        browser.cookies = dict(cookies)
        return browser.read()

    def live_sessions(self) -> list[str]:
        return [session.id for session in self.store.find_all()]


def nothing_is_lost_when_ended(scene: Scene, used: set[str]) -> None:
    """What holds after any two requests, whatever they did."""
    assert {visit.status for visit in scene.visits} == {"200 OK"}
    live, values = scene.live_sessions(), scene.read_with(scene.browser.cookies)
    if "logout" in used:
        # What comes late with the old cookie may begin a session of its own, but not as the user who left.
        assert len(live) <= 1
        assert scene.store.find(user="alice") == []
        assert "kept" not in values
        assert scene.read_with(scene.first_cookies) == {}
        return
    assert len(live) == 1
    assert values["kept"] == 1
    if "regenerate" in used:
        # What the other request wrote under the old id goes with it or was dropped, and the browser is inside.
        assert scene.browser.cookies != scene.first_cookies
        assert scene.read_with(scene.first_cookies) == {}
        return
    assert values.get("x") == (1 if "write x" in used else None)
    assert values.get("y") == (1 if "write y" in used else None)
    assert values.get("n") == (1 if "count" in used else None)


USES: dict[str, Action] = {
    "read": lambda session: session.get("kept"),
    "write x": put("x", 1),
    "write y": put("y", 1),
    "count": count,
    "regenerate": lambda session: session.regenerate(),
    "logout": lambda session: session.logout(),
}
PAIRS = [pair for pair in combinations_with_replacement(USES, 2) if pair != ("count", "count")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_requests_keep_the_guarantees_in_every_order(first: str, second: str) -> None:
    def scenario(steps: Steps) -> Any:
        scene = Scene(steps)
        actors = [scene.actor(USES[first]), scene.actor(USES[second])]
        return actors, lambda: nothing_is_lost_when_ended(scene, {first, second})

    assert every_interleaving(scenario, limit=LIMIT) > 1


def test_two_counts_are_two_in_every_order() -> None:
    def scenario(steps: Steps) -> Any:
        scene = Scene(steps)

        def check() -> None:
            assert scene.read_with(scene.browser.cookies)["n"] == 2

        return [scene.actor(count), scene.actor(count)], check

    assert every_interleaving(scenario, limit=12) == 12  # each lets the one that waits wait a little longer


def test_sweeper_beside_a_request_deletes_nothing_that_lives() -> None:
    def scenario(steps: Steps) -> Any:
        scene = Scene(steps)

        def sweep() -> None:
            steps.of(scene.store).sweep(int(scene.clock() * 1000), 10)

        def check() -> None:
            assert scene.read_with(scene.browser.cookies) == {"kept": 1, "x": 1}

        return [scene.actor(USES["write x"]), sweep, sweep], check

    assert every_interleaving(scenario) > 10


@pytest.mark.parametrize("use", ["read", "write x"])
def test_session_that_expires_during_a_request_is_kept_whole_or_ended(use: str) -> None:
    def scenario(steps: Steps) -> Any:
        scene = Scene(steps)
        stepping = steps.of(scene.store)

        def expire_and_sweep() -> None:
            stepping.load("")  # a step before time passes, so that it may pass in between
            scene.clock.advance(TTL / 2)
            stepping.sweep(int(scene.clock() * 1000), 10)

        def check() -> None:
            kept = scene.read_with(scene.first_cookies)
            assert kept in ({}, {"kept": 1} if use == "read" else {"kept": 1, "x": 1})
            if not kept:
                # Ended: the request that came too late wrote nothing under the old id, and set no cookie for it.
                assert scene.browser.cookies == scene.first_cookies or scene.browser.read() in ({}, {"x": 1})

        return [scene.actor(USES[use]), expire_and_sweep], check

    assert every_interleaving(scenario) > 2


def test_merge_by_which_the_last_write_wins_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "merge", lambda base, mine, theirs, encode: dict(mine))
    with pytest.raises(AssertionError):
        test_two_requests_keep_the_guarantees_in_every_order("write x", "write y")


def test_store_that_regenerates_by_deleting_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: MemoryStore, old: Any, new: Any) -> None:
        self.destroy(old.id)
        self.save(new)

    monkeypatch.setattr(MemoryStore, "replace", replace)
    with pytest.raises(AssertionError):
        test_two_requests_keep_the_guarantees_in_every_order("regenerate", "regenerate")


def test_writer_does_not_sleep_between_looking_again_and_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has read goes stale meanwhile: of eight busy writers, some lost forty races in a row."""
    store = FlakyStore(MemoryStore())
    browser = Browser(SessionMiddleware(application, store=store, secret=SECRET, secure=False))
    browser.do(put("kept", 1))
    monkeypatch.setattr(saving, "pause", lambda attempt: store.calls.append("pause"))
    store.heal()
    store.fail(verb="save", error=SessionConflict("injected"), times=2)
    browser.do(put("x", 1))
    assert store.calls == ["load", "save", "pause", "load", "save", "pause", "load", "save"]


def test_error_of_an_actor_is_raised() -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        every_interleaving(lambda steps: ([fail, lambda: None], lambda: None))


def test_every_order_is_met_once() -> None:
    """Two actors of two steps each can be ordered in six ways; three of one step in six."""
    met: list[str] = []

    def scenario(steps: Steps) -> Any:
        order: list[str] = []
        store = steps.of(MemoryStore())

        def actor(name: str) -> Callable[[], None]:
            def act() -> None:
                for _ in range(2):
                    store.load("")
                    order.append(name)

            return act

        return [actor("a"), actor("b")], lambda: met.append("".join(order))

    every_interleaving(scenario)
    assert set(met) == {"aabb", "abab", "abba", "baab", "baba", "bbaa"}
