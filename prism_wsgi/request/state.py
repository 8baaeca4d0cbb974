"""SessionState: one session during one request, and what of it is stored."""

from enum import Enum, auto

from prism_wsgi.errors import SerializationError
from prism_wsgi.events import Reason
from prism_wsgi.persistence.adapter import Repository
from prism_wsgi.persistence.client import Client
from prism_wsgi.persistence.document import Document
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import Token, issued_at, new_secret, session_id


class Phase(Enum):
    """What is known of the session in the store."""

    UNREAD = auto()
    """The cookie names it; the store has not been asked."""
    NEW = auto()
    """Nothing is stored under the id."""
    STORED = auto()
    """Loaded or saved: `row` is what the store holds, as far as we know."""
    GONE = auto()
    """Ended by another request while this one was under way: reads empty, writes go nowhere, no cookie."""


class Stage(Enum):
    """How far the response is, which decides when changes are saved."""

    OPEN = auto()
    """Not started: changes are saved before it starts."""
    STREAMING = auto()
    """The headers are out: changes are saved when the server closes the response."""
    DETACHED = auto()
    """The server has the application's own body, so that nobody will close the response: at once."""


# Each request asks many times, and on Python 3.11 a member read from its Enum costs 60 ns.
UNREAD, NEW, STORED, GONE = Phase
OPEN, STREAMING, DETACHED = Stage


class SessionState:
    """What is known of a request's session, kept in step with the store."""

    document: Document
    """What the request works on; there once the session has been read."""
    created_at: int
    row: StoredSession | None = None
    retired: StoredSession | None = None
    """What `regenerate()` will put a marker in place of, at the next save."""
    user: str | None = None
    is_new = False
    saved = False
    """Whether this request has written the session."""
    touched = False
    """Whether this request has recorded activity."""
    destroyed = False
    """Whether the application ended the session, and nothing was saved since."""
    failed = False
    """Whether the store failed at the last attempt to load or destroy."""
    destroy_failed = False
    """Whether a session that the application ended may still be there."""
    reachable = False
    """Whether the browser holds, or is being sent, the cookie of this id."""
    client: Client | None = None
    """Who makes this request, where that is to be recorded."""
    stage = OPEN
    accessed = False
    """Whether the application has looked at the session."""
    written = False
    """Whether the application has changed something since the last commit."""
    lent = False
    """Whether the application has a value that it can change without telling."""
    lease = 0
    """The number under which this request is inside `atomic()`, 0 outside."""
    _dropped = False
    _unreadable_id: str | None = None
    _origin: tuple[str, Token | None, StoredSession | None] | None = None

    def __init__(self, repository: Repository, token: Token | None) -> None:
        self.repository = repository
        self.token = token
        """The verified cookie this session came with; None once the session has an id of its own."""
        if token is None:
            self._begin()
        else:
            self.phase = UNREAD
            self.reachable = True
            self.take_identity(token.secret)

    @property
    def ttl(self) -> int:
        """The idle lifetime in seconds."""
        return self.document.ttl or self.repository.ttl

    @property
    def persistent(self) -> bool:
        """Whether the cookie outlives the browser's session."""
        chosen = self.document.persistent
        return self.repository.persistent if chosen is None else chosen

    @property
    def expires_at(self) -> int:
        """When the session ends without more activity, in Unix ms."""
        if self.row is not None:
            return self.row.expires_at
        return self.repository.expiry(self.created_at, self.ttl)

    def load(self) -> None:
        """Ask the store, once, what the cookie's session holds."""
        assert self.token is not None
        self.failed = True
        try:
            row = self.repository.load(self.id, self.secret)
        except SerializationError as error:
            self.failed = False
            self._give_up_on_data(error)
            return
        self.failed = False
        if row is None and self.token.refreshed == 0:
            # Issued by us and never stored: the one id that may be written under without being held.
            self.phase, self.is_new = NEW, True
            self.document, self.created_at = Document(), issued_at(self.secret)
        elif row is None:
            self.repository.events.emit(Reason.UNKNOWN_ID, self.id)
            self.start_over()
        elif row.superseded:
            self.repository.events.emit(Reason.SUPERSEDED_ID, self.id)
            self.phase, self.document, self.created_at = GONE, Document(), row.created_at
        else:
            try:
                self._hold(row)
            except SerializationError as error:
                self._give_up_on_data(error)

    def start_over(self) -> None:
        """Become a new, empty session under a new id."""
        self.token = self.row = self.retired = self.user = None
        self.saved = self.reachable = False
        self.lease = 0
        self._begin()

    def _begin(self) -> None:
        self.document = Document()
        self.phase, self.is_new = NEW, True
        self.created_at = self.repository.now()
        self.take_identity(new_secret(self.created_at))

    def is_changed(self) -> bool:
        """Tell whether the document differs from what is stored."""
        if not (self.written or self.lent):
            return False
        if self.row is None:
            stored_before = self.retired is not None and self.retired.version > 0
            return stored_before or self.user is not None or not self.document.is_blank()
        return not self.repository.codec.is_unchanged(self.document, self.row.data)

    def fresh_token(self) -> Token:
        """Return what the cookie of a session saved or touched just now says."""
        now = self.repository.now() // 1000
        return Token(self.secret, now, self.document.ttl, self.document.persistent)

    def is_cookie_stale(self) -> bool:
        """Tell whether what was saved or touched has to be told to the browser."""
        return (
            self.touched
            or self.token is None
            or self.token.ttl != self.document.ttl
            or self.token.persistent != self.document.persistent
            or self.is_touch_due()
        )

    def is_touch_due(self) -> bool:
        """Tell whether the cookie was last renewed a touch interval ago."""
        return self.token is not None and self.repository.is_touch_due(self.token.refreshed, self.ttl)

    def report_dropped_write(self) -> None:
        """Log, once, that this request's changes went nowhere."""
        if not self._dropped:
            ended = self.retired or self.row
            self.repository.events.emit(Reason.LATE_WRITE_DROPPED, self.id if ended is None else ended.id)
            self._dropped = True

    def regenerate(self) -> None:
        """Move to a new id; the old one is retired when the session is saved."""
        now = self.repository.now()
        if self.retired is None:
            self._origin = (self.secret, self.token, self.row)
            if self.row is not None:
                self.retired = self.row
            elif self.token is not None:
                # Nothing stored yet, but another request may be about to store under the same cookie.
                self.retired = StoredSession(self.id, b"", 0, self.created_at, now)
        self.token = self.row = None
        self.redraw()

    def destroy(self) -> None:
        """Delete what is stored, at once, and start over."""
        self.destroy_failed = True
        may_have_moved = self.phase is not UNREAD and not self.repository.is_move_followed
        if self.phase is UNREAD:
            self.load()
        self.failed = True
        if self.phase is GONE or (may_have_moved and (self.retired or self.row)):
            self.repository.destroy_successor((self.retired or self.row or self).id)
        if self.phase is GONE:
            # The browser holds, or is about to get, a newer cookie: this answer must not delete it.
            self.failed = self.destroy_failed = False
            return
        if self._unreadable_id is not None:
            self.repository.destroy(self._unreadable_id)
        if self.retired is not None:
            self.repository.destroy(self.retired.id)
        elif self.row is not None or self.token is not None:
            self.repository.destroy(self.id)
        self.failed = self.destroy_failed = False
        self.start_over()
        self.destroyed = True

    def roll_back(self) -> None:
        """Forget every change that has not been saved, a new id included."""
        if not (self.written or self.lent):
            return
        self.written = self.lent = False
        if self.retired is not None and self._origin is not None:
            secret, self.token, self.row = self._origin
            self.take_identity(secret)
            self.retired = None
        if self.row is not None and self.phase is not GONE:
            self._hold(self.row)
        else:
            self.document, self.user = Document(), None

    def contested(self) -> tuple[str, str]:
        """Return the id under which other requests may have saved this session, and its secret."""
        if self.retired is not None and self._origin is not None:
            return self.retired.id, self._origin[0]
        return self.id, self.secret

    def is_unshared(self) -> bool:
        """Tell whether no other request can reach what this one will save."""
        return self.phase is GONE or self.retired is not None or (self.row is None and self.token is None)

    def leave_blocked_id(self) -> None:
        """Take a new id where an expired marker blocks the one of the cookie: nothing will be stored there."""
        self.token = self.retired = None
        self.redraw()

    def redraw(self) -> None:
        """Take a new id; the session is as old as it was."""
        self.take_identity(new_secret(self.repository.now()))

    def hold_saved(self, row: StoredSession) -> None:
        """Learn that the store has taken the document, as `row`."""
        self.row, self.retired = row, None
        self.saved, self.destroyed, self.phase = True, False, STORED

    def drop(self) -> None:
        """Learn that the session has ended elsewhere."""
        self.report_dropped_write()
        self.phase = GONE

    def _hold(self, row: StoredSession) -> None:
        self.document = self.repository.codec.decode(row.data)
        self.row, self.user, self.created_at = row, row.user, row.created_at
        self.phase = STORED

    def _give_up_on_data(self, error: SerializationError) -> None:
        self.repository.events.emit(Reason.UNREADABLE_DATA, self.id, str(error))
        self._unreadable_id = self.id
        self.start_over()

    def take_identity(self, secret: str) -> None:
        """Be the session that `secret` opens."""
        self.secret = secret
        self.id = session_id(secret)
