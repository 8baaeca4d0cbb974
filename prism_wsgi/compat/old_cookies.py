"""OldCookieMiddleware: visitors go on with their imported sessions, by the cookies that they still hold."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.clock import pause
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
from prism_wsgi.http import get_session, service_unavailable
from prism_wsgi.middleware import SessionMiddleware
from prism_wsgi.request.exchange import RETRY_AFTER
from prism_wsgi.request.headers import Headers
from prism_wsgi.setting_types import around
from prism_wsgi.stores.base import ReplacingStore, StoredSession
from prism_wsgi.tokens import TIME_BYTES, session_id

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
        self._joining = around(_read_first(sessions.app, sessions.environ_key), sessions)
        is_prefixed = cookie.name.startswith("__")  # such a cookie can be deleted by a Secure one only
        old = Cookie(cookie.name, "", path=cookie.path, domain=cookie.domain, secure=is_prefixed)
        self._deletion = None if cookie.name == sessions.cookie.name else old.deletion().header_value

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        key = self._old_key(environ.get("HTTP_COOKIE", ""))
        if key is None:
            return self._sessions(environ, start_response)
        try:
            secret = self._adopt(key)
        except StoreUnavailable:
            if not self._sessions.answers_503:
                raise
            return service_unavailable(environ, start_response, retry_after=RETRY_AFTER)
        if secret is None:
            return self._sessions(environ, start_response)
        environ["HTTP_COOKIE"] = self._with_our_cookie(environ["HTTP_COOKIE"], secret)
        return self._joining(environ, self._deleting_old_cookie(start_response))

    def _old_key(self, header: str) -> str | None:
        """Return the key in the visitor's old cookie, unless they have a session of ours or several old ones."""
        if any(_names_stored_session(value) for value in read_cookie(header, self._sessions.cookie.name)):
            return None
        found = {key for value in read_cookie(header, self._cookie.name) if (key := self._cookie.key_in(value))}
        # Another site under the same domain may have planted one of its own.
        return found.pop() if len(found) == 1 else None

    def _adopt(self, key: str) -> str | None:
        """Return the secret of the session that an old key leads to, moving it there if nobody has; None without."""
        repository = self._sessions.repository
        waiting = imported_id(self._cookie.origin, key)
        for attempt in range(MAX_ATTEMPTS):
            try:
                row = repository.load(waiting)
            except SerializationError as error:
                repository.events.emit(Reason.UNREADABLE_DATA, waiting, f"{error}; imported: set read_unencrypted")
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
                repository.events.emit(Reason.STORE_FAILED, waiting, str(error))
                raise
        return None

    def _secret_of(self, key: str, new_id: str) -> str | None:
        """Return the secret of a session that moved to `new_id`, as long as the old key may lead there."""
        moved_at = int(new_id[: 2 * TIME_BYTES], 16)
        if self._sessions.repository.now() >= moved_at + JOIN_MS:
            return None
        return adopted_secret(self._cookie.origin, key, moved_at)

    def _move(self, row: StoredSession, key: str) -> str | None:
        """Move a session to a new id and return its secret, leaving a marker; None when another request was first."""
        repository = self._sessions.repository
        secret = adopted_secret(self._cookie.origin, key, repository.now())
        expires_at = repository.expiry(row.created_at, repository.ttl)
        new = StoredSession(session_id(secret), row.data, 0, row.created_at, expires_at, row.user)
        # It stays for as long as the session would have: to import that again must not bring it back.
        marker = replace(row, data=bytes.fromhex(new.id), user=None, superseded=True)
        store = repository.store
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

    def _with_our_cookie(self, header: str, secret: str) -> str:
        """Return a Cookie header with ours in place of any other of its name.

        It was renewed so long ago that this request renews it: the middleware then sets it, where it may.
        """
        sessions, repository = self._sessions, self._sessions.repository
        value = sessions.session_cookie.signer.sign(secret, repository.now() // 1000 - repository.ttl + 1)
        name = f"{sessions.cookie.name}="
        others = [one for one in header.split(";") if not one.strip(" \t").startswith(name)]
        return ";".join([*others, f" {name}{value}"]).strip()

    def _deleting_old_cookie(self, start_response: StartResponse) -> StartResponse:
        def delete_with_answer(status: str, headers: Headers, *exc_info: Any) -> Any:
            # Both or neither: an answer without our cookie leaves the visitor nothing but the old one.
            is_exchanged = any(
                name.lower() == "set-cookie" and value.startswith(f"{self._sessions.cookie.name}=")
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
