"""Saving: compare-and-swap, and the three-way merge with what other requests saved first."""

from prism_wsgi.errors import SerializationError, SessionConflict, SessionExists, SessionGone
from prism_wsgi.events import Reason
from prism_wsgi.persistence.document import Document
from prism_wsgi.request.state import GONE, STORED, UNREAD, SessionState
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import StoredSession

MAX_ATTEMPTS = 40


def commit(state: SessionState) -> None:
    """Save what changed, or record activity when that is due; raises as `save` does."""
    if state.phase is GONE:
        if state.written:
            state.report_dropped_write()
    elif state.phase is not UNREAD:
        if state.written or state.lent:
            _save_changes(state)
        if state.phase is STORED and not (state.saved or state.touched) and state.is_touch_due():
            _record_activity(state)
    state.written = False  # what was lent may change while the body is sent


def _save_changes(state: SessionState) -> None:
    """Save the document if it is not what is stored."""
    row = state.row
    if row is None or state.lent or state.client is not state.document.client:
        if state.is_changed():
            save(state)
        return
    data = state.repository.codec.encode(state.document, checked=True)
    if data != row.data:
        save(state, data)


def _record_activity(state: SessionState) -> None:
    assert state.row is not None
    if state.client is not None and _is_client_out_of_date(state):
        save(state)
    elif state.repository.touch(state.row, state.ttl, state.secret):
        state.touched = True
    else:
        state.drop()


def save(state: SessionState, data: bytes | None = None) -> None:
    """Write the document, merging what other requests saved; drop it when the session has ended meanwhile.

    `data`: the document as bytes, where that is known. Raises SerializationError, SessionTooLarge, and
    StoreUnavailable when the store fails or rivals never cease; nothing is saved then.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            write(state, data)
        except SessionGone:
            state.drop()
        except SessionConflict as conflict:
            data = None
            pause(attempt)  # before looking again: what has been read goes stale while we sleep
            try:
                _reconcile(state, conflict)
            except SerializationError as error:
                # Saved by a version of the application that writes what this one cannot read.
                state.repository.events.emit(Reason.UNREADABLE_DATA, state.id, str(error))
                state.drop()
        if state.saved or state.phase is GONE:
            return
    raise state.repository.unavailable(f"session {state.id} changed in all {MAX_ATTEMPTS} attempts to save it")


def write(state: SessionState, data: bytes | None = None) -> None:
    """Try once to store the document as it is. Raises SessionConflict and SessionGone."""
    repository, retired = state.repository, state.retired
    if data is None:
        if retired is not None:
            state.document.lease = 0  # whoever is inside atomic() under the old id will find it retired
        state.document.client = state.client
        data = repository.codec.encode(state.document, checked=not state.lent)
    row = StoredSession(
        state.id,
        data,
        0 if state.row is None else state.row.version,
        state.created_at,
        repository.expiry(state.created_at, state.ttl),
        state.user,
    )
    state.saved = False
    if retired is not None:
        repository.replace(retired, row, state.secret)
    else:
        repository.save(row, state.secret)
    row.version += 1
    state.hold_saved(row)


def catch_up(state: SessionState, theirs: StoredSession) -> None:
    """Carry this request's changes over to what is stored now."""
    codec = state.repository.codec
    base = state.retired or state.row
    # Nothing was loaded when the first write of two raced: both started from nothing.
    before = codec.decode(base.data) if base is not None and base.version else Document()
    after = codec.decode(theirs.data)
    if state.lease and before.lease == state.lease != after.lease:
        raise SessionConflict(
            f"Session {state.id} was changed by another request inside atomic(), because this one stayed there "
            "for too long; nothing was saved. Keep slow work outside atomic()"
        )
    state.document = codec.merge(before, state.document, after)
    if state.retired is not None:
        state.retired = theirs
    else:
        state.row, state.user, state.created_at = theirs, theirs.user, theirs.created_at


def _reconcile(state: SessionState, conflict: SessionConflict) -> None:
    """Make the next attempt possible: merge with what is stored now, or draw another id."""
    contested = state.retired or state.row
    if contested is None and state.token is None:
        state.redraw()  # an id drawn in this request is taken: by chance, or not ours to have
        return
    theirs = state.repository.load(*state.contested())
    if theirs is None and contested is not None and contested.version:
        state.drop()
    elif theirs is None:
        state.leave_blocked_id()
    elif theirs.superseded:
        state.drop()
    elif state.retired is not None and isinstance(conflict, SessionExists) and state.retired.version:
        state.redraw()
    else:
        catch_up(state, theirs)
        state.repository.events.emit(Reason.CONFLICT_MERGED, theirs.id)


def _is_client_out_of_date(state: SessionState) -> bool:
    recorded = state.document.client
    if recorded is None:
        return True
    return state.repository.is_touch_due(int(recorded.last_seen_at.timestamp()), state.ttl)
