"""What clients of a store did and saw, and whether a store that keeps its guarantees can have answered so."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

FOREVER = 1 << 62
MILLISECOND = 1_000_000
"""In the unit of every moment here, nanoseconds: stores keep time in milliseconds."""


class Outcome(Enum):
    """What the client learnt of its call."""

    OK = "ok"
    MAYBE = "maybe"
    """It failed, or was never answered: it may have taken effect, then or later."""
    REFUSED = "refused"
    """A conflict, or the session had ended. Behind a lost answer even this may hide an effect of its own."""


@dataclass(frozen=True)
class Row:
    """What a load saw."""

    version: int
    data: str
    superseded: bool = False


@dataclass(frozen=True)
class Operation:
    """One call: `version` is the one that was to be replaced, `data` what was to be stored until `expires`.

    A `replace` puts a marker in the place of `id` and stores `data` under `new_id`. A `sweep` has no id; it deletes
    what expires until `expires`.
    """

    kind: str
    id: str
    began: int
    ended: int = FOREVER
    outcome: Outcome = Outcome.OK
    version: int = 0
    data: str = ""
    new_id: str = ""
    expires: int = FOREVER
    seen: Row | None = None

    @property
    def is_acknowledged(self) -> bool:
        return self.outcome is Outcome.OK


def violations(history: Iterable[Operation], *, has_transactions: bool = True) -> list[str]:
    """Return what cannot have happened: an empty list for a store that kept its word.

    Without transactions a `replace` that failed may leave both sessions, as nobody has a cookie of the new one.
    """
    by_id: dict[str, list[Operation]] = defaultdict(list)
    sweeps: list[Operation] = []
    for operation in history:
        if operation.kind == "sweep":
            sweeps.append(operation)
            continue
        by_id[operation.id].append(operation)
        if operation.kind == "replace":
            by_id[operation.new_id].append(operation)
    swept = _swept(sweeps)
    found = [sentence for one, operations in by_id.items() for sentence in _of_one(one, operations, swept)]
    for operations in by_id.values():
        for replacement in operations:
            if replacement.kind == "replace" and (has_transactions or replacement.is_acknowledged):
                found += _two_live(replacement, by_id)
    return sorted(set(found))


def counter_violations(acknowledged: int, possible: int, counted: int) -> list[str]:
    """Compare a counter with the increments that were acknowledged and those that may have been applied."""
    if acknowledged <= counted <= acknowledged + possible:
        return []
    return [f"a counter stands at {counted} after {acknowledged} increments and {possible} that may have been"]


def _of_one(session_id: str, operations: list[Operation], swept: Callable[[int], int]) -> list[str]:
    sentences = [sentence for rule in _RULES for sentence in rule(session_id, operations)]
    return [f"{session_id[:12]}: {sentence}" for sentence in (*sentences, *_no_loss(session_id, operations, swept))]


def _written(session_id: str, operation: Operation) -> Row | None:
    """Return the row that an operation makes of a session when it takes effect."""
    if operation.kind == "replace" and operation.id == session_id:
        return Row(operation.version + 1, "", superseded=True)
    if operation.kind in ("create", "replace"):
        return Row(1, operation.data)
    return Row(operation.version + 1, operation.data) if operation.kind == "save" else None


def _one_chain(session_id: str, operations: list[Operation]) -> Iterable[str]:
    acknowledged: dict[int, Operation] = {}
    possible: dict[Row, int] = {}
    for operation in operations:
        row = _written(session_id, operation)
        if row is None:
            continue
        possible[row] = min(operation.began, possible.get(row, FOREVER))
        if operation.is_acknowledged and acknowledged.setdefault(row.version, operation) is not operation:
            yield f"version {row.version} was made by two acknowledged saves"
    for load in operations:
        if load.kind != "load" or load.seen is None:
            continue
        maker = acknowledged.get(load.seen.version)
        if possible.get(load.seen, FOREVER) > load.ended:
            yield f"version {load.seen.version} was seen with data that nobody had saved"
        elif maker is not None and _written(session_id, maker) != load.seen:
            yield f"version {load.seen.version} was seen with data other than the acknowledged"


def _no_way_back(session_id: str, operations: list[Operation]) -> Iterable[str]:
    known = sorted(
        (operation.ended, row.version)
        for operation in operations
        if operation.is_acknowledged and (row := operation.seen or _written(session_id, operation)) is not None
    )
    ends, newest = [ended for ended, _ in known], [0]
    for _, version in known:
        newest.append(max(newest[-1], version))
    for load in operations:
        if load.kind == "load" and load.seen is not None:
            least = newest[bisect_left(ends, load.began)]
            if load.seen.version < least:
                yield f"version {load.seen.version} was seen after version {least} was known"


def _no_return(session_id: str, operations: list[Operation]) -> Iterable[str]:
    created = _known_since(session_id, operations)
    destroyed = min(
        (one.ended for one in operations if one.is_acknowledged and one.kind == "destroy"), default=FOREVER
    )
    missed = min(
        (one.ended for one in operations if _is_missing(one) and one.began > created),
        default=FOREVER,
    )
    # Of a session about to expire, one who comes after may still see what was extended at the last moment.
    lives_on = missed >= min((one.expires for one in operations), default=FOREVER)
    ended = destroyed if lives_on else min(destroyed, missed)
    for operation in operations:
        if operation.began > ended and operation.is_acknowledged:
            if operation.kind == "load" and operation.seen is not None:
                yield "it was seen after it had ended"
            elif operation.kind in ("save", "touch", "replace") and operation.id == session_id:
                yield f"a {operation.kind} was acknowledged after it had ended"


def _no_life_after_expiry(session_id: str, operations: list[Operation]) -> Iterable[str]:
    latest = 0
    for operation in sorted(operations, key=lambda one: one.began):
        if operation.kind in ("create", "save", "touch", "replace"):
            if not latest or operation.new_id == session_id or operation.began < latest + MILLISECOND:
                latest = max(latest, operation.expires)
            elif operation.is_acknowledged:
                yield f"a {operation.kind} was acknowledged after it had expired"
        elif operation.seen is not None and latest and operation.began > latest + MILLISECOND:
            yield "it was seen after it had expired"


def _no_loss(session_id: str, operations: list[Operation], swept: Callable[[int], int]) -> Iterable[str]:
    created = _known_since(session_id, operations)
    destroyed = min((one.began for one in operations if one.kind == "destroy"), default=FOREVER)
    for load in operations:
        if _is_missing(load) and created < load.began and load.ended < destroyed:
            least = _least_expiry(session_id, operations, load)
            if max(load.ended, swept(load.ended)) + MILLISECOND < least:
                yield "it was lost: nobody had ended it, and it had not expired"


def _least_expiry(session_id: str, operations: list[Operation], load: Operation) -> int:
    """Return the earliest moment at which what `load` looked for may have expired."""
    written = [(row.version, one) for one in operations if (row := _written(session_id, one)) is not None]
    newest = max(
        (version for version, one in written if one.is_acknowledged and one.ended < load.began),
        default=0,
    )
    touches = [one for one in operations if one.kind == "touch" and one.is_acknowledged and one.ended < load.began]
    return min(
        (
            # What may have happened may happen yet, and undo the touches before it.
            max(
                one.expires,
                *(touch.expires for touch in touches if one.is_acknowledged and touch.began > one.ended),
                0,
            )
            for version, one in written
            if version >= newest and one.began < load.ended
        ),
        default=0,
    )


def _swept(sweeps: list[Operation]) -> Callable[[int], int]:
    """Return a function that tells which expiry the sweeps that had begun by a moment may have reached."""
    sweeps = sorted(sweeps, key=lambda one: one.began)
    begun = [one.began for one in sweeps]
    reached = [0, *accumulate((one.expires for one in sweeps), max)]
    return lambda moment: reached[bisect_right(begun, moment)]


def _no_use_when_retired(session_id: str, operations: list[Operation]) -> Iterable[str]:
    retired = min(
        (one.ended for one in operations if one.kind == "replace" and one.id == session_id and one.is_acknowledged),
        default=FOREVER,
    )
    for operation in operations:
        if operation.began > retired and operation.is_acknowledged and operation.id == session_id:
            if operation.seen is not None and not operation.seen.superseded:
                yield "it was seen after it had been regenerated"
            elif operation.kind in ("save", "touch", "replace"):
                yield f"a {operation.kind} was acknowledged after it had been regenerated"


_RULES = (_one_chain, _no_way_back, _no_return, _no_life_after_expiry, _no_use_when_retired)


def _two_live(replacement: Operation, by_id: dict[str, list[Operation]]) -> Iterable[str]:
    new_since = _known_since(replacement.new_id, by_id[replacement.new_id])
    for load in by_id[replacement.id]:
        if load.seen is not None and not load.seen.superseded and load.began > new_since:
            yield f"{replacement.id[:12]}: it was seen although {replacement.new_id[:12]} had taken its place"


def _known_since(session_id: str, operations: list[Operation]) -> int:
    """Return since when the session is known to have been stored."""
    return min(
        (
            one.ended
            for one in operations
            if one.is_acknowledged
            and (one.seen is not None or one.kind == "create" or (one.kind == "replace" and one.new_id == session_id))
        ),
        default=FOREVER,
    )


def _is_missing(operation: Operation) -> bool:
    return operation.kind == "load" and operation.is_acknowledged and operation.seen is None
