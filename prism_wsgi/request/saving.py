"""Saving: compare-and-swap, and the three-way merge with the changes that other requests saved first."""

from contextlib import suppress
from dataclasses import replace

from prism_wsgi.errors import SerializationError, SessionConflict, SessionExists, SessionGone, StoreError
from prism_wsgi.events import Ending, Reason
from prism_wsgi.request.observing import tell_ended, tell_saved
from prism_wsgi.request.phases import GONE, NOTHING, STORED, UNREAD
from prism_wsgi.request.state import SessionState
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import StoredSession

MAX_ATTEMPTS = 40


def commit(state: SessionState) -> None:
    """Save the changes, or record the use of the session when that is due. Raises the errors of `save`."""
    if state.phase is not UNREAD:
        if state.written or state.holds_mutable:
            save_changes(state)
        if state.phase is STORED and state.outcome is NOTHING:
            _record_use(state)
    state.written = False  # a mutable value that the application holds may change while the body is sent


def save_changes(state: SessionState) -> None:
    """Save the session if it differs from what is stored. Raises the errors of `save`."""
    state.follow_user_key()
    if state.phase is GONE:
        if state.written:
            state.drop()
        return
    stored = state.identity.stored
    if stored is None or state.holds_mutable or state.document.login.user != stored.user:
        if state.is_changed():
            save(state)
        return
    data = state.site.codec.encode(state.document, checked=True)
    if data != stored.data:
        save(state, data)


def save(state: SessionState, data: bytes | None = None) -> None:
    """Write the session, merging what other requests saved; drop the changes when it has ended meanwhile.

    `data`: the session's encoded data, if the caller has it. Raises SerializationError, SessionTooLarge, and
    StoreUnavailable when the store fails or other requests win every attempt; nothing is saved then.
    """
    if state.visit.is_withheld and not state.identity.is_shared and not state.is_login:
        state.withhold()
        return
    for attempt in range(MAX_ATTEMPTS):
        try:
            write(state, data)
        except SessionGone:
            state.lose_race(None)
        except SessionConflict as conflict:
            pause(attempt)  # before loading again: loaded data grows stale during a pause
            try:
                _reconcile(state, conflict)
            except SerializationError as error:
                # Another version of the application has saved data that this one cannot read.
                state.site.events.emit(Reason.UNREADABLE_DATA, state.identity.id, str(error), origin=state.visit)
                state.drop()
        else:
            _keep_to_limit(state)
            return
        if state.phase is GONE:
            return
        data = None
    raise state.site.adapter.unavailable(
        f"session {state.identity.id} changed in all {MAX_ATTEMPTS} attempts to save it"
    )


def write(state: SessionState, data: bytes | None = None) -> None:
    """Try once to store the session as it is. Raises SessionConflict and SessionGone."""
    site, identity, document = state.site, state.identity, state.document
    if data is None:
        if state.identity.moved_from is not None:
            document.lock = 0  # a request inside atomic() under the old id will find the session gone
        data = site.codec.encode(document, checked=not state.holds_mutable)
    row = _row(state, data)
    if state.identity.moved_from is not None:
        site.adapter.move(state.identity.moved_from, identity, row, site.now())
    else:
        site.adapter.save(identity, row)
    row.version += 1
    before = state.contested.stored
    state.hold_saved(row)
    if site.events.observers:
        is_proof = state.is_proof_untold
        state.note_told()
        tell_saved(
            site.events,
            before,
            row,
            is_login=is_proof and state.is_login,
            is_confirmation=is_proof,
            origin=state.visit,
        )


def _row(state: SessionState, data: bytes) -> StoredSession:
    document, stored, visit = state.document, state.identity.stored, state.visit
    is_passive = visit.is_passive and stored is not None
    return StoredSession(
        state.identity.id,
        data,
        0 if stored is None else stored.version,
        document.created_at,
        stored.expires_at if is_passive and stored is not None else state.next_expiry(),
        document.login.user,
        False,
        stored.last_seen_at if is_passive and stored is not None else state.site.now(),
        document.login.authenticated_at,
        document.login.auth_method,
        document.login.actor,
        visit.address,
        visit.user_agent,
        document.login.device_key,
    )


def _record_use(state: SessionState) -> None:
    stored, site, visit = state.identity.stored, state.site, state.visit
    assert stored is not None
    if visit.is_passive or not state.is_touch_due():
        return
    expires_at = site.lifetimes.touched(stored.expires_at, state.next_expiry(), state.ttl)
    if expires_at is None:
        # Another request has recorded the use, but this browser's cookie still has to be renewed.
        state.hold_touched(stored)
        return
    row = replace(
        stored,
        expires_at=expires_at,
        last_seen_at=site.now(),
        client_address=visit.address,
        user_agent=visit.user_agent,
    )
    try:
        if site.adapter.touch(state.identity, row):
            state.hold_touched(row)
        else:
            state.miss_touch()
    except StoreError as error:
        state.miss_touch()
        # The failure is logged, and the page is still answered, because this is only bookkeeping. A `touch`
        # that takes other arguments is a mistake in the program.
        if isinstance(error.__cause__, TypeError):
            raise


def _reconcile(state: SessionState, conflict: SessionConflict) -> None:
    """Make the next attempt possible: merge with what is stored now, or draw another id."""
    contested = state.contested
    if not contested.is_shared:
        state.draw_another_id()  # the store holds something under the id that this request drew
        return
    theirs = state.site.adapter.load(contested)
    if theirs is None and contested.stored is not None:
        state.lose_race(None)
    elif theirs is None:
        state.leave_blocked_id()
    elif theirs.superseded:
        state.lose_race(theirs)
    elif contested is not state.identity and isinstance(conflict, SessionExists) and contested.stored is not None:
        state.draw_another_id()
    else:
        state.join(theirs)
        state.site.events.emit(Reason.CONFLICT_MERGED, theirs.id)


def _keep_to_limit(state: SessionState) -> None:
    """End the user's oldest logins beyond `max_sessions_per_user`, after a login."""
    limit, login = state.site.max_sessions_per_user, state.document.login
    if limit is None or login.user is None or not state.is_login:
        return
    # The login is stored already. A failure is logged, and the next login enforces the limit.
    with suppress(StoreError):
        sessions = [one for one in state.site.adapter.sessions_of(login.user) if one.actor is None]
        sessions.sort(key=lambda one: (one.authenticated_at or one.created_at, one.id))
        for one in sessions[: max(0, len(sessions) - limit)]:
            state.site.adapter.end(one.id)
            tell_ended(state.site.events, one, Ending.LIMIT, user=login.user, origin=state.visit)
