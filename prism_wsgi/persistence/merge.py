"""The three-way merge of two sessions that grew from the same one."""

from collections.abc import Callable, Mapping
from typing import Any


def merge(
    base: Mapping[str, Any],
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    encode: Callable[[Any], bytes],
) -> dict[str, Any]:
    """Return `theirs` with every top-level key that changed, came or went between `base` and `mine`.

    Changes to different keys all survive. Of two changes to the same key `mine` wins, because it is saved later.
    Values are compared as they are stored, by `encode`, because Python calls 1, 1.0 and True equal.
    """
    merged = dict(theirs)
    for key, value in mine.items():
        encoded = encode(value)
        # An equal value stays the object that the application holds, which it may still change.
        if key not in base or encode(base[key]) != encoded or (key in theirs and encode(theirs[key]) == encoded):
            merged[key] = value
    for key in base.keys() - mine.keys():
        merged.pop(key, None)
    return merged
