"""OldCookieMiddleware: visitors go on with their imported sessions, by the cookies that they still hold."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.compat.importing.ids import adopted_secret, imported_id
from prism_wsgi.compat.peer_cookies import PeerCookie
from prism_wsgi.cookies import Cookie, read_cookie
from prism_wsgi.errors import (
    ConfigError,
    SerializationError,
    SessionConflict,
    SessionGone,
    StoreError,
    StoreUnavailable,
)
from prism_wsgi.events import Reason
from prism_wsgi.http import get_session
from prism_wsgi.middleware import SessionMiddleware, serve
from prism_wsgi.request.exchange import service_unavailable
from prism_wsgi.request.headers import Headers
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import ReplacingStore, StoredSession
from prism_wsgi.tokens import TIME_BYTES, Token, session_id

JOIN_MS = 300_000
"""How long an old cookie still leads to the session it was exchanged for: the answer with the new cookie may be lost,
and a page makes many requests at once. Afterwards it opens nothing."""
MAX_ATTEMPTS = 10  # who loses the race for a session finds the winner's marker at the second, or soon


class OldCookieMiddleware:
    """Exchanges the cookie of another package for one of ours, once, and with it the session that was imported.

    `sessions` is the SessionMiddleware around the application, `cookie` what the other package called its cookie:
    a DjangoCookie, FlaskSessionCookie or BeakerCookie. `prism-wsgi import` has put the sessions into the store.

    A visitor who has a session of ours keeps it; of everybody else, one with a genuine old cookie costs one load.
    The session moves to an id that no other cookie names, in one step: of requests at once, one moves it and all
    join it. The answer sets our cookie and deletes the old one, which after five minutes opens nothing any more.
    Take this away when no old session can still be valid.

    Raises ConfigError when `sessions` is no SessionMiddleware.
    """

    def __init__(self, sessions: SessionMiddleware, cookie: PeerCookie) -> None:
        if not isinstance(sessions, SessionMiddleware):
            raise ConfigError(
                "sessions must be the SessionMiddleware around the application: "
                f"OldCookieMiddleware(SessionMiddleware(app, ...), cookie), not {type(sessions).__name__}"
            )
        self._sessions = sessions
        self._cookie = cookie
        self._site = sessions.site
        self._joining = _read_first(sessions.app, self._site.environ_key)
        is_prefixed = cookie.name.startswith("__")  # such a cookie can be deleted by a Secure one only
        old = Cookie(cookie.name, "", path=cookie.path, domain=cookie.domain, secure=is_prefixed)
        self._deletion = None if cookie.name == self._site.cookies.name else old.deletion().header_value

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        key = self._old_key(environ.get("HTTP_COOKIE", ""))
        if key is None:
            return self._sessions(environ, start_response)
        try:
            secret = self._adopt(key)
        except StoreUnavailable:
            if not self._site.answers_503:
                raise
            return service_unavailable(environ, start_response)
        if secret is None:
            return self._sessions(environ, start_response)
        # It was renewed so long ago that this request renews it: the middleware then sets it, where it may.
        renewed = self._site.now() // 1000 - self._site.lifetimes.ttl + 1
        return serve(
            self._site,
            self._joining,
            environ,
            self._deleting_old_cookie(start_response),
            found=Token(secret, renewed, outdated_key=True),
        )

    def _old_key(self, header: str) -> str | None:
        """Return the key in the visitor's old cookie, unless they have a session of ours or several old ones."""
        if any(_names_stored_session(value) for value in read_cookie(header, self._site.cookies.name)):
            return None
        found = {key for value in read_cookie(header, self._cookie.name) if (key := self._cookie.key_in(value))}
        # Another site under the same domain may have planted one of its own.
        return found.pop() if len(found) == 1 else None

    def _adopt(self, key: str) -> str | None:
        """Return the secret of the session that an old key leads to, moving it there if nobody has; None without."""
        adapter, events = self._site.adapter, self._site.events
        waiting = imported_id(self._cookie.origin, key)
        for attempt in range(MAX_ATTEMPTS):
            try:
                row = adapter.peek(waiting)
            except SerializationError as error:
                events.emit(Reason.UNREADABLE_DATA, waiting, f"{error}; imported: set read_unencrypted")
                return None
            if row is None:
                return None
            if row.superseded:
                return self._secret_of(key, row.data.hex())
            try:
                if secret := self._move(row, key):
                    return secret
                pause(attempt)
            except StoreUnavailable as error:
                events.emit(Reason.STORE_FAILED, waiting, str(error))
                raise
        return None

    def _secret_of(self, key: str, new_id: str) -> str | None:
        """Return the secret of a session that moved to `new_id`, as long as the old key may lead there."""
        moved_at = int(new_id[: 2 * TIME_BYTES], 16)
        if self._site.now() >= moved_at + JOIN_MS:
            return None
        return adopted_secret(self._cookie.origin, key, moved_at)

    def _move(self, row: StoredSession, key: str) -> str | None:
        """Move a session to a new id and return its secret, leaving a marker; None when another request was first."""
        site = self._site
        secret = adopted_secret(self._cookie.origin, key, site.now())
        expires_at = site.lifetimes.expiry(site.now(), row.created_at, site.lifetimes.ttl, None)
        new = StoredSession(session_id(secret), row.data, 0, row.created_at, expires_at, row.user)
        # It stays for as long as the session would have: to import that again must not bring it back.
        marker = replace(row, data=bytes.fromhex(new.id), user=None, superseded=True)
        store = site.adapter.store
        try:
            if isinstance(store, ReplacingStore):
                store.replace(marker, new)
                return secret
            # The marker last: who comes in between would find the session nowhere.
            store.save(new)
            try:
                store.save(marker)
            except StoreError:
                store.destroy(new.id)
                raise
        except (SessionConflict, SessionGone):
            return None
        return secret

    def _deleting_old_cookie(self, start_response: StartResponse) -> StartResponse:
        def delete_with_answer(status: str, headers: Headers, *exc_info: Any) -> Any:
            # Both or neither: an answer without our cookie leaves the visitor nothing but the old one.
            is_exchanged = any(
                name.lower() == "set-cookie" and value.startswith(f"{self._site.cookies.name}=")
                for name, value in headers
            )
            if is_exchanged and self._deletion is not None:
                headers = [*headers, ("Set-Cookie", self._deletion)]
            return start_response(status, headers, *exc_info)

        return cast(StartResponse, delete_with_answer)


def _read_first(app: WSGIApplication, environ_key: str) -> WSGIApplication:
    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        len(get_session(environ, environ_key=environ_key))  # only a session that is read gets its cookie renewed
        return app(environ, start_response)

    return respond


def _names_stored_session(value: str) -> bool:
    """Tell a cookie of ours, `secret.refreshed.signature`, with which a session was stored: 0 stands for none."""
    return value.count(".") == 2 and ".0." not in value
