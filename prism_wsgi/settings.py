"""The rule of every setting, and the error message for a value that breaks it.

Each function takes the value that the user passed and returns the value that the middleware works with. It raises
ConfigError, whose message names the setting, the rule and the fix.
"""

import inspect
import re
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar, cast

from prism_wsgi.clock import Clock
from prism_wsgi.cookie_fallbacks import AnyCookie, DataCookie, PeerCookie, Secret
from prism_wsgi.cookies import MAX_AGE_LIMIT, Cookie, SameSite, must_be_secure
from prism_wsgi.errors import ConfigError, InsecureSecretWarning, InvalidCookie
from prism_wsgi.events import SessionObserver
from prism_wsgi.persistence.encryption import Cipher
from prism_wsgi.request.cookie_policy import Fallback
from prism_wsgi.request.peer_fallbacks import PeerFallback
from prism_wsgi.serializers import Serializer, TypedSerializer
from prism_wsgi.stores.base import IndexedStore, SessionStore
from prism_wsgi.stores.urls import open_store
from prism_wsgi.tokens import LONGEST_TOKEN, Signer

_ChoiceT = TypeVar("_ChoiceT", bound=StrEnum)
_ResultT = TypeVar("_ResultT")

DEFAULT_TTL = 3600  # seconds
DEFAULT_MAX_SIZE = 65536  # bytes
MIN_SECRET_BYTES = 32  # RFC 2104, section 3: a key shorter than the hash weakens it
MIN_DISTINCT_BYTES = 8
_PLACEHOLDER = re.compile(r"(change|replace)[ _-]?(me|this)|your[ _-]?secret|secret[ _-]?key|placeholder", re.I)


class CookieOn(StrEnum):
    """The response with which a visitor gets the cookie."""

    REQUEST = "request"
    """The first response; the store gets a row only at the first write."""
    WRITE = "write"
    """The response of the first write, together with the row in the store."""


class OnStoreError(StrEnum):
    """The answer to a request whose store fails."""

    UNAVAILABLE = "503"
    """The answer 503 with Retry-After."""
    RAISE = "raise"
    """The exception."""


class Encryption(StrEnum):
    """The keys that are needed to read an encrypted session."""

    SERVER = "server"
    """The server's key."""
    COOKIE = "cookie"
    """The server's key and the visitor's cookie: nobody can read a session while its visitor is away."""


def lifetime(name: str, value: int | timedelta) -> int:
    """Return a lifetime in whole seconds. Raises ConfigError, which names the setting `name`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds % 1 != 0:
        raise ConfigError(f"{name} must be whole seconds or a timedelta of whole seconds, not {value!r}")
    if not 1 <= seconds <= MAX_AGE_LIMIT:
        raise ConfigError(
            f"{name} must be from 1 to {MAX_AGE_LIMIT} seconds (400 days, the longest a browser keeps a cookie), "
            f"not {value!r}"
        )
    return int(seconds)


def touch_interval(value: float | timedelta | None, ttl: int) -> float:
    """Return how often activity is recorded, in seconds; a tenth of `ttl` for None."""
    if value is None:
        return ttl / 10
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < ttl:
        raise ConfigError(
            f"touch_interval must be seconds from 0 to below ttl ({ttl}), not {value!r}; leave it out for ttl / 10"
        )
    return float(seconds)


def max_lifetime(value: int | timedelta | None) -> int | None:
    """Return the absolute lifetime in seconds, or None for no end."""
    return None if value is None else lifetime("max_lifetime", value)


def session_cookie(
    name: str,
    *,
    path: str,
    domain: str | None,
    secure: bool,
    httponly: bool,
    samesite: SameSite | str,
    partitioned: bool,
) -> Cookie:
    """Return the session cookie without its value.

    `path`: the part of the site that the browser sends the cookie to; "/" is all of it.
    `domain`: a host whose subdomains get the cookie too; None is the host that set it and no other.
    `secure`: sent over HTTPS only; most browsers make an exception of `localhost`.
    `httponly`: hidden from scripts on the page.
    `samesite`: whether the cookie goes with requests that another site started: "strict", "lax" or "none".
    `partitioned`: kept apart for each top-level site, for a site that others embed (CHIPS).
    """
    flag("secure", secure)
    flag("httponly", httponly)
    flag("partitioned", partitioned)
    try:
        cookie = Cookie(
            name,
            "0" * LONGEST_TOKEN,  # a name must leave room for it
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        return replace(cookie, value="")
    except InvalidCookie as error:
        raise ConfigError(f"The session cookie cannot be set: {error}") from error


def signing_secrets(secret: Secret | Sequence[Secret] | None) -> list[bytes]:
    """Return the signing secrets: the first signs, all verify. For None, warn and return a random one."""
    if secret is None:
        _warn(
            "secret is not set, so a random one is used: every session ends when this process ends, and other "
            "processes refuse its cookies. Make one with `prism-wsgi secret` and pass it from the environment: "
            'secret=os.environ["SESSION_SECRET"]'
        )
        return [secrets.token_bytes(MIN_SECRET_BYTES)]
    keys = _secrets("secret", secret)
    for key in keys:
        weakness = secret_weakness(key)
        if weakness is not None:
            _warn(f"secret {weakness}: anyone who guesses it can forge sessions. Make one with `prism-wsgi secret`")
    return keys


def secret_weakness(key: bytes) -> str | None:
    """Return what is weak about a signing secret, as the end of a sentence, or None."""
    if _PLACEHOLDER.search(key.decode("latin-1")):
        return "is a placeholder"
    if len(key) < MIN_SECRET_BYTES:
        return f"has {len(key)} bytes, fewer than {MIN_SECRET_BYTES}"
    if len(set(key)) < MIN_DISTINCT_BYTES:
        return f"repeats fewer than {MIN_DISTINCT_BYTES} different characters"
    return None


def session_cipher(
    encryption_key: Secret | Sequence[Secret] | None, encryption: Encryption | str, *, read_unencrypted: bool
) -> Cipher | None:
    """Return the cipher that encrypts sessions, None when no key is given."""
    mode = choice("encryption", encryption, Encryption)
    flag("read_unencrypted", read_unencrypted)
    if encryption_key is None:
        if mode is not Encryption.SERVER or read_unencrypted:
            raise ConfigError(
                'encryption_key must be set for encryption="cookie" and read_unencrypted=True; make one with '
                "`prism-wsgi secret`"
            )
        return None
    keys = _secrets("encryption_key", encryption_key)
    for key in keys:
        weakness = secret_weakness(key)
        if weakness is not None:
            raise ConfigError(
                f"encryption_key {weakness}, and anyone who guesses it can read the sessions; "
                "make one with `prism-wsgi secret`"
            )
    return Cipher(keys, with_cookie=mode is Encryption.COOKIE, reads_unencrypted=read_unencrypted)


def _secrets(name: str, given: Secret | Sequence[Secret]) -> list[bytes]:
    several = list(given) if isinstance(given, list | tuple) else [cast(Secret, given)]
    if not several:
        raise ConfigError(f"{name} must not be an empty list; pass at least one secret")
    return [_secret_bytes(name, one) for one in several]


def _secret_bytes(name: str, secret: Secret) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigError(f"{name} must be str or bytes, or a list of them, not {type(secret).__name__}")
    try:
        key = secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raise ConfigError(f"{name} must be text that has a UTF-8 encoding, or bytes") from None
    if not key.strip():
        raise ConfigError(f"{name} must not be empty; make one with `prism-wsgi secret`")
    return key


def _warn(message: str) -> None:
    # The warning names the line that made the middleware: three calls above, behind signing_secrets and __init__.
    warnings.warn(message, InsecureSecretWarning, stacklevel=4)


def session_clock(clock: object) -> Clock:
    """Return the clock. Raises ConfigError for a value that cannot be called."""
    if not callable(clock):
        raise ConfigError(f"clock must be a function that returns Unix seconds, such as time.time, not {clock!r}")
    return cast(Clock, clock)


def session_store(store: object, *, clock: Clock | None = None, limit: int | None = None) -> SessionStore:
    """Return the store: a MemoryStore for None, and the one that a URL names.

    `limit` is `max_sessions_per_user`, which needs a store that lists a user's sessions.
    """
    if store is None:
        store = "memory"
    if isinstance(store, str):
        return open_store(store, clock=clock)
    if isinstance(store, type):
        raise ConfigError(f"store must be an object, not the class {store.__name__}; call it: {store.__name__}()")
    missing = [verb for verb in ("load", "save", "destroy") if not callable(getattr(store, verb, None))]
    if missing:
        raise ConfigError(
            f"store must have the methods load, save and destroy; {type(store).__name__} lacks {', '.join(missing)}"
        )
    _check_touch(store)
    if limit is not None and not isinstance(store, IndexedStore):
        raise ConfigError(
            f"max_sessions_per_user needs a store that lists a user's sessions; {type(store).__name__} has no `find` "
            "and `destroy_all`"
        )
    return cast(SessionStore, store)


def _check_touch(store: object) -> None:
    """Refuse a `touch` of earlier releases, which took an id and an expiry."""
    touch = getattr(store, "touch", None)
    if not callable(touch):
        return
    try:
        inspect.signature(touch).bind(object())
    except TypeError:
        raise ConfigError(
            f"{type(store).__name__}.touch must take one StoredSession, and record its expiry if that version is "
            "stored; in earlier releases it took the id and the expiry"
        ) from None
    except ValueError:  # a function without a signature, written in C
        return


def optional_function(name: str, value: Callable[..., _ResultT] | None) -> Callable[..., _ResultT] | None:
    """Return a setting that is a function of the WSGI environ, or None."""
    if value is not None and not callable(value):
        raise ConfigError(f"{name} must be a function that takes the WSGI environ, not {value!r}")
    return value


def observers(given: Sequence[SessionObserver]) -> Sequence[SessionObserver]:
    """Return the observers. Raises ConfigError for an object that lacks an observer's methods."""
    if not isinstance(given, list | tuple):
        raise ConfigError(f"observers must be a list of objects: observers=[AuditTrail(store)], not {given!r}")
    for one in given:
        if isinstance(one, type):
            raise ConfigError(f"observers must hold objects, not the class {one.__name__}; call it")
        if not all(callable(getattr(one, method, None)) for method in ("on_event", "on_store_call")):
            raise ConfigError(
                f"observers must hold objects with the methods on_event and on_store_call, not {type(one).__name__}"
            )
    return given


def user_id_key(value: str | None) -> str | None:
    """Return the key under which a login library puts the user."""
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f'user_id_key must be the name of a key, such as "user_id", not {value!r}')
    return value


def max_sessions_per_user(value: int | None) -> int | None:
    """Return how many sessions a user may have."""
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"max_sessions_per_user must be a positive whole number or None, not {value!r}")
    return value


def record_client(value: bool | str, *, is_encrypted: bool) -> bool:
    """Return whether to record address and user agent, in columns that are not encrypted."""
    if value == "readable":
        return True
    if not isinstance(value, bool):
        raise ConfigError(f'record_client must be True, False or "readable", not {value!r}')
    if value and is_encrypted:
        raise ConfigError(
            "record_client=True stores address and user agent in columns that encryption_key does not encrypt; set "
            'record_client="readable" to confirm that, or record_client=False'
        )
    return value


def peer_fallbacks(given: Sequence[str | Cookie | AnyCookie]) -> list[PeerFallback]:
    """Return the cookies of other packages among `cookie_fallbacks`."""
    try:
        return [PeerFallback(one) for one in given if isinstance(one, PeerCookie | DataCookie)]
    except InvalidCookie as error:
        raise ConfigError(f"cookie_fallbacks: {error}") from error


def cookie_fallbacks(
    given: Sequence[str | Cookie | AnyCookie], present: Cookie, secrets: Sequence[bytes]
) -> list[Fallback]:
    """Return the earlier forms of the session cookie, each with its signer."""
    known = str | Cookie | PeerCookie | DataCookie
    if isinstance(given, known) or not all(isinstance(one, known) for one in given):
        raise ConfigError(
            'cookie_fallbacks must be a list of names or cookies: cookie_fallbacks=["old_name", DjangoCookie()]'
        )
    fallbacks = []
    for one in given:
        if isinstance(one, PeerCookie | DataCookie):
            continue
        try:
            cookie = one if isinstance(one, Cookie) else Cookie(one, "", secure=must_be_secure(one) or present.secure)
        except InvalidCookie as error:
            raise ConfigError(f"cookie_fallbacks: {error}") from error
        if (cookie.name, cookie.domain, cookie.path) == (present.name, present.domain, present.path):
            raise ConfigError(f"cookie_fallbacks names the present cookie, {present.name!r}; leave it out")
        fallbacks.append(Fallback(cookie, Signer(secrets, cookie.name)))
    return fallbacks


def session_serializer(serializer: object) -> Serializer:
    """Return the serializer, a TypedSerializer for None."""
    if serializer is None:
        return TypedSerializer()
    if not all(callable(getattr(serializer, name, None)) for name in ("dumps", "loads")):
        raise ConfigError(
            f"serializer must be an object with the methods dumps and loads, not {type(serializer).__name__}"
        )
    return cast(Serializer, serializer)


def max_size(value: int) -> int:
    """Return the largest size of an encoded session in bytes."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"max_size must be a positive number of bytes, not {value!r}")
    return value


def environ_key(value: str) -> str:
    """Return the key of the session in the WSGI environ."""
    # PEP 3333 asks for a dot in names that are not the server's own
    if not isinstance(value, str) or "." not in value or not value.isprintable():
        raise ConfigError(f'environ_key must be text with a dot, for example "prism.session", not {value!r}')
    return value


def flag(name: str, value: object) -> bool:
    """Return a setting that is on or off."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}")
    return value


def choice(name: str, value: str, choices: type[_ChoiceT]) -> _ChoiceT:
    """Return the member of `choices` that `value` names."""
    try:
        return choices(value)
    except ValueError:
        allowed = " or ".join(f'"{member}"' for member in choices)
        raise ConfigError(f"{name} must be {allowed}, not {value!r}") from None
