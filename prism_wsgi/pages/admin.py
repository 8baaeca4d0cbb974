"""The page for administrators: the number of sessions, their users, and ending them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import ConfigError, StoreError
from prism_wsgi.http import Request
from prism_wsgi.pages.answers import Refused, form_of, redirect, refuse, send
from prism_wsgi.pages.health import check
from prism_wsgi.pages.overview import (
    EVENTS_AT_MOST,
    SESSION_ID,
    Listed,
    destroy_many,
    listed,
    overview,
    report_ended,
)
from prism_wsgi.pages.rendering import Rendering, send_file
from prism_wsgi.pages.texts import Text
from prism_wsgi.session import Session
from prism_wsgi.stores.base import IndexedStore, SessionStore
from prism_wsgi.stores.urls import open_store

PAGE = 50
ENDED_AT_ONCE = 5000
"""The largest number of sessions that one request ends, so that it does not take minutes."""

_SAID = "prism_wsgi.pages.admin"  # the queue of flash messages


class AdminPage:
    """A page for administrators: how many sessions there are, whose, the sweeper, the store; a WSGI application.

    Mount it inside SessionMiddleware, under any path. `store` is the store of the sessions, or its URL. `allow` takes
    the WSGI environ and tells whether this visitor may see the page; everybody else gets 404.
    `texts`, `lang`, `templates` and `clock` are those of DevicesPage.

    Administrators search by user or id, and end one session, a user's sessions, or all but their own. Each page makes
    a bounded number of store calls. Numbers that a store cannot give cheaply are left out, and the page says so.
    Observers receive an event for each session that was ended, with an author such as `admin:ann`.

    Raises ConfigError if `allow` cannot be called.
    """

    def __init__(
        self,
        store: SessionStore | str,
        allow: Callable[[WSGIEnvironment], bool],
        *,
        texts: Mapping[str, Text] | None = None,
        lang: str = "en",
        templates: "str | os.PathLike[str] | list[str] | None" = None,
        clock: Clock = system_clock,
    ) -> None:
        if not callable(allow):
            raise ConfigError("allow must be a function that takes the WSGI environ and returns a bool")
        self._store: SessionStore = open_store(store) if isinstance(store, str) else store
        self._allow = allow
        self._rendering = Rendering(texts, lang, templates)
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            if not self._allow(environ):
                raise Refused("404 Not Found")
            return send_file(environ, start_response) or self._respond(Request(environ), start_response)
        except Refused as refused:
            return refuse(environ, start_response, refused)

    def _respond(self, request: Request, start_response: StartResponse) -> list[bytes]:
        if request.method not in ("GET", "HEAD", "POST"):
            raise Refused("405 Method Not Allowed")
        try:
            checked = check(self._store)
        except StoreError as error:
            # Without the session, which may be in the same failing store.
            body = self._rendering.render("admin_down.html", error=type(error).__name__)
            status = "503 Service Unavailable"
            return send(request.environ, start_response, body, "text/html; charset=utf-8", status=status)
        session, say = request.session, self._rendering.texts.say
        if request.method != "POST":
            said = [say(name, count=count) for name, count in session.pop_flash(_SAID)]
            return self._show(request, start_response, checked, said)
        form = form_of(request)
        if not session.is_csrf_token(form.get("csrf_token")):
            return self._show(request, start_response, checked, [say("form_out_of_date")], "403 Forbidden")
        session.flash(self._end(session, form), _SAID)
        return redirect(request.environ, start_response, "?done")

    def _end(self, session: Session, form: Mapping[str, str]) -> list[str | int]:
        """End the sessions that the form names; return the name of the sentence that says so, and its count."""
        if "end" in form:
            return self._end_one(session, form["end"])
        if "end_user" in form:
            return self._end_user(session, form["end_user"])
        return self._end_all(session) if form.get("sure") == "yes" else ["not_sure", 0]

    def _end_one(self, session: Session, session_id: str) -> list[str | int]:
        found = self._live(session_id)
        if found is None or found.id == session.id:
            return ["not_live", 0]
        self._store.destroy(session_id)
        _report(session, [found])
        return ["ended", 1]

    def _end_user(self, session: Session, user: str) -> list[str | int]:
        if not isinstance(self._store, IndexedStore) or not (found := self._of_user(user, ENDED_AT_ONCE)):
            return ["not_live", 0]
        ended = self._store.destroy_all(user, except_id=session.id)
        _report(session, [one for one in found if one.id != session.id])
        return ["ended", ended]

    def _end_all(self, session: Session) -> list[str | int]:
        found = listed(self._store, limit=ENDED_AT_ONCE + 1) or []
        ended = [one for one in found if one.id != session.id][:ENDED_AT_ONCE]
        destroy_many(self._store, [one.id for one in ended])
        _report(session, ended)
        return ["ended_in_part" if len(found) > ENDED_AT_ONCE else "ended", len(ended)]

    def _live(self, session_id: str) -> Listed | None:
        found = self._store.load(session_id) if SESSION_ID.fullmatch(session_id) else None
        return None if found is None or found.superseded else found

    def _of_user(self, user: str, limit: int, after: str | None = None) -> Sequence[Listed] | None:
        # No text in a database holds a NUL, and PostgreSQL refuses a search for one.
        return [] if "\0" in user else listed(self._store, user=user, limit=limit, after=after)

    def _show(
        self, request: Request, start_response: StartResponse, checked: str, said: list[str], status: str = "200 OK"
    ) -> list[bytes]:
        session, query = request.session, request.GET
        user, session_id = query.get("user", "").strip(), query.get("id", "").strip()
        after = query.get("after") if SESSION_ID.fullmatch(query.get("after", "")) else None
        is_list = bool(user or session_id or "all" in query)
        found: Sequence[Listed] | None = None
        if session_id:
            one = self._live(session_id)
            found = [] if one is None else [one]
        elif is_list:
            found = self._of_user(user, PAGE + 1, after) if user else listed(self._store, limit=PAGE + 1, after=after)
        now = milliseconds(self._clock)
        body = self._rendering.render(
            "admin.html",
            checked=checked,
            said=said,
            user=user,
            session_id=session_id,
            is_list=is_list,
            found=None if found is None else found[:PAGE],
            more_after=found[PAGE - 1].id if found and len(found) > PAGE else None,
            overview=None if is_list else overview(self._store, now),
            events_at_most=EVENTS_AT_MOST,
            own_id=session.id,
            csrf_token=session.get_csrf_token(),
            now=now,
        )
        return send(request.environ, start_response, body, "text/html; charset=utf-8", status=status)


def _report(session: Session, ended: Iterable[Listed]) -> None:
    author = f"admin:{session.user}" if session.user else "admin"
    report_ended(session._state.site.events, ended, author)
