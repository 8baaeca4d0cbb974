"""SessionMiddleware's settings as types, for the integrations that pass them on.

An integration takes `**options: Unpack[MiddlewareOptions]`. Type checkers and editors then know each setting, the
middleware checks it, and the list stands once.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypedDict
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.clock import Clock
from prism_wsgi.cookie_fallbacks import AnyCookie, Secret
from prism_wsgi.cookies import Cookie, SameSite
from prism_wsgi.events import SessionObserver
from prism_wsgi.middleware import SessionMiddleware, serve
from prism_wsgi.serializers import Serializer
from prism_wsgi.settings import CookieOn, Encryption, OnStoreError
from prism_wsgi.stores.base import SessionStore


class SessionOptions(TypedDict, total=False):
    """The settings of SessionMiddleware for which frameworks have no name of their own."""

    store: SessionStore | str | None
    secret: Secret | Sequence[Secret] | None
    max_lifetime: int | timedelta | None
    touch_interval: float | timedelta | None
    persistent: bool
    cookie_on: CookieOn | str
    max_size: int
    on_store_error: OnStoreError | str
    save_on_error: bool
    serializer: Serializer | None
    encryption_key: Secret | Sequence[Secret] | None
    encryption: Encryption | str
    read_unencrypted: bool
    record_client: bool | str
    client_address: Callable[[WSGIEnvironment], str] | None
    is_passive: Callable[[WSGIEnvironment], bool] | None
    user_id_key: str | None
    max_sessions_per_user: int | None
    cookie_fallbacks: Sequence[str | Cookie | AnyCookie]
    keep_fallbacks: bool
    observers: Sequence[SessionObserver]
    environ_key: str
    clock: Clock


class MiddlewareOptions(SessionOptions, total=False):
    """Every setting of SessionMiddleware."""

    cookie_name: str
    ttl: int | timedelta
    path: str
    domain: str | None
    secure: bool
    httponly: bool
    samesite: SameSite | str
    partitioned: bool


def prepared(options: MiddlewareOptions) -> SessionMiddleware:
    """Return a middleware with validated settings, for `around` to put around applications."""
    return SessionMiddleware(_no_application, **options)


def around(app: WSGIApplication, middleware: SessionMiddleware) -> WSGIApplication:
    """Return an application with the sessions of `middleware` around it."""
    return partial(serve, middleware.site, app)


def _no_application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    raise AssertionError("Only the applications that around() returns are called")
