"""The page on which users see where they are logged in, and log out elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.http import Request
from prism_wsgi.pages.answers import Refused, form_of, redirect, refuse, send
from prism_wsgi.pages.rendering import Rendering, send_file
from prism_wsgi.pages.texts import Text
from prism_wsgi.session import Session
from prism_wsgi.stores.base import StoredSession

MOST_SHOWN = 100
_SAID = "prism_wsgi.pages"  # the queue of flash messages


@dataclass(frozen=True, slots=True)
class Device:
    """One row of the page. Moments are Unix ms, None if unknown."""

    id: str
    name: str | None
    address: str | None
    last_seen_at: int | None
    authenticated_at: int | None
    is_this: bool = False
    acts_as: str | None = None
    """The user as whom the owner of the page sees the site."""
    is_administrator: bool = False
    """Whether an administrator sees the site as the owner of the page does."""


class DevicesPage:
    """A page that shows users where they are logged in, and lets them log out elsewhere; a WSGI application.

    Mount it inside SessionMiddleware, under any path. With `record_client` it names browsers and addresses.
    `login_url`: the page to log in, absolute or relative to this page; a visitor who is not logged in is sent there.
    `fresh_within`: seconds or a timedelta. A user who has not proved who they are for longer sees the page, but has
    to log in again before they end a session (ASVS 5.0, 7.5.2).
    `texts`: sentences that replace the English ones, by the names in `prism_wsgi.pages.texts.ENGLISH`. `lang`: their
    language; the page is set right to left for languages that are. `templates`: a directory with your templates.
    `clock`: returns Unix seconds; for tests.
    """

    def __init__(
        self,
        *,
        login_url: str = "/login",
        fresh_within: float | timedelta = 300,
        texts: Mapping[str, Text] | None = None,
        lang: str = "en",
        templates: "str | os.PathLike[str] | list[str] | None" = None,
        clock: Clock = system_clock,
    ) -> None:
        self._login_url = login_url
        self._fresh_within = fresh_within
        self._rendering = Rendering(texts, lang, templates)
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        file = send_file(environ, start_response)
        if file is not None:
            return file
        try:
            return self._respond(Request(environ), start_response)
        except Refused as refused:
            return refuse(environ, start_response, refused)

    def _respond(self, request: Request, start_response: StartResponse) -> list[bytes]:
        session, environ = request.session, request.environ
        if request.method not in ("GET", "HEAD", "POST"):
            raise Refused("405 Method Not Allowed")
        form = form_of(request) if request.method == "POST" else None
        if session.user is None:
            return redirect(environ, start_response, self._login_url)
        if form is None:
            said = [self._rendering.texts.say(name, count=count) for name, count in session.pop_flash(_SAID)]
            return self._show(session, environ, start_response, said=said)
        if not session.is_csrf_token(form.get("csrf_token")):
            said = [self._rendering.texts.say("form_out_of_date")]
            return self._show(session, environ, start_response, said=said, status="403 Forbidden")
        if not session.is_fresh(self._fresh_within):
            return self._show(session, environ, start_response, status="403 Forbidden")  # it says what is needed
        if "others" in form:
            session.flash(["devices_ended", session.logout_elsewhere()], _SAID)
        elif "end" in form:
            session.flash(["device_ended" if session.revoke(form["end"]) else "device_unknown", 1], _SAID)
        return redirect(environ, start_response, "?done")

    def _show(
        self,
        session: Session,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        *,
        said: list[str] | None = None,
        status: str = "200 OK",
    ) -> list[bytes]:
        others = sorted(session.other_sessions(), key=lambda one: one.last_seen_at or one.created_at, reverse=True)
        shown = [self._this(session), *(self._other(session, one) for one in others[:MOST_SHOWN])]
        body = self._rendering.render(
            "devices.html",
            user=session.user,
            devices=shown,
            left_out=max(0, len(others) - MOST_SHOWN),
            can_end=session.is_fresh(self._fresh_within),
            is_impersonated=session.actor is not None,
            is_recorded=any(device.name for device in shown),
            login_url=self._login_url,
            csrf_token=session.get_csrf_token(),
            said=said or [],
            now=milliseconds(self._clock),
        )
        return send(environ, start_response, body, "text/html; charset=utf-8", status=status)

    def _this(self, session: Session) -> Device:
        client = session.client
        proved = session.authenticated_at
        return Device(
            session.id,
            None if client is None else self._rendering.device(client.user_agent),
            None if client is None else client.address,
            milliseconds(self._clock),
            None if proved is None else int(proved.timestamp() * 1000),
            is_this=True,
            is_administrator=session.actor is not None,
        )

    def _other(self, session: Session, stored: StoredSession) -> Device:
        client, is_own = session.client_of(stored), stored.actor == session.user
        # An administrator's device is not shown to the user whom they impersonate.
        is_hidden = client is None or (stored.actor is not None and not is_own)
        return Device(
            stored.id,
            None if client is None or is_hidden else self._rendering.device(client.user_agent),
            None if client is None or is_hidden else client.address,
            stored.last_seen_at,
            None if is_hidden and stored.actor is not None else stored.authenticated_at,
            acts_as=stored.user if is_own else None,
            is_administrator=stored.actor is not None and not is_own,
        )
