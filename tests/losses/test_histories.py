"""The checker of histories finds what cannot have happened, and nothing else."""

from dataclasses import replace

import pytest
from histories import FOREVER, Operation, Outcome, Row, counter_violations, violations

CREATED = Operation("create", "a", 1, 2, data="first")
SAVED = Operation("save", "a", 3, 4, version=1, data="second")
UNKNOWN = replace(SAVED, outcome=Outcome.MAYBE)
DESTROYED = Operation("destroy", "a", 5, 6)
REPLACED = Operation("replace", "a", 5, 6, version=2, data="moved", new_id="b")


def load(began: int, seen: Row | None, session_id: str = "a", ended: int | None = None) -> Operation:
    return Operation("load", session_id, began, began + 1 if ended is None else ended, seen=seen)


SECOND = Row(2, "second")
MARKER = Row(3, "", superseded=True)

POSSIBLE = {
    "a life": [CREATED, load(3, Row(1, "first")), SAVED, load(5, SECOND), DESTROYED, load(7, None)],
    "an unknown save that shows": [
        CREATED,
        UNKNOWN,
        load(5, SECOND),
    ],
    "an unknown save that shows late": [
        CREATED,
        UNKNOWN,
        load(5, Row(1, "first")),
        load(7, SECOND),
    ],
    "a refused save behind a lost answer": [
        CREATED,
        Operation("save", "a", 3, 4, Outcome.REFUSED, 1, "second"),
        load(5, SECOND),
    ],
    "a save that was never answered": [
        CREATED,
        replace(UNKNOWN, ended=FOREVER),
    ],
    "an unknown destruction": [CREATED, Operation("destroy", "a", 3, 4, Outcome.MAYBE), load(5, None)],
    "an unknown destruction without effect": [
        CREATED,
        Operation("destroy", "a", 3, 4, Outcome.MAYBE),
        load(5, Row(1, "first")),
    ],
    "a load during a destruction": [CREATED, load(5, Row(1, "first"), ended=9), Operation("destroy", "a", 6, 7)],
    "a regeneration": [CREATED, SAVED, REPLACED, load(7, MARKER), load(7, Row(1, "moved"), "b")],
    "an id that nobody made": [load(1, None, "x")],
}

IMPOSSIBLE = {
    "two saves of one version": (
        [CREATED, SAVED, Operation("save", "a", 3, 4, version=1, data="rival")],
        "two acknowledged saves",
    ),
    "data that nobody saved": ([CREATED, load(3, Row(1, "else"))], "nobody had saved"),
    "a version that nobody made": ([CREATED, load(3, SECOND)], "nobody had saved"),
    "data from the future": ([CREATED, load(2, SECOND), Operation("save", "a", 9, 10, version=1)], "nobody"),
    "data of a rival that was refused": (
        [CREATED, SAVED, Operation("save", "a", 3, 4, Outcome.REFUSED, 1, "rival"), load(5, Row(2, "rival"))],
        "other than the acknowledged",
    ),
    "a lost update": ([CREATED, SAVED, load(5, Row(1, "first"))], "after version 2 was known"),
    "a load that goes back": (
        [
            CREATED,
            UNKNOWN,
            load(5, SECOND),
            load(7, Row(1, "first")),
        ],
        "after version 2 was known",
    ),
    "a load after a destruction": ([CREATED, DESTROYED, load(7, Row(1, "first"))], "seen after it had ended"),
    "a save after a destruction": (
        [CREATED, DESTROYED, Operation("save", "a", 7, 8, version=1, data="x")],
        "save was acknowledged after it had ended",
    ),
    "a touch after a destruction": (
        [CREATED, DESTROYED, Operation("touch", "a", 7, 8)],
        "touch was acknowledged after it had ended",
    ),
    "a session that comes back": (
        [CREATED, Operation("destroy", "a", 3, 4, Outcome.MAYBE), load(5, None), load(7, Row(1, "first"))],
        "seen after it had ended",
    ),
    "a session that was lost": ([CREATED, load(3, None)], "lost"),
    "a regenerated session that is still read": ([CREATED, SAVED, REPLACED, load(7, SECOND)], "regenerated"),
    "a save under a regenerated id": (
        [CREATED, SAVED, REPLACED, Operation("save", "a", 7, 8, version=3, data="x")],
        "save was acknowledged after it had been regenerated",
    ),
    "two live ids after an unknown regeneration": (
        [
            CREATED,
            SAVED,
            Operation("replace", "a", 5, 6, Outcome.MAYBE, 2, "moved", "b"),
            load(7, Row(1, "moved"), "b"),
            load(9, SECOND),
        ],
        "had taken its place",
    ),
    "two regenerations of one session": (
        [CREATED, SAVED, REPLACED, Operation("replace", "a", 5, 6, version=2, data="moved", new_id="c")],
        "two acknowledged saves",
    ),
    "a regenerated session that was lost": ([CREATED, SAVED, REPLACED, load(7, None, "b")], "lost"),
}


@pytest.mark.parametrize("history", POSSIBLE.values(), ids=POSSIBLE)
def test_history_that_can_have_happened_is_accepted(history: list[Operation]) -> None:
    assert violations(history) == []
    assert violations(reversed(history)) == []


@pytest.mark.parametrize(("history", "sentence"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_history_that_cannot_have_happened_is_found_out(history: list[Operation], sentence: str) -> None:
    assert any(sentence in found for found in violations(history)), violations(history)


@pytest.mark.parametrize("counted", [3, 4, 5])
def test_counter_may_hold_what_may_have_been_applied(counted: int) -> None:
    assert counter_violations(3, 2, counted) == []


@pytest.mark.parametrize("counted", [2, 6])
def test_counter_that_lost_or_doubled_an_increment_is_found_out(counted: int) -> None:
    assert counter_violations(3, 2, counted) != []
