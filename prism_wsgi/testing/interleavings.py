"""Interleavings: every order in which a store can see the calls of several requests, one after the other."""

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
"""A function that prepares a store, and returns the actors and a check of the result."""


class Steps:
    """A scheduler that lets one actor at a time run, from one call of a store to the next."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices
        self._here = threading.local()
        self._arrived = threading.Semaphore(0)
        self._go: list[threading.Semaphore] = []
        self._running: list[int] = []
        self._errors: list[BaseException] = []
        self.taken: list[tuple[int, int]] = []
        """The choices made: the index of the chosen actor, and the number of actors that could run."""

    def of(self, store: SessionStore) -> Any:
        """Return the store with its calls as steps for the actors; calls from other threads go straight through."""
        return _SteppingStore(store, self._arrive)

    def run(self, actors: Sequence[Actor]) -> None:
        """Run the actors to their ends; raise the first error that one of them raised."""
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
        # After the given choices the actors take turns, so that an actor that waits for another gets on.
        choice = self._choices[number] if number < len(self._choices) else 0
        self.taken.append((choice, len(self._running)))
        actor = self._running.pop(choice)
        self._running.append(actor)
        self._go[actor].release()
        assert self._arrived.acquire(timeout=WAIT_SECONDS), "an actor waits for something other than a store call"

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

    `scenario` is called for each order, with the Steps through which its actors must use the store
    (`steps.of(store)`). Stops after `limit` orders.
    """
    choices: list[int] = []
    for count in range(1, limit + 1):
        steps = Steps(choices)
        actors, check = scenario(steps)
        steps.run(actors)
        check()
        # Change the last choice that has an alternative left, and make all choices behind it again.
        taken = steps.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return count
        choices = [choice for choice, _ in taken[:-1]] + [taken[-1][0] + 1]
    return limit
