"""The values that a session's state is made of: its phase, the response's stage, what has come of it."""

from dataclasses import dataclass
from enum import Enum, auto


class Phase(Enum):
    """The part of the session's life that the request has seen."""

    UNREAD = auto()
    """The cookie names it; the store has not been asked."""
    NEW = auto()
    """Nothing is stored under the id."""
    STORED = auto()
    """Loaded or saved: `identity.stored` is what the store holds, as far as this request knows."""
    GONE = auto()
    """Ended by another request while this one was under way: reads empty, writes go nowhere, no cookie."""


class Stage(Enum):
    """The progress of the response, which decides when changes are saved."""

    OPEN = auto()
    """Not started: changes are saved before it starts."""
    STREAMING = auto()
    """The headers are out: changes are saved when the server closes the response."""
    DETACHED = auto()
    """Over, or handed to the server as it is, so that nothing will close it: changes are saved at once."""


class Outcome(Enum):
    """The result of the request's last dealings with the store."""

    NOTHING = auto()
    """It has read the session at most."""
    LOAD_FAILED = auto()
    """The store failed at the last attempt to load."""
    TOUCHED = auto()
    """The use of the session was recorded."""
    UNRECORDED = auto()
    """The use of the session could not be recorded: the store failed, or holds another version by now."""
    SAVED = auto()
    """The session was written."""
    DROPPED = auto()
    """Changes went nowhere, because the session has ended elsewhere; the log says so."""
    WITHHELD = auto()
    """Changes were not kept, because they came with a form of another site; the log says so."""
    DESTROYED = auto()
    """The application ended the session, and nothing was saved since."""
    DESTROY_FAILED = auto()
    """The application ended the session, which may still be there."""


class Choice(Enum):
    """A decision that a request can take beside assigning keys."""

    TTL = auto()
    PERSISTENT = auto()
    MAX_LIFETIME = auto()
    LOGIN = auto()
    """Somebody was logged in or out."""
    PROOF = auto()
    """A user has just proved who they are."""
    TOLD = auto()
    """The observers know of that proof already."""


# Each request asks many times, and on Python 3.11 a member read from its Enum costs 60 ns.
UNREAD, NEW, STORED, GONE = Phase
OPEN, STREAMING, DETACHED = Stage
NOTHING, LOAD_FAILED, TOUCHED, SAVED = Outcome.NOTHING, Outcome.LOAD_FAILED, Outcome.TOUCHED, Outcome.SAVED


@dataclass(frozen=True, slots=True)
class Visit:
    """Facts about the request itself.

    `address` and `user_agent` are None where the device is not recorded.
    `is_passive`: it does not count as use.
    `is_withheld`: it is a form of another site, and the visitor's cookie stayed at home.
    """

    address: str | None = None
    user_agent: str | None = None
    is_passive: bool = False
    is_withheld: bool = False


ORDINARY = Visit()
"""The visit of nearly every request."""
WITHHELD = Visit(is_withheld=True)
