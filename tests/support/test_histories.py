"""The checker of histories finds what cannot have happened, and nothing else."""

from dataclasses import replace

import pytest

from tests.support import logins
from tests.support.histories import FOREVER, MILLISECOND, Operation, Outcome, Row, counter_violations, violations
from tests.support.logins import Visit

CREATED = Operation("create", "a", 1, 2, data="first")
SAVED = Operation("save", "a", 3, 4, version=1, data="second")
UNKNOWN = replace(SAVED, outcome=Outcome.MAYBE)
DESTROYED = Operation("destroy", "a", 5, 6)
REPLACED = Operation("replace", "a", 5, 6, version=2, data="moved", new_id="b")


def load(began: int, seen: Row | None, session_id: str = "a", ended: int | None = None) -> Operation:
    return Operation("load", session_id, began, began + 1 if ended is None else ended, seen=seen)


def ms(operation: Operation) -> Operation:
    """Return the operation with its moments taken as milliseconds."""
    began, ended, expires = (
        moment if moment == FOREVER else moment * MILLISECOND
        for moment in (operation.began, operation.ended, operation.expires)
    )
    return replace(operation, began=began, ended=ended, expires=expires)


BRIEF = ms(Operation("create", "a", 1, 2, data="first", expires=10))
TOUCHED = ms(Operation("touch", "a", 3, 4, expires=30))
SWEPT = ms(Operation("sweep", "", 5, 6, expires=12))
FIRST = Row(1, "first")

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
    "a session that expires": [BRIEF, ms(load(8, FIRST)), ms(load(9, None)), ms(load(12, None))],
    "a session that is swept by a clock that is ahead": [BRIEF, SWEPT, ms(load(7, None))],
    "a session that is extended at the last moment, and missed by one who looks meanwhile": [
        BRIEF,
        ms(Operation("touch", "a", 8, 15, expires=30)),
        ms(load(11, None)),
        ms(load(16, FIRST)),
    ],
    "a session whose extension is undone by one that knew nothing of it": [
        BRIEF,
        TOUCHED,
        ms(Operation("save", "a", 2, 5, Outcome.MAYBE, 1, "second", expires=11)),
        ms(load(13, None)),
    ],
    "a sweep that deletes what nobody extended any more": [BRIEF, TOUCHED, SWEPT, ms(load(7, FIRST))],
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
    "a session that was lost before it expired": ([BRIEF, ms(load(3, None))], "lost"),
    "a sweep that deletes what was extended in time": ([BRIEF, TOUCHED, SWEPT, ms(load(7, None))], "lost"),
    "a swept session that comes back": (
        [BRIEF, SWEPT, ms(load(7, None)), ms(load(9, FIRST))],
        "seen after it had ended",
    ),
    "a session that outlives its time": ([BRIEF, ms(load(12, FIRST))], "seen after it had expired"),
    "a touch of an expired session": (
        [BRIEF, ms(Operation("touch", "a", 12, 13, expires=30))],
        "touch was acknowledged after it had expired",
    ),
    "a save of an expired session": (
        [BRIEF, ms(Operation("save", "a", 12, 13, version=1, data="second", expires=30))],
        "save was acknowledged after it had expired",
    ),
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


def test_a_store_without_transactions_may_leave_both_sessions_of_a_move_that_failed() -> None:
    unknown = replace(REPLACED, outcome=Outcome.MAYBE)
    history = [CREATED, SAVED, unknown, load(7, Row(1, "moved"), "b"), load(9, SECOND)]
    assert violations(history, has_transactions=False) == []
    history[2] = REPLACED
    assert violations(history, has_transactions=False) != []


LOGIN = Visit("login", 1, 2, new_user="alice", new_cookie="A")
MOVED = Visit("regenerate", 3, 4, cookie="A", user="alice", new_cookie="B")
LOGOUT = Visit("logout", 5, 6, cookie="B", user="alice")


def look(began: int, user: str, cookie: str, ended: int | None = None) -> Visit:
    return Visit("look", began, began + 1 if ended is None else ended, cookie=cookie, user=user)


POSSIBLE_VISITS = {
    "a life": [
        look(0, "", ""),
        LOGIN,
        look(2, "alice", "A"),
        MOVED,
        look(5, "", "A"),
        look(4, "alice", "B"),
        LOGOUT,
        look(7, "", "B"),
    ],
    "a look during the logout": [LOGIN, MOVED, look(5, "alice", "B", 9), LOGOUT],
    "a logout that may have happened": [LOGIN, MOVED, replace(LOGOUT, outcome=Outcome.MAYBE), look(7, "", "B")],
    "a logout that may not have happened": [
        LOGIN,
        MOVED,
        replace(LOGOUT, outcome=Outcome.MAYBE),
        look(7, "alice", "B"),
    ],
    "a logout with the cookie before": [
        LOGIN,
        MOVED,
        Visit("logout", 3, 6, cookie="A", user="alice"),
        look(7, "", "B"),
    ],
    "a move of which nobody heard": [LOGIN, replace(MOVED, outcome=Outcome.MAYBE, new_cookie=""), look(5, "", "A")],
    "a move that was overtaken": [LOGIN, MOVED, Visit("regenerate", 3, 4, cookie="A", user="alice")],
}

IMPOSSIBLE_VISITS = {
    "a user who comes back": ([LOGIN, MOVED, LOGOUT, look(7, "alice", "B")], "after logging out"),
    "a user who comes back by another cookie": ([LOGIN, MOVED, LOGOUT, look(7, "alice", "C")], "after logging out"),
    "an old cookie that still opens": ([LOGIN, MOVED, look(5, "alice", "A")], "had been replaced"),
    "a login that was lost": ([LOGIN, look(3, "", "A")], "not logged in any more"),
    "a login that was lost with a new cookie": ([LOGIN, MOVED, look(5, "", "B")], "not logged in any more"),
    "somebody else": ([LOGIN, look(3, "bob", "A")], "not logged in any more"),
}


@pytest.mark.parametrize("visits", POSSIBLE_VISITS.values(), ids=POSSIBLE_VISITS)
def test_visits_that_can_have_happened_are_accepted(visits: list[Visit]) -> None:
    assert logins.violations(visits) == []
    assert logins.violations(reversed(visits)) == []


@pytest.mark.parametrize(("visits", "sentence"), IMPOSSIBLE_VISITS.values(), ids=IMPOSSIBLE_VISITS)
def test_visits_that_cannot_have_happened_are_found_out(visits: list[Visit], sentence: str) -> None:
    assert any(sentence in found for found in logins.violations(visits)), logins.violations(visits)
