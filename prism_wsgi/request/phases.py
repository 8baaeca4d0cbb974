"""The values of a session's state: its phase, the response's stage, and the outcome."""

from enum import Enum, auto
from typing import NamedTuple


class Phase(Enum):
    """The part of the session's life that the request has seen."""

    UNREAD = auto()
    """The cookie names the session; the store has not been asked."""
    NEW = auto()
    """Nothing is stored under the id."""
    STORED = auto()
    """Loaded or saved: `identity.stored` is what the store holds, as far as this request knows."""
    GONE = auto()
    """Another request has ended the session meanwhile: it reads as empty, writes are dropped, no cookie is sent."""


class Stage(Enum):
    """The progress of the response, which decides when changes are saved."""

    OPEN = auto()
    """Not started: changes are saved before it starts."""
    STREAMING = auto()
    """The headers are out: changes are saved when the server closes the response."""
    DETACHED = auto()
    """Over, or passed to the server unwrapped, so that no `close()` will be seen: changes are saved at once."""


class Outcome(Enum):
    """The result of the request's last store call for its session."""

    NOTHING = auto()
    """The request has at most read the session."""
    LOAD_FAILED = auto()
    """The store failed at the last attempt to load."""
    TOUCHED = auto()
    """The use of the session was recorded."""
    UNRECORDED = auto()
    """The use of the session could not be recorded: the store failed, or holds another version."""
    SAVED = auto()
    """The session was written."""
    DROPPED = auto()
    """Changes were dropped, because another request ended the session; the log says so."""
    WITHHELD = auto()
    """Changes were not kept, because they came with a form of another site; the log says so."""
    DESTROYED = auto()
    """The application ended the session, and has saved nothing since."""
    DESTROY_FAILED = auto()
    """The application tried to end the session, which may still be stored."""


class Choice(Enum):
    """A decision that a request can take, besides assigning keys."""

    TTL = auto()
    PERSISTENT = auto()
    MAX_LIFETIME = auto()
    LOGIN = auto()
    """Somebody was logged in or out."""
    LOGOUT = auto()
    """A login library has taken the user out of a session that stays."""
    PROOF = auto()
    """A user has just proved who they are."""
    TOLD = auto()
    """The observers have been told of that proof."""


# Each request asks many times, and on Python 3.11 a member read from its Enum costs 60 ns.
UNREAD, NEW, STORED, GONE = Phase
OPEN, STREAMING, DETACHED = Stage
NOTHING, LOAD_FAILED, TOUCHED, SAVED = Outcome.NOTHING, Outcome.LOAD_FAILED, Outcome.TOUCHED, Outcome.SAVED


class Visit(NamedTuple):
    """Facts about the request itself: the origin of its events.

    `address` and `user_agent` are None where the device is not recorded.
    `requested`: the two parts of the path (SCRIPT_NAME, PATH_INFO), None if there are no observers.
    `is_passive`: it does not count as use.
    `is_withheld`: it is a form of another site, and the visitor's cookie stayed at home.
    """

    address: str | None = None
    user_agent: str | None = None
    requested: tuple[str, str] | None = None
    is_passive: bool = False
    is_withheld: bool = False

    @property
    def path(self) -> str | None:
        """The path of the request, without its query; None if there are no observers."""
        if self.requested is None:
            return None
        # PEP 3333 passes bytes as Latin-1. Made when it is asked for: only the event of a rejected cookie has a path.
        return "".join(self.requested).encode("latin-1", "replace").decode("utf-8", "replace")


ORDINARY = Visit()
"""The visit of nearly every request."""
WITHHELD = Visit(is_withheld=True)
