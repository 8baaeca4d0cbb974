"""What is worth a line in the log: reason-coded, rate-limited, and free of secrets, cookies and data."""

import logging
import time
from enum import StrEnum

logger = logging.getLogger("prism_wsgi")

WINDOW = 10.0  # seconds
LINES_PER_WINDOW = 20  # for each reason: an attacker must not be able to fill the disk


class Reason(StrEnum):
    """Why an event happened: the code to search and alert on."""

    FORGED = "forged"
    EXPIRED = "expired"
    UNKNOWN_ID = "unknown_id"
    SUPERSEDED_ID = "superseded_id"
    DUPLICATE_COOKIE = "duplicate_cookie"
    UNREADABLE_DATA = "unreadable_data"
    LATE_WRITE_DROPPED = "late_write_dropped"
    CONFLICT_MERGED = "conflict_merged"
    STORE_FAILED = "store_failed"
    WRITE_WITHHELD = "write_withheld"
    PUBLIC_CACHE_OVERRIDDEN = "public_cache_overridden"


_EVENTS = {
    Reason.FORGED: (logging.WARNING, "a session cookie without a valid signature was ignored"),
    Reason.EXPIRED: (logging.INFO, "a session cookie past its lifetime was ignored"),
    Reason.UNKNOWN_ID: (logging.INFO, "a signed cookie named a session that is not stored (any more)"),
    Reason.SUPERSEDED_ID: (logging.INFO, "a request came with an id that regenerate() had just retired"),
    Reason.DUPLICATE_COOKIE: (
        logging.WARNING,
        "several session cookies contradict each other; none was used",
    ),
    Reason.UNREADABLE_DATA: (
        logging.ERROR,
        "stored session data cannot be read; the session counts as absent",
    ),
    Reason.LATE_WRITE_DROPPED: (logging.WARNING, "changes were dropped: the session has ended meanwhile"),
    Reason.CONFLICT_MERGED: (logging.DEBUG, "another request saved the session first; changes were merged"),
    Reason.STORE_FAILED: (logging.ERROR, "the session store failed"),
    Reason.WRITE_WITHHELD: (
        logging.WARNING,
        "a form from another site wrote to a new session, which was not kept: the visitor's cookie stayed at home, "
        "and a new one would take its place. Call login() or set user_id_key where such a request logs somebody in; "
        'set samesite="none" where forms of other sites are to begin a session',
    ),
    Reason.PUBLIC_CACHE_OVERRIDDEN: (
        logging.WARNING,
        "a publicly cacheable response used the session; it was made private",
    ),
}


class EventLog:
    """Writes events to the `prism_wsgi` logger, at most LINES_PER_WINDOW a reason in WINDOW seconds.

    Each log record carries `reason` and `session_id` as attributes, and `suppressed`: how many events of that
    reason went unwritten before it.
    """

    def __init__(self) -> None:
        # Without a lock: two threads at once may write a line too many, and no lock has to survive a fork.
        self._windows: dict[Reason, tuple[float, int]] = {}
        self._said: set[str] = set()

    def warn_once(self, sentence: str) -> None:
        """Log a warning of something that goes wrong without an error: the first time only."""
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning("%s", sentence)

    def emit(self, reason: Reason, session_id: str | None = None, detail: str = "") -> None:
        """Log one event. `detail` may come from a driver: control characters in it are blanked."""
        level, sentence = _EVENTS[reason]
        if not logger.isEnabledFor(level):
            return
        suppressed = self._admit(reason)
        if suppressed is None:
            return
        text = f"{reason}: {sentence}"
        if session_id is not None:
            text += f" [session {session_id}]"
        if detail:
            text += f": {_printable(detail)}"
        if suppressed:
            text += f" ({suppressed} more of these were not logged)"
        logger.log(
            level,
            "%s",
            text,
            extra={"reason": reason.value, "session_id": session_id, "suppressed": suppressed},
        )

    def _admit(self, reason: Reason) -> int | None:
        """Return how many events were suppressed before this one, or None to suppress this one too."""
        now = time.monotonic()
        start, count = self._windows.get(reason, (now, 0))
        suppressed = 0
        if now - start >= WINDOW:
            suppressed = max(0, count - LINES_PER_WINDOW)
            start, count = now, 0
        self._windows[reason] = (start, count + 1)
        return suppressed if count < LINES_PER_WINDOW else None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
