"""The state of one session during one request, and every transition of it."""

from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from prism_wsgi.errors import SerializationError, SessionConflict, StoreUnavailable
from prism_wsgi.events import Reason
from prism_wsgi.persistence.document import Document
from prism_wsgi.persistence.identity import Identity, drawn_identity, identity_of
from prism_wsgi.persistence.login import KNOWN_USER_KEYS, NOBODY, Login, is_user, named_user, unseen_user_key
from prism_wsgi.request.adoption import adopt
from prism_wsgi.request.observing import tell_logout
from prism_wsgi.request.peer_fallbacks import Earlier
from prism_wsgi.request.phases import (
    DETACHED,
    GONE,
    LOAD_FAILED,
    NEW,
    NOTHING,
    OPEN,
    ORDINARY,
    SAVED,
    STORED,
    STREAMING,
    TOUCHED,
    UNREAD,
    Choice,
    Outcome,
    Phase,
    Visit,
)
from prism_wsgi.request.site import Site
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import Token, issued_at

MAX_SUCCESSORS = 8
"""The largest number of markers that are followed, from id to id, to the session that took one's place."""

_NOTHING_DECIDED: frozenset[str | Choice] = frozenset()


class Snapshot(NamedTuple):
    """The identity and the content of a session at one moment."""

    phase: Phase
    identity: Identity
    data: bytes
    created_at: int
    login: Login
    decided: frozenset[str | Choice]


class SessionState:
    """One request's view of its session, kept in step with the store.

    Only its methods change it, except for the session's values, which an application may hold.
    """

    __slots__ = (
        "accessed",
        "decided",
        "document",
        "earlier",
        "endings",
        "holds_mutable",
        "identity",
        "is_new",
        "lock",
        "outcome",
        "phase",
        "site",
        "stage",
        "visit",
        "written",
    )

    document: Document
    """The values and properties that the request works on; set once the session has been read."""

    def __init__(
        self, site: Site, token: Token | None, visit: Visit = ORDINARY, earlier: Earlier | None = None
    ) -> None:
        self.site = site
        self.visit = visit
        self.earlier = earlier
        """The session that another package's cookie leads to, until it is read."""
        self.stage = OPEN
        self.outcome = NOTHING
        self.accessed = False
        """Whether the application has looked at the session."""
        self.written = False
        """Whether the application has changed something since the last save."""
        self.holds_mutable = False
        """Whether the application holds a mutable value (a list, say), which may change without an assignment."""
        self.decided: frozenset[str | Choice] = _NOTHING_DECIDED
        """The keys and choices that this request has assigned, as opposed to what was loaded."""
        self.lock = 0
        """The number of the lock that this request holds inside `atomic()`, 0 outside."""
        self.endings = 0
        """How often this request has ended its session."""
        self.is_new = False
        if earlier is not None:
            self.phase, self.identity = UNREAD, drawn_identity(site.now())
        elif token is None:
            self._begin()
        else:
            self.phase = UNREAD
            self.identity = identity_of(token)

    def __repr__(self) -> str:
        return f"<SessionState {self.identity.id} {self.phase.name} {self.outcome.name}>"

    # Questions

    @property
    def ttl(self) -> int:
        """The idle lifetime in seconds."""
        return self.document.ttl or self.site.lifetimes.ttl

    @property
    def persistent(self) -> bool:
        """Whether the cookie outlives the browser's session."""
        chosen = self.document.persistent
        return self.site.persistent if chosen is None else chosen

    @property
    def expires_at(self) -> int:
        """When the session ends unless it is used again, in Unix ms."""
        stored = self.identity.stored
        return self.next_expiry() if stored is None else stored.expires_at

    @property
    def contested(self) -> Identity:
        """The identity under which other requests may have saved this session."""
        return self.identity.moved_from or self.identity

    @property
    def is_unshared(self) -> bool:
        """Whether no other request can reach what this one will save."""
        return self.phase is GONE or self.identity.moved_from is not None or not self.identity.is_shared

    @property
    def is_login(self) -> bool:
        """Whether this request has logged somebody in."""
        return Choice.LOGIN in self.decided and Choice.PROOF in self.decided

    @property
    def is_logout(self) -> bool:
        """Whether this request has logged somebody out, whatever it has written since."""
        return self.endings > 0 or Choice.LOGOUT in self.decided

    @property
    def is_proof_untold(self) -> bool:
        """Whether this request has proved who the user is, and the observers have not been told."""
        return Choice.PROOF in self.decided and Choice.TOLD not in self.decided

    def next_expiry(self) -> int:
        """Return when the session ends if it is used now and never again, in Unix ms."""
        document = self.document
        return self.site.lifetimes.expiry(self.site.now(), document.began, self.ttl, document.max_lifetime)

    def is_changed(self) -> bool:
        """Tell whether the session differs from what is stored."""
        if not (self.written or self.holds_mutable):
            return False
        stored = self.identity.stored
        if stored is None or self.phase is GONE:
            moved = self.contested is not self.identity and self.contested.stored is not None
            return moved or self.document.login.user is not None or not self.document.is_blank()
        return self.document.login.user != stored.user or not self.site.codec.is_unchanged(self.document, stored.data)

    def is_touch_due(self) -> bool:
        """Tell whether the cookie was last renewed a touch interval ago."""
        token = self.identity.token
        return token is not None and self.site.lifetimes.is_touch_due(self.site.now(), token.refreshed, self.ttl)

    def token_due(self) -> Token | None:
        """Return the token that the browser needs after a save or a touch, None if it has that token already."""
        if self.outcome is not SAVED and self.outcome is not TOUCHED:
            return None
        token, document = self.identity.token, self.document
        if (
            self.outcome is TOUCHED
            or token is None
            or token.outdated_key
            or token.ttl != document.ttl
            or token.persistent != document.persistent
            or (self.is_touch_due() and not self.visit.is_passive)
        ):
            return self._fresh_token()
        return None

    # Changes by the application

    def note_write(self, name: str | Choice | None = None) -> None:
        """Note that the application has changed something: the value of a key, or a choice."""
        self.written = True
        if name is not None:
            self.decided |= {name}

    def decide_login(self) -> None:
        """Note that the application has decided who is logged in, so that `user_id_key` is not looked at."""
        self.decided |= {Choice.LOGIN}

    def be_passive(self, is_passive: bool) -> None:
        """Note whether this request counts as use of the session."""
        self.visit = self.visit._replace(is_passive=is_passive)

    def note_device(self, address: str, user_agent: str) -> None:
        """Note which device makes this request."""
        self.visit = self.visit._replace(address=address, user_agent=user_agent)

    def note_path(self, script_name: str, path_info: str) -> None:
        """Note which path is requested, in the parts that WSGI has, for those who observe."""
        self.visit = self.visit._replace(requested=(script_name, path_info))

    def load(self) -> None:
        """Load the session that the cookie names."""
        if self.earlier is not None:
            self._take_over()
            if self.phase is not UNREAD:
                return
        identity, site = self.identity, self.site
        assert identity.token is not None
        try:
            stored = site.adapter.load(identity)
            document = Document() if stored is None or stored.superseded else site.codec.decode(stored)
        except SerializationError as error:
            self._give_up_on_data(error)
            return
        except StoreUnavailable:
            self.outcome = LOAD_FAILED
            raise
        if self.outcome is LOAD_FAILED:
            self.outcome = NOTHING
        # A store may lack a clock, and max_lifetime may have been lowered since the session was saved.
        if stored is not None and self._is_over(stored, document):
            stored = None
        if stored is None and identity.token.refreshed == 0:
            # We issued this id and have stored nothing under it, so this request may.
            self.phase, self.is_new = NEW, True
            self.document = Document(created_at=issued_at(identity.secret))
        elif stored is None:
            site.events.emit(Reason.UNKNOWN_ID, identity.id, origin=self.visit)
            self.start_over()
        elif stored.superseded:
            site.events.emit(Reason.SUPERSEDED_ID, identity.id, origin=self.visit)
            self.phase, self.document = GONE, Document(created_at=stored.created_at)
            identity.stored = stored
        else:
            self.phase, self.document = STORED, document
            identity.stored = stored

    def regenerate(self) -> None:
        """Move to a new id with a new CSRF token."""
        self._move()
        self._drop_csrf_tokens()
        self.written = True

    def log_in(self, login: Login) -> None:
        """Move to a new id, with somebody logged in.

        Another user's data stays behind; see `Session.login`.
        """
        self.decided = (self.decided | {Choice.LOGIN, Choice.PROOF}) - {Choice.TOLD}
        if self.phase is GONE:
            self._begin_again(login)
        elif self.document.login.user not in (None, login.user):
            self._keep_only_what_was_assigned()
        self._forget_loaded_choices()
        self._move()
        self._drop_csrf_tokens()
        self.document.login = login
        self.written = True

    def log_in_empty(self, login: Login) -> None:
        """Move to a new id, with somebody else logged in and nothing kept but the absolute lifetime."""
        self.decided |= {Choice.LOGIN}
        self.document = Document(
            max_lifetime=self.document.max_lifetime, created_at=self.document.created_at, login=login
        )
        self._move()
        self.written, self.holds_mutable = True, False

    def confirm_login(self, login: Login) -> None:
        """Move to a new id, because the user has proved again who they are."""
        self.decided = (self.decided | {Choice.PROOF}) - {Choice.TOLD}
        self._move()
        self.document.login = login
        self.written = True

    def forget_user(self) -> None:
        """Move to a new id, with nobody logged in; the other data stays."""
        self.decided |= {Choice.LOGOUT}
        self._move()
        self._drop_csrf_tokens()
        self.document.login = NOBODY
        self.written = True

    def follow_user_key(self) -> None:
        """Log the user in or out if a login library has written so under `user_id_key`."""
        key = self.site.user_id_key
        if Choice.LOGIN in self.decided or self.phase is UNREAD:
            return
        if key is None:
            self._warn_of_unseen_login()
            return
        user = named_user(self.document.values.get(key))
        login = self.document.login
        if key not in self.decided:
            if user is not None and login.user is None and self.phase is STORED:
                self.document.login = Login(user)  # logged in before user_id_key was set
            return
        base = self.contested.stored
        before = None
        if base is not None and not base.superseded:
            before = named_user(self.site.codec.decode(base).values.get(key))
        if user == before:
            if user is not None and login.user is None and self.phase is STORED:
                self.document.login = Login(user)
            return
        if user is None:
            self.forget_user()
        else:
            self.log_in(Login(user, self.site.now()))

    def destroy(self) -> None:
        """Delete what is stored, at once, and start over."""
        try:
            if self.phase is UNREAD:
                self.load()
            ending = self._observed_endings()
            self._end_stored()
        except BaseException:
            self.outcome = Outcome.DESTROY_FAILED
            raise
        if self.phase is GONE:
            # The browser has, or is about to get, a newer cookie, which this response must not delete.
            self.outcome = NOTHING
            self.document = Document(created_at=self.document.created_at)
        else:
            self.start_over()
            self.outcome = Outcome.DESTROYED
        self.written = self.holds_mutable = False
        self.decided = _NOTHING_DECIDED
        self.endings += 1
        for row in ending:
            tell_logout(self.site.events, row, self.visit)

    def start_over(self) -> None:
        """Become a new, empty session under a new id."""
        self.lock = 0
        self._begin()

    def roll_back(self) -> None:
        """Forget every change that has not been saved, a new id included."""
        if not (self.written or self.holds_mutable):
            return
        self.written = self.holds_mutable = False
        self.decided = _NOTHING_DECIDED
        self.identity = self.contested
        stored = self.identity.stored
        if stored is not None and self.phase is not GONE:
            self.phase, self.document = STORED, self.site.codec.decode(stored)
        else:
            self.document = Document(created_at=self.document.created_at)

    def forget_changes(self) -> None:
        """Keep the values for this request, but save none of what has changed so far."""
        self.written = self.holds_mutable = False

    def ignore(self) -> None:
        """Save nothing of this request, and send no cookie; a session that has been ended stays ended."""
        self.forget_changes()
        self.be_passive(True)
        if self.outcome is Outcome.NOTHING:
            self.outcome = Outcome.WITHHELD

    def look_again(self) -> None:
        """Read the session afresh at the next access, because its response is over."""
        identity = self.identity
        if self.phase is not STORED or not identity.is_sent or identity.moved_from is not None:
            return
        if identity.token is None:
            identity.token = Token(
                identity.secret, self.site.now() // 1000, self.document.ttl, self.document.persistent
            )
        identity.stored = None
        self.phase, self.outcome = UNREAD, NOTHING
        self.written = self.holds_mutable = False

    # The response

    def send_headers(self) -> None:
        """Note that the response's headers are out."""
        self.stage = STREAMING

    def detach(self) -> None:
        """Note that the response is over, or that its end will not be seen."""
        self.stage = DETACHED

    def note_cookie(self) -> None:
        """Note that the response carries the cookie of this id."""
        self.identity.is_sent = True

    # Results of saving

    def hold_saved(self, row: StoredSession) -> None:
        """Learn that the store has taken the session, as `row`."""
        self.identity.stored, self.identity.moved_from = row, None
        self.outcome, self.phase = SAVED, STORED

    def note_told(self) -> None:
        """Note that the observers know how the user has proved who they are."""
        self.decided |= {Choice.TOLD}

    def hold_touched(self, row: StoredSession) -> None:
        """Learn that the store has recorded the use of the session, as `row`."""
        self.identity.stored, self.outcome = row, TOUCHED

    def miss_touch(self) -> None:
        """Learn that the use of the session could not be recorded, and do not try again."""
        self.outcome = Outcome.UNRECORDED

    def drop(self) -> None:
        """Learn that another request has ended the session, and drop the changes."""
        if self.outcome is not Outcome.DROPPED:
            self.site.events.emit(Reason.LATE_WRITE_DROPPED, self.contested.id, origin=self.visit)
            self.outcome = Outcome.DROPPED
        self.phase = GONE

    def withhold(self) -> None:
        """Keep this request's changes from being stored."""
        if self.outcome is not Outcome.WITHHELD:
            self.site.events.emit(Reason.WRITE_WITHHELD, origin=self.visit)
            self.outcome = Outcome.WITHHELD

    def lose_race(self, found: StoredSession | None) -> None:
        """Learn at a save that the session was moved (`found` is the marker) or ended by another request.

        A login continues in a new session; other changes are dropped.
        """
        login = self.document.login
        if not self.is_login:
            self.drop()
            return
        self.contested.stored = found
        self._begin_again(login)
        self.document.login = login

    def join(self, theirs: StoredSession) -> None:
        """Merge this request's changes with what is stored now.

        Raises SerializationError for unreadable data, and SessionConflict when another request has taken the lock of
        `atomic()`.
        """
        codec, contested = self.site.codec, self.contested
        base = contested.stored
        # Two requests may race for the session's first write; neither has loaded anything then.
        before = codec.decode(base) if base is not None else Document()
        after = codec.decode(theirs)
        if self.lock and before.lock == self.lock != after.lock:
            raise SessionConflict(
                f"Session {contested.id} was changed by another request inside atomic(), because this one stayed "
                "there for too long; nothing was saved. Keep slow work outside atomic()"
            )
        contested.stored = theirs
        if before.login.user is None or self.document.login.user in (None, before.login.user):
            self.document = codec.merge(before, self.document, after)

    def draw_another_id(self) -> None:
        """Take another new id, because the one that this request drew is taken."""
        self.identity = drawn_identity(self.site.now(), self.identity.instead_of, self.identity.moved_from)

    def leave_blocked_id(self) -> None:
        """Take a new id, because an expired marker blocks the cookie's id."""
        self.identity.moved_from = None
        self.draw_another_id()

    # Inside atomic()

    def snapshot(self) -> Snapshot:
        """Return what `restore` goes back to. Raises SerializationError for values that cannot be stored."""
        document = self.document
        return Snapshot(
            self.phase,
            replace(self.identity),
            self.site.codec.encode(document),
            document.created_at,
            document.login,
            self.decided,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a snapshot."""
        self.identity = snapshot.identity
        if self.phase is not GONE:
            self.phase = snapshot.phase
        document = self.document = self.site.codec.read(snapshot.data)
        document.created_at, document.login = snapshot.created_at, snapshot.login
        self.decided = snapshot.decided

    def lock_as(self, number: int) -> None:
        """Note the number of the lock that this request holds inside `atomic()`; 0 means outside."""
        self.lock = number

    def empty(self) -> None:
        """Empty the session, because the one that the block of `atomic()` worked on has ended."""
        self.document = Document(created_at=self.document.created_at)

    # Helpers

    def _fresh_token(self) -> Token:
        now = self.site.now() // 1000
        return Token(self.identity.secret, now, self.document.ttl, self.document.persistent)

    def _take_over(self) -> None:
        """Become the session that another package's cookie leads to, or a new one."""
        earlier = self.earlier
        assert earlier is not None
        try:
            token = None if earlier.values is not None else adopt(self.site, earlier)
        except StoreUnavailable:
            self.outcome = LOAD_FAILED
            raise
        self.earlier = None
        if token is not None:
            self.identity = replace(identity_of(token), is_sent=False)
            return
        self._begin()
        for key, value in (earlier.values or {}).items():
            with suppress(SerializationError):
                self.document.values[key] = self.site.codec.check(key, value)
                self.written = True
        user = named_user(self.document.values.get(self.site.user_id_key or ""))
        if user is not None and is_user(user):
            self.document.login = Login(user)  # with no time: nobody knows when the user logged in

    def _begin(self) -> None:
        now = self.site.now()
        self.document = Document(created_at=now)
        self.phase, self.is_new = NEW, True
        self.identity = drawn_identity(now)

    def _is_over(self, stored: StoredSession, document: Document) -> bool:
        began = stored.created_at if stored.superseded else document.began
        return self.site.lifetimes.capped(stored.expires_at, began, document.max_lifetime) <= self.site.now()

    def _give_up_on_data(self, error: SerializationError) -> None:
        unreadable = self.identity.id
        self.site.events.emit(Reason.UNREADABLE_DATA, unreadable, str(error), origin=self.visit)
        self.start_over()
        self.identity.instead_of = unreadable

    def _move(self) -> None:
        """Take a new id; the next save leaves a marker under the old one."""
        old = self.identity
        if old.moved_from is None and old.is_shared and self.phase is not GONE:
            self.identity = drawn_identity(self.site.now(), old.instead_of, moved_from=old)
        else:
            self.draw_another_id()
        if self.phase is STORED:
            self.phase = NEW

    def _warn_of_unseen_login(self) -> None:
        if self.document.login.user is not None or self.decided.isdisjoint(KNOWN_USER_KEYS):
            return
        key = unseen_user_key(self.document.values)
        if key in self.decided:
            self.site.events.warn_once(
                f"session[{key!r}] names a user, but nobody is logged in to the session. It keeps its id, a cookie "
                "from before the login opens it, and the user's sessions cannot be listed or ended. Call "
                f"session.login(), or set user_id_key={key!r}"
            )

    def _drop_csrf_tokens(self) -> None:
        for key in self.site.csrf_keys:
            self.document.values.pop(key, None)

    def _keep_only_what_was_assigned(self) -> None:
        values = self.document.values
        self.document.values = {key: values[key] for key in values if key in self.decided}
        self.document.created_at = self.site.now()

    def _forget_loaded_choices(self) -> None:
        document = self.document
        if Choice.TTL not in self.decided:
            document.ttl = None
        if Choice.PERSISTENT not in self.decided:
            document.persistent = None
        if Choice.MAX_LIFETIME not in self.decided:
            document.max_lifetime = None

    def _begin_again(self, login: Login) -> None:
        """Begin a session for a login whose session another request has moved or ended.

        After a double click or a retry, the same user is logged in to the session that took its place. Then the new
        session copies that one's data, and both stay, so that the browser is logged in whichever response it keeps.
        """
        marker, mine = self.contested.stored, self.document
        self._keep_only_what_was_assigned()
        self.start_over()
        self.document.values = {**self._values_of_successor(marker, login), **mine.values}
        self.document.ttl, self.document.persistent = mine.ttl, mine.persistent
        self.document.max_lifetime = mine.max_lifetime

    def _values_of_successor(self, marker: StoredSession | None, login: Login) -> dict[str, object]:
        for _ in range(MAX_SUCCESSORS):
            if marker is None or marker.moved_to is None:
                return {}
            try:
                following = self.site.adapter.peek(marker.moved_to)
            except SerializationError:
                return {}  # only a request with that session's cookie can read it
            if following is not None and not following.superseded:
                return self.site.codec.decode(following).values if following.user == login.user else {}
            marker = following
        return {}

    def _observed_endings(self) -> list[StoredSession]:
        """Return the stored sessions that `destroy` is about to end, if there are observers."""
        if not self.site.events.observers:
            return []
        if self.phase is GONE:
            live = self.site.adapter.live_behind(self.contested.id)
        elif self.identity.instead_of is not None:
            live = self.site.adapter.live_behind(self.identity.instead_of)
        else:
            live = self.contested.stored
        return [] if live is None else [live]

    def _end_stored(self) -> None:
        contested, adapter = self.contested, self.site.adapter
        if self.identity.instead_of is not None:
            adapter.end(self.identity.instead_of)
        if contested.is_shared:
            adapter.end(contested.id)
