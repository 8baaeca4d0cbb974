"""What users saw whose browsers share cookies, and whether a site that keeps its guarantees can have answered so."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.histories import FOREVER, Outcome


@dataclass(frozen=True)
class Visit:
    """One request: it came with `cookie`, found `user` logged in, and was sent `new_cookie`; "" where there is none.

    `kind` is look, login, regenerate or logout. Each login is of a `new_user`.
    """

    kind: str
    began: int
    ended: int = FOREVER
    outcome: Outcome = Outcome.OK
    cookie: str = ""
    user: str = ""
    new_user: str = ""
    new_cookie: str = ""

    @property
    def is_acknowledged(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def has_moved(self) -> bool:
        """Whether the session went on under a new cookie."""
        return self.is_acknowledged and self.kind in ("login", "regenerate") and bool(self.new_cookie)


def violations(visits: Iterable[Visit]) -> list[str]:
    """Return what cannot have happened: an empty list for a site that kept its word."""
    visits = list(visits)
    return sorted({*_no_return(visits), *_no_use_of_an_old_cookie(visits), *_no_loss(visits)})


def _no_return(visits: list[Visit]) -> Iterable[str]:
    ended: dict[str, int] = {}
    for visit in visits:
        if visit.kind == "logout" and visit.is_acknowledged and visit.user:
            ended[visit.user] = min(visit.ended, ended.get(visit.user, FOREVER))
    for visit in visits:
        if visit.is_acknowledged and visit.began > ended.get(visit.user, FOREVER):
            yield f"{visit.user} was logged in after logging out"


def _no_use_of_an_old_cookie(visits: list[Visit]) -> Iterable[str]:
    moved: dict[str, int] = {}
    for visit in visits:
        if visit.has_moved and visit.cookie:
            moved[visit.cookie] = min(visit.ended, moved.get(visit.cookie, FOREVER))
    for visit in visits:
        if visit.is_acknowledged and visit.user and visit.began > moved.get(visit.cookie, FOREVER):
            yield f"{visit.user} was logged in by a cookie that had been replaced"


def _no_loss(visits: list[Visit]) -> Iterable[str]:
    moves = {visit.new_cookie: visit for visit in visits if visit.has_moved}
    changes: dict[str, int] = defaultdict(lambda: FOREVER)
    logouts: dict[str, int] = defaultdict(lambda: FOREVER)
    for visit in visits:
        if visit.kind != "look":
            changes[visit.cookie] = min(visit.began, changes[visit.cookie])
        if visit.kind == "logout":
            logouts[visit.cookie] = min(visit.began, logouts[visit.cookie])
    for visit in visits:
        move = moves.get(visit.cookie)
        if visit.kind != "look" or not visit.is_acknowledged or move is None or visit.began < move.ended:
            continue
        user = move.new_user or move.user
        ended = min(changes[visit.cookie], _ended_before_it_moved(move, moves, logouts))
        if visit.ended < ended and visit.user != user:
            yield f"{user} is not logged in any more, and nobody had logged out"


def _ended_before_it_moved(move: Visit, moves: dict[str, Visit], logouts: dict[str, int]) -> int:
    """Return when somebody began to log out with a cookie that the session had before; that ends it too."""
    earliest = FOREVER
    while True:
        earliest = min(earliest, logouts[move.cookie])
        if move.cookie not in moves:
            return earliest
        move = moves[move.cookie]
