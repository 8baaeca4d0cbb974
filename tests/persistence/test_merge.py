"""The three-way merge: what it does with every key, whatever the three sides hold."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prism_wsgi.persistence.merge import merge
from prism_wsgi.serializers import TypedSerializer

ABSENT = object()
KEYS = "abcde"


def encode(value: object) -> bytes:
    return TypedSerializer().dumps({"": value})


def merged(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return merge(base, mine, theirs, encode)


scalars = st.none() | st.booleans() | st.integers(0, 3) | st.floats(0, 2) | st.sampled_from(["", "x", "y"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("k"), inner), max_leaves=4
)
sessions = st.dictionaries(st.sampled_from(KEYS), values)


def stored(value: object) -> bytes | None:
    return None if value is ABSENT else encode(value)


@given(sessions, sessions, sessions)
def test_each_key_is_mine_where_i_changed_it_and_theirs_otherwise(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    result = merged(base, mine, theirs)
    for key in KEYS:
        before, my, their = (stored(side.get(key, ABSENT)) for side in (base, mine, theirs))
        assert stored(result.get(key, ABSENT)) == (their if my == before else my)


@given(sessions, sessions)
def test_nothing_changed_by_me_leaves_theirs(base: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert encode(merged(base, base, theirs)) == encode(theirs)


@given(sessions, sessions)
def test_nothing_changed_by_them_leaves_mine(base: dict[str, Any], mine: dict[str, Any]) -> None:
    result = merged(base, mine, base)
    assert {key: encode(value) for key, value in result.items()} == {
        key: encode(value) for key, value in mine.items()
    }


@given(sessions, sessions, sessions)
def test_merging_again_changes_nothing(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    once = merged(base, mine, theirs)
    assert encode(merged(theirs, once, theirs)) == encode(once)


@given(sessions, sessions, sessions)
def test_the_three_sides_stay_as_they_were(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    before = [encode(side) for side in (base, mine, theirs)]
    merged(base, mine, theirs)
    assert [encode(side) for side in (base, mine, theirs)] == before


def test_values_that_python_calls_equal_are_different_changes() -> None:
    assert merged({"a": 1}, {"a": True}, {"a": 1})["a"] is True
    assert type(merged({"a": 1}, {"a": 1.0}, {"a": 1})["a"]) is float
    assert type(merged({"a": [1]}, {"a": (1,)}, {"a": [1]})["a"]) is tuple


def test_key_that_i_deleted_and_they_changed_is_deleted() -> None:
    assert merged({"a": 1}, {}, {"a": 2}) == {}


def test_key_that_they_deleted_and_i_changed_stays() -> None:
    assert merged({"a": 1}, {"a": 2}, {}) == {"a": 2}
