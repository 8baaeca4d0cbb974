"""SessionMiddleware: one request from cookie to Set-Cookie."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import settings
from prism_wsgi.client import client_in
from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.cookies import SameSite, read_cookie
from prism_wsgi.document import Codec
from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.events import EventLog, Reason
from prism_wsgi.exchange import Exchange
from prism_wsgi.headers import Headers, is_public, make_private, set_cookie, vary_on_cookie
from prism_wsgi.http import DEFAULT_ENVIRON_KEY
from prism_wsgi.persistence import Persistence, Phase
from prism_wsgi.repository import Repository
from prism_wsgi.serializers import Serializer
from prism_wsgi.session import Session, Stage
from prism_wsgi.settings import CookieOn, Encryption, OnStoreError, Secret
from prism_wsgi.stores.base import SessionStore
from prism_wsgi.tokens import Signer, Token, issued_at

MAX_CANDIDATES = 4
"""How many cookies of our name are verified: a request must not buy any number of HMACs."""


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
        self.cookie_on = settings.choice("cookie_on", cookie_on, CookieOn)
        self.save_on_error = settings.flag("save_on_error", save_on_error)
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
            clock=clock,
        )
        self.answers_503 = settings.choice("on_store_error", on_store_error, OnStoreError) is OnStoreError.UNAVAILABLE
        self.environ_key = settings.environ_key(environ_key)
        self.id_key = f"{environ_key}_id"
        self._cookie_attributes = self.cookie.attributes
        self._signer = Signer(settings.signing_secrets(secret), cookie_name)

    def __repr__(self) -> str:
        return f"<SessionMiddleware {self.cookie.name} around {self.app!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        around = environ.get(self.environ_key)
        if isinstance(around, Session) and around._stage is Stage.OPEN:
            return self.app(environ, start_response)  # mounted twice: the outer one has it in hand
        token = self._verified_token(environ)
        persistence = Persistence(self.repository, token if isinstance(token, Token) else None)
        if self.record_client:
            persistence.client = client_in(environ, self.repository.now())
        session = Session(persistence)
        environ[self.environ_key] = session
        environ[self.id_key] = persistence.id
        # Where webob.Request looks for attributes it has not got: request.session, on any of them.
        environ.setdefault("webob.adhoc_attrs", {})["session"] = session
        # A cookie set in answer to contradicting ones would only push out the one that is the visitor's own.
        offers_cookie = self.cookie_on is CookieOn.REQUEST and token is not Reason.DUPLICATE_COOKIE
        answer = _Answer(self, environ, session, persistence, offers_cookie=offers_cookie)
        return Exchange(answer, environ, start_response, answers_503=self.answers_503).run(self.app)

    def signed_cookie(self, token: Token, expires_at: int) -> str:
        """Return the Set-Cookie value that carries a token, to be kept until `expires_at` (Unix ms)."""
        value = self._signer.sign(token.secret, token.refreshed, token.ttl, token.persistent)
        max_age = ""
        if self.repository.persistent if token.persistent is None else token.persistent:
            max_age = f"; Max-Age={max(0, -(-(expires_at - self.repository.now()) // 1000))}"
        return f"{self.cookie.name}={value}{max_age}{self._cookie_attributes}"

    def _verified_token(self, environ: WSGIEnvironment) -> Token | Reason | None:
        """Return the one valid token among the request's cookies, or why there is none; asks no store."""
        values = read_cookie(environ.get("HTTP_COOKIE", ""), self.cookie.name)
        if not values:
            return None
        chosen = self._choose(values)
        if isinstance(chosen, Reason):
            self.events.emit(chosen)
        return chosen

    def _choose(self, values: list[str]) -> Token | Reason:
        """Return the one valid token among cookies of our name, or why none is used.

        Another site under the same domain may have planted a session of its own ("cookie tossing"): neither
        the order of the cookies nor any number of forged ones decides which session is used.
        """
        if len(values) == 1:
            token = self._signer.verify(values[0])
            if token is None:
                return Reason.FORGED
            return Reason.EXPIRED if self._has_lapsed(token) else token
        values = [value for value in values if self._signer.is_well_formed(value)]
        if len(values) > MAX_CANDIDATES:
            return Reason.DUPLICATE_COOKIE
        signed = [token for value in values if (token := self._signer.verify(value))]
        if not signed:
            return Reason.FORGED
        tokens = [token for token in signed if not self._has_lapsed(token)]
        if not tokens:
            return Reason.EXPIRED
        if len({token.secret for token in tokens}) > 1:
            return Reason.DUPLICATE_COOKIE
        return max(tokens, key=lambda token: token.refreshed)

    def _has_lapsed(self, token: Token) -> bool:
        # To the second a refreshed cookie cannot tell; the stored expiry can.
        grace = 1000 if token.refreshed else 0
        return self.lapses_at(token) + grace <= self.repository.now()

    def lapses_at(self, token: Token) -> int:
        """Return when a token's session will have been idle for its lifetime, in Unix ms."""
        ttl = (token.ttl or self.repository.ttl) * 1000
        if token.refreshed:
            return token.refreshed * 1000 + ttl
        issued = issued_at(token.secret)
        return self.repository.capped(issued + ttl, issued)


class _Answer:
    """What happens to one request's session while the request is answered."""

    __slots__ = ("_environ", "_is_over", "_middleware", "_offers_cookie", "_persistence", "_session")

    def __init__(
        self,
        middleware: SessionMiddleware,
        environ: WSGIEnvironment,
        session: Session,
        persistence: Persistence,
        *,
        offers_cookie: bool,
    ) -> None:
        self._offers_cookie = offers_cookie
        self._middleware = middleware
        self._environ = environ
        self._session = session
        self._persistence = persistence
        self._is_over = False

    def before_headers(self, status: int, headers: Headers) -> Headers:
        session, persistence = self._session, self._persistence
        self._is_over = True  # unless the session can be saved
        if persistence.destroy_failed or (persistence.failed and status >= 500):
            # A framework may have made its own error page of our exception, or a logout look like a success.
            raise StoreUnavailable("The session store failed during the request")
        if status >= 500 and not self._middleware.save_on_error:
            session._roll_back()
        if not persistence.failed:
            session._commit()
            self._is_over = False
        # Not before: a session that knew the environ it stands in would be garbage that takes a collection.
        self._environ[self._middleware.id_key] = persistence.id
        return self._with_session(headers)

    def headers_sent(self, *, will_close: bool) -> None:
        self._session._stage = Stage.STREAMING if will_close else Stage.DETACHED

    def is_untouched(self) -> bool:
        return not self._session.accessed

    def at_failure(self) -> None:
        if self._middleware.save_on_error and not self._is_over:
            self._save_late()
        self.at_refusal()

    def at_refusal(self) -> None:
        self._is_over = True
        self._session._stage = Stage.STREAMING

    def at_close(self) -> None:
        if not self._is_over:
            self._save_late()

    def _save_late(self) -> None:
        """Save when no cookie can be set any more."""
        self._is_over = True
        self._session._stage = Stage.STREAMING
        if not self._persistence.reachable or self._persistence.retired is not None:
            self._session._roll_back()  # its new id would open for nobody
        try:
            self._session._commit()
        except StoreUnavailable:
            if not self._middleware.answers_503:
                raise  # otherwise it is in the log, and the response is out

    def _with_session(self, headers: Headers) -> Headers:
        if self._session.accessed:
            headers = vary_on_cookie(headers)
        cookie = self._cookie()
        if cookie is None:
            return headers
        if is_public(headers):
            if not self._session.accessed:
                return headers  # the same for everybody: a cookie would keep shared caches from it
            self._middleware.events.emit(Reason.PUBLIC_CACHE_OVERRIDDEN, self._persistence.id)
        self._persistence.reachable = True
        return make_private(set_cookie(headers, self._middleware.cookie.name, cookie))

    def _cookie(self) -> str | None:
        """Return the Set-Cookie value this response needs, if any."""
        persistence, middleware = self._persistence, self._middleware
        if persistence.phase is Phase.GONE or persistence.failed:
            return None
        if persistence.destroyed:
            sent = read_cookie(self._environ.get("HTTP_COOKIE", ""), middleware.cookie.name)
            return middleware.cookie.deletion().header_value if sent else None
        token = persistence.token
        if persistence.is_cookie_stale():
            return middleware.signed_cookie(persistence.fresh_token(), persistence.expires_at)
        if token is None and persistence.phase is Phase.NEW and self._offers_cookie:
            return middleware.signed_cookie(Token(persistence.secret, 0), persistence.expires_at)
        if token is not None and token.outdated_key:
            return middleware.signed_cookie(token, middleware.lapses_at(token))
        return None
