"""SessionMiddleware: one request from cookie to Set-Cookie."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import settings
from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.cookies import SameSite
from prism_wsgi.events import EventLog, Reason
from prism_wsgi.http import DEFAULT_ENVIRON_KEY
from prism_wsgi.persistence.adapter import Repository
from prism_wsgi.persistence.client import client_in
from prism_wsgi.persistence.document import Codec
from prism_wsgi.request.cookie_policy import SessionCookie
from prism_wsgi.request.exchange import Exchange, Terms
from prism_wsgi.request.state import OPEN, SessionState
from prism_wsgi.serializers import Serializer
from prism_wsgi.session import Session
from prism_wsgi.settings import CookieOn, Encryption, OnStoreError, Secret
from prism_wsgi.stores.base import SessionStore
from prism_wsgi.tokens import Signer, Token


class SessionMiddleware:
    """Gives every request to a WSGI application a session.

    The session is `environ["prism.session"]`, its id `environ["prism.session_id"]`, and both are there for
    any `webob.Request` as `request.session`.

    `store`: where sessions live; a MemoryStore unless given.
    `secret`: signs the cookie; text or bytes, at least 32 bytes of randomness. Of a list, the first signs and all
    verify, so that a secret can be replaced without ending sessions. Left out, a random one is used, with a warning.
    `cookie_name`: the prefixes `__Host-` and `__Secure-` are enforced.
    `ttl`: idle lifetime, in seconds or as a timedelta; every use begins it anew.
    `max_lifetime`: absolute lifetime, in seconds or as a timedelta; nothing extends a session past it.
    `touch_interval`: how often use is recorded, in seconds or as a timedelta; a tenth of `ttl` unless given.
    `path`, `domain`, `secure`, `httponly`, `samesite`, `partitioned`: the cookie's attributes.
    `persistent`: whether the cookie outlives the browser's session (Max-Age).
    `cookie_on`: "request" gives each visitor a cookie with the first response; "write" with the first write.
    `max_size`: the largest session once encoded, in bytes; a larger one raises SessionTooLarge.
    `on_store_error`: "503" answers 503 with Retry-After when the store fails; "raise" raises StoreUnavailable.
    `save_on_error`: keep changes although the application raised or answered 5xx.
    `serializer`: turns a session into bytes; typed msgpack unless given.
    `encryption_key`: encrypts what the store keeps; at least 32 bytes of randomness, not the `secret`. Of a list, the
    first encrypts and all decrypt. Without one, nothing is encrypted. Needs the extra `encryption`.
    `encryption`: "server" encrypts with that key alone; "cookie" with the visitor's cookie too, so that neither the
    database nor the server's key, nor both, can read a session.
    `read_unencrypted`: reads what was stored before there was a key; it is encrypted when it is next written. Whoever
    may write to the database may then write sessions as well, so leave it out once old sessions have expired.
    `record_client`: store the address and the user agent of whoever uses a session, and when; see `Session.client`.
    Recording activity then rewrites the session's data.
    `environ_key`: where the session is put; its id goes under the same key with `_id` behind it.
    `clock`: returns Unix seconds; for tests.

    Raises ConfigError for a setting that breaks its rule, and warns with InsecureSecretWarning of a weak secret.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        store: SessionStore | None = None,
        secret: Secret | Sequence[Secret] | None = None,
        cookie_name: str = "prism_session",
        ttl: int | timedelta = settings.DEFAULT_TTL,
        max_lifetime: int | timedelta | None = None,
        touch_interval: float | timedelta | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        httponly: bool = True,
        samesite: SameSite | str = SameSite.LAX,
        partitioned: bool = False,
        persistent: bool = True,
        cookie_on: CookieOn | str = CookieOn.REQUEST,
        max_size: int = settings.DEFAULT_MAX_SIZE,
        on_store_error: OnStoreError | str = OnStoreError.UNAVAILABLE,
        save_on_error: bool = False,
        serializer: Serializer | None = None,
        encryption_key: Secret | Sequence[Secret] | None = None,
        encryption: Encryption | str = Encryption.SERVER,
        read_unencrypted: bool = False,
        record_client: bool = False,
        environ_key: str = DEFAULT_ENVIRON_KEY,
        clock: Clock = system_clock,
    ) -> None:
        self.app = app
        self.cookie = settings.session_cookie(
            cookie_name,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        self._offers_cookie = settings.choice("cookie_on", cookie_on, CookieOn) is CookieOn.REQUEST
        self.record_client = settings.flag("record_client", record_client)
        self.events = EventLog()
        seconds = settings.lifetime("ttl", ttl)
        self.repository = Repository(
            store=settings.session_store(store),
            codec=Codec(settings.session_serializer(serializer), settings.max_size(max_size)),
            ttl=seconds,
            max_lifetime=settings.max_lifetime(max_lifetime),
            touch_interval=settings.touch_interval(touch_interval, seconds),
            persistent=settings.flag("persistent", persistent),
            events=self.events,
            cipher=settings.session_cipher(encryption_key, encryption, read_unencrypted=read_unencrypted),
            clock=settings.session_clock(clock),
        )
        self.environ_key = settings.environ_key(environ_key)
        self.id_key = f"{environ_key}_id"
        self.session_cookie = SessionCookie(
            self.cookie, Signer(settings.signing_secrets(secret), cookie_name), self.repository
        )
        self.answers_503 = settings.choice("on_store_error", on_store_error, OnStoreError) is OnStoreError.UNAVAILABLE
        self._terms = Terms(
            cookie=self.session_cookie,
            events=self.events,
            id_key=self.id_key,
            answers_503=self.answers_503,
            save_on_error=settings.flag("save_on_error", save_on_error),
        )

    def __repr__(self) -> str:
        return f"<SessionMiddleware {self.cookie.name} around {self.app!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        around = environ.get(self.environ_key)
        if around is not None and isinstance(around, Session) and around._state.stage is OPEN:
            return self.app(environ, start_response)  # mounted twice: the outer one has it in hand
        token = self.session_cookie.received(environ)
        if isinstance(token, Token):
            state = SessionState(self.repository, token)
        else:
            state = SessionState(self.repository, None)
            if token is not None:
                self.events.emit(token)
        if self.record_client:
            state.client = client_in(environ, self.repository.now())
        environ[self.environ_key] = session = Session(state)
        environ[self.id_key] = state.id
        # Where webob.Request looks for attributes it has not got: request.session, on any of them.
        environ.setdefault("webob.adhoc_attrs", {})["session"] = session
        # A cookie set in answer to contradicting ones would only push out the one that is the visitor's own.
        offers_cookie = self._offers_cookie and token is not Reason.DUPLICATE_COOKIE
        return Exchange(self._terms, state, environ, start_response, offers_cookie).run(self.app)
