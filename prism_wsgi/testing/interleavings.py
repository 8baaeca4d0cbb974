"""Every order in which a store can see the calls of several requests, one after the other."""

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from prism_wsgi.stores.base import SessionStore
from prism_wsgi.testing.faults import VERBS

MAX_STEPS = 1000
WAIT_SECONDS = 30

Actor = Callable[[], object]
Scenario = Callable[["Steps"], tuple[Sequence[Actor], Callable[[], object]]]
"""Sets the stage, and returns who acts and a check of what has come of it."""


class Steps:
    """Lets one actor at a time go on, from one call of a store to the next."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices
        self._here = threading.local()
        self._arrived = threading.Semaphore(0)
        self._go: list[threading.Semaphore] = []
        self._running: list[int] = []
        self._errors: list[BaseException] = []
        self.taken: list[tuple[int, int]] = []
        """The choices made: which of how many actors that could go on."""

    def of(self, store: SessionStore) -> Any:
        """Return the store with its calls as steps, for the actors; anybody else's calls go straight through."""
        return _SteppingStore(store, self._arrive)

    def run(self, actors: Sequence[Actor]) -> None:
        """Run the actors to their ends; raise what one of them raised."""
        self._go = [threading.Semaphore(0) for _ in actors]
        self._running = list(range(len(actors)))
        threads = [
            threading.Thread(target=self._act, args=(number, actor), daemon=True)
            for number, actor in enumerate(actors)
        ]
        for thread in threads:
            thread.start()
        while self._running and not self._errors:
            assert len(self.taken) < MAX_STEPS, "the actors wait for each other"
            self._step()
        if self._errors:
            raise self._errors[0]
        for thread in threads:
            thread.join()

    def _step(self) -> None:
        number = len(self.taken)
        # Beyond what was chosen the actors take turns, so that one who waits for another does not wait for ever.
        choice = self._choices[number] if number < len(self._choices) else 0
        self.taken.append((choice, len(self._running)))
        actor = self._running.pop(choice)
        self._running.append(actor)
        self._go[actor].release()
        assert self._arrived.acquire(timeout=WAIT_SECONDS), "an actor waits for something that is no call of a store"

    def _act(self, number: int, actor: Actor) -> None:
        self._here.go = self._go[number]
        self._here.go.acquire()
        try:
            actor()
        except BaseException as error:  # noqa: BLE001  # run() raises it
            self._errors.append(error)
        self._running.remove(number)
        self._arrived.release()

    def _arrive(self) -> None:
        go = getattr(self._here, "go", None)
        if go is not None:
            self._arrived.release()
            go.acquire()


class _SteppingStore:
    def __init__(self, store: SessionStore, arrive: Callable[[], None]) -> None:
        for name in VERBS:
            verb = getattr(store, name, None)
            if callable(verb):
                setattr(self, name, _stepping(verb, arrive))


def _stepping(verb: Callable[..., Any], arrive: Callable[[], None]) -> Callable[..., Any]:
    @wraps(verb)
    def call(*arguments: Any, **named: Any) -> Any:
        arrive()
        return verb(*arguments, **named)

    return call


def every_interleaving(scenario: Scenario, *, limit: int = 10_000) -> int:
    """Run a scenario in every order of its actors' store calls, and check each; return how many orders there are.

    `scenario` is called anew each time with the Steps that its actors' store has to go through (`steps.of(store)`).
    Stops after `limit` orders.
    """
    choices: list[int] = []
    for count in range(1, limit + 1):
        steps = Steps(choices)
        actors, check = scenario(steps)
        steps.run(actors)
        check()
        # The last choice that had another one left is made differently, and all behind it anew.
        taken = steps.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return count
        choices = [choice for choice, _ in taken[:-1]] + [taken[-1][0] + 1]
    return limit
