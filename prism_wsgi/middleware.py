"""The middleware, which serves one request from its Cookie header to Set-Cookie."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi import settings
from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.cookie_fallbacks import AnyCookie, Secret
from prism_wsgi.cookies import Cookie, SameSite
from prism_wsgi.errors import ConfigError
from prism_wsgi.events import Events, Reason, SessionObserver
from prism_wsgi.http import DEFAULT_ENVIRON_KEY
from prism_wsgi.persistence.adapter import ObservedStoreAdapter, StoreAdapter
from prism_wsgi.persistence.document import Codec
from prism_wsgi.persistence.lifetimes import Lifetimes
from prism_wsgi.request.cookie_policy import CookiePolicy
from prism_wsgi.request.exchange import Exchange, note_client
from prism_wsgi.request.phases import OPEN, ORDINARY, WITHHELD
from prism_wsgi.request.site import Site
from prism_wsgi.request.state import SessionState
from prism_wsgi.serializers import Serializer
from prism_wsgi.session import Session
from prism_wsgi.settings import CookieOn, Encryption, OnStoreError
from prism_wsgi.stores.base import SessionStore
from prism_wsgi.tokens import Signer, Token


class SessionMiddleware:
    """A WSGI middleware that gives each request to an application its session.

    The session is `environ["prism.session"]`, and `request.session` of any `webob.Request`. Its id is
    `environ["prism.session_id"]`.

    `store`: the store that keeps the sessions, or its URL; a MemoryStore unless given.
    `secret`: signs the cookie; text or bytes, at least 32 bytes of randomness. Of a list, the first signs and all
    verify, so that you can replace a secret without ending sessions. Without one, a random one is used, with a
    warning.
    `cookie_name`: the prefixes `__Host-` and `__Secure-` are enforced.
    `ttl`: idle lifetime, in seconds or as a timedelta; each use restarts it.
    `max_lifetime`: absolute lifetime, in seconds or as a timedelta; nothing extends a session past it.
    `touch_interval`: how often use is recorded, in seconds or as a timedelta; a tenth of `ttl` unless given.
    `path`, `domain`, `secure`, `httponly`, `samesite`, `partitioned`: the cookie's attributes.
    `persistent`: whether the cookie outlives the browser's session (Max-Age).
    `cookie_on`: "request" gives each visitor a cookie with the first response; "write" with the first write.
    `max_size`: the largest session once encoded, in bytes; a larger one raises SessionTooLarge.
    `on_store_error`: "503" answers 503 with Retry-After when the store fails; "raise" raises StoreUnavailable.
    `save_on_error`: saves changes even if the application raised or answered 5xx.
    `serializer`: turns a session into bytes; typed msgpack unless given.
    `encryption_key`: encrypts what the store keeps; at least 32 bytes of randomness, not the `secret`. Of a list, the
    first encrypts and all decrypt. Without one, nothing is encrypted. Needs the extra `encryption`.
    `encryption`: "server" encrypts with that key alone; "cookie" with the visitor's cookie too, so that a thief of
    both the database and the server's key can read no session.
    `read_unencrypted`: reads sessions that were stored before there was a key; the next write encrypts them. Anyone
    who can write to the database can then forge sessions, so leave it out once old sessions have expired.
    `record_client`: stores the address and the user agent that last used a session; see `Session.client`. They are
    not encrypted; with an `encryption_key`, pass "readable" to confirm that.
    `client_address`: takes the WSGI environ and returns the visitor's address; REMOTE_ADDR unless given.
    `is_passive`: takes the WSGI environ and tells whether a request reads the session without counting as its use.
    `user_id_key`: the key under which a login library puts the user; a save that finds it new or changed is a login.
    `max_sessions_per_user`: how many logins a user may have; a further login ends the oldest.
    `cookie_fallbacks`: earlier forms of the session cookie that are still read: names, Cookies with their path and
    domain, or another package's cookie; see `prism_wsgi.cookie_fallbacks`.
    `keep_fallbacks`: leaves earlier forms in the browser, for workers of an earlier release that read nothing else.
    `observers`: objects that receive each event and each call of the store; see `SessionObserver`.
    `environ_key`: the session's key in the WSGI environ; the id's key is the same with `_id` appended.
    `clock`: returns Unix seconds; for tests.

    Raises ConfigError for a setting that breaks its rule, and warns of a weak secret (InsecureSecretWarning).
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        store: SessionStore | str | None = None,
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
        record_client: bool | str = False,
        client_address: Callable[[WSGIEnvironment], str] | None = None,
        is_passive: Callable[[WSGIEnvironment], bool] | None = None,
        user_id_key: str | None = None,
        max_sessions_per_user: int | None = None,
        cookie_fallbacks: Sequence[str | Cookie | AnyCookie] = (),
        keep_fallbacks: bool = False,
        observers: Sequence[SessionObserver] = (),
        environ_key: str = DEFAULT_ENVIRON_KEY,
        clock: Clock = system_clock,
    ) -> None:
        self.app = app
        cookie = settings.session_cookie(
            cookie_name,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        secrets = settings.signing_secrets(secret)
        idle = settings.lifetime("ttl", ttl)
        lifetimes = Lifetimes(
            idle, settings.max_lifetime(max_lifetime), settings.touch_interval(touch_interval, idle)
        )
        clock = settings.session_clock(clock)
        events = Events(settings.observers(observers), clock)
        make_adapter = ObservedStoreAdapter if events.observers else StoreAdapter
        persistent = settings.flag("persistent", persistent)
        cipher = settings.session_cipher(encryption_key, encryption, read_unencrypted=read_unencrypted)
        limit = settings.max_sessions_per_user(max_sessions_per_user)
        self.site = Site(
            cookies=CookiePolicy(
                cookie,
                Signer(secrets, cookie_name),
                lifetimes,
                clock,
                persistent=persistent,
                fallbacks=settings.cookie_fallbacks(cookie_fallbacks, cookie, secrets),
                peers=settings.peer_fallbacks(cookie_fallbacks),
                keep_fallbacks=settings.flag("keep_fallbacks", keep_fallbacks),
            ),
            lifetimes=lifetimes,
            codec=Codec(settings.session_serializer(serializer), settings.max_size(max_size)),
            adapter=make_adapter(settings.session_store(store, clock=clock, limit=limit), cipher, events),
            events=events,
            clock=clock,
            persistent=persistent,
            offers_cookie=settings.choice("cookie_on", cookie_on, CookieOn) is CookieOn.REQUEST,
            answers_503=settings.choice("on_store_error", on_store_error, OnStoreError) is OnStoreError.UNAVAILABLE,
            save_on_error=settings.flag("save_on_error", save_on_error),
            record_client=settings.record_client(record_client, is_encrypted=cipher is not None),
            client_address=settings.optional_function("client_address", client_address),
            is_passive=settings.optional_function("is_passive", is_passive),
            user_id_key=settings.user_id_key(user_id_key),
            max_sessions_per_user=limit,
            environ_key=settings.environ_key(environ_key),
            id_key=f"{environ_key}_id",
        )

    def __repr__(self) -> str:
        return f"<SessionMiddleware {self.site.cookies.name} around {self.app!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return serve(self.site, self.app, environ, start_response)


def serve(
    site: Site,
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Serve one request with its session, from the cookie received to the cookie sent.

    Inside another SessionMiddleware with the same cookie and key, the application gets the session of that one. With
    another cookie it gets another session, in a copy of the environ. Raises ConfigError if the two would overwrite
    each other's cookie.
    """
    outer = _session_around(site, environ)
    if outer is not None:
        if _is_same(outer._state.site, site):
            return app(environ, start_response)  # mounted twice: the outer middleware serves the session
        environ = {**environ, "webob.adhoc_attrs": {**environ.get("webob.adhoc_attrs", {})}}
    token = site.cookies.received(environ)
    earlier = site.cookies.earlier(environ, token)
    rejected = None
    if earlier is not None:
        state = SessionState(site, None, earlier=earlier)
    elif isinstance(token, Token):
        state = SessionState(site, token)
    else:
        state = SessionState(site, None, WITHHELD if site.cookies.withholds(environ) else ORDINARY)
        rejected = token
    if site.record_client:
        note_client(site, state, environ)
    if site.events.observers:
        state.note_path(environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
    if rejected is not None:
        site.events.emit(rejected, origin=state.visit)
    if site.is_passive is not None and site.is_passive(environ):
        state.be_passive(True)
    environ[site.environ_key] = session = Session(state)
    environ[site.id_key] = state.identity.id
    # webob.Request reads further attributes from here: `request.session`.
    environ.setdefault("webob.adhoc_attrs", {})["session"] = session
    is_contradicted = token is Reason.DUPLICATE_COOKIE
    return Exchange(site, state, environ, start_response, is_contradicted=is_contradicted).run(app)


def _session_around(site: Site, environ: WSGIEnvironment) -> Session | None:
    """Return the session of a middleware around this one, if its response has not begun."""
    attributes = environ.get("webob.adhoc_attrs")
    if attributes is None:
        return None  # a middleware puts its session there too
    for found in (environ.get(site.environ_key), attributes.get("session")):
        if isinstance(found, Session) and found._state.stage is OPEN:
            return found
    return None


def _is_same(outer: Site, inner: Site) -> bool:
    if outer is inner:
        return True
    if outer.cookies.name != inner.cookies.name:
        return False
    if outer.cookies.signer.shares_key_with(inner.cookies.signer) and outer.environ_key == inner.environ_key:
        return True
    raise ConfigError(
        f"Two SessionMiddlewares around each other set the cookie {inner.cookies.name!r} with different secrets or "
        "environ_keys, and each would replace the other's; give the inner one another cookie_name, or give both the "
        "same secret and environ_key"
    )
