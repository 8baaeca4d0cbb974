"""The events of a request: what a save, a logout or a revocation means for sessions and logins."""

from collections.abc import Iterator

from prism_wsgi.events import Ending, Events, Kind, Origin
from prism_wsgi.persistence.login import NOBODY, Login, login_of
from prism_wsgi.request.site import Site
from prism_wsgi.stores.base import StoredSession


def tell_saved(
    events: Events,
    before: StoredSession | None,
    saved: StoredSession,
    *,
    is_login: bool,
    is_confirmation: bool,
    origin: Origin,
) -> None:
    """Tell the observers what changed from `before`, the session that was stored, to `saved`.

    `is_login` and `is_confirmation` say whether the user has proved who they are by a login or by a confirmation.
    """
    if before is None or before.superseded:
        events.tell(Kind.STARTED, session_id=saved.id, user=_owner(login_of(saved)), origin=origin)
        old, moved_from = NOBODY, None
    elif before.id == saved.id:
        # A login changes the id. The user changes without it only where a login library had named them before
        # `user_id_key` was set, and that is no login.
        return
    else:
        old, moved_from = login_of(before), before.id
    new = login_of(saved)
    steps = list(_steps(old, new, is_login=is_login, is_confirmation=is_confirmation))
    if not steps and moved_from is not None:
        steps = [(Kind.ID_CHANGED, new.user, new.actor)]
    for kind, user, actor in steps:
        is_ended = kind is Kind.ENDED
        events.tell(
            kind,
            reason=Ending.REPLACED_USER if is_ended else None,
            session_id=moved_from if is_ended else saved.id,
            previous_id=None if is_ended else moved_from,
            user=user,
            actor=actor,
            origin=origin,
        )


def _steps(
    old: Login, new: Login, *, is_login: bool, is_confirmation: bool
) -> Iterator[tuple[Kind, str | None, str | None]]:
    """Yield the events of a login in order: the kind, the user and the actor of each."""
    stopped = old.actor is not None and (old.user, old.actor) != (new.user, new.actor)
    if stopped:
        yield Kind.LOGGED_OUT, old.user, old.actor
    before, after = _owner(old), _owner(new)
    if before is not None and after is None and not stopped:
        yield Kind.LOGGED_OUT, before, None
    elif before is not None and after not in (None, before):
        yield Kind.ENDED, before, None
    if after is not None and (after != before or is_login):
        yield Kind.LOGGED_IN, after, None
    elif after is not None and is_confirmation:
        yield Kind.CONFIRMED, after, None
    if new.actor is not None and new.actor != old.actor:
        yield Kind.LOGGED_IN, new.user, new.actor


def tell_logout(events: Events, ended: StoredSession, origin: Origin) -> None:
    """Tell that a request has ended its own session."""
    if ended.user is not None:
        events.tell(Kind.LOGGED_OUT, session_id=ended.id, user=ended.user, actor=ended.actor, origin=origin)
    tell_ended(events, ended, Ending.LOGOUT, user=ended.user, actor=ended.actor, origin=origin)


def tell_ended(
    events: Events,
    ended: StoredSession,
    reason: Ending,
    *,
    user: str | None,
    actor: str | None = None,
    origin: Origin | None = None,
) -> None:
    """Tell that a session of a user has ended."""
    events.tell(Kind.ENDED, reason=reason, session_id=ended.id, user=user, actor=actor, origin=origin)


def revoke(site: Site, session_id: str, user: str, origin: Origin) -> bool:
    """End another session of the user; tell whether it was theirs."""
    if not site.events.observers:
        return site.adapter.revoke(session_id, user)
    found = site.adapter.live_behind(session_id)
    is_revoked = site.adapter.revoke(session_id, user)
    if is_revoked and found is not None:
        tell_ended(site.events, found, Ending.REVOKED, user=found.user, actor=found.actor, origin=origin)
    return is_revoked


def end_others(site: Site, user: str, except_id: str, origin: Origin) -> int:
    """End every session of the user but one; return how many.

    Observers are told of those that were alive just before, because expiry is no event.
    """
    found = site.adapter.sessions_of(user) if site.events.observers else []
    ended = site.adapter.destroy_all(user, except_id)
    for one in found:
        if one.id != except_id:
            tell_ended(site.events, one, Ending.REVOKED, user=one.user, actor=one.actor, origin=origin)
    return ended


def _owner(login: Login) -> str | None:
    """Return the person who uses the browser: the actor during impersonation, otherwise the user."""
    return login.user if login.actor is None else login.actor
