"""Plugin that makes Pyramid's session factories, its DummySession and the sessions of its tests PyramidSessions."""

import sys
from collections.abc import Callable
from typing import Any

import pyramid.session
import pyramid.testing
import pytest
from opening import OpenRequest
from pyramid.config import Configurator
from pyramid.interfaces import ISessionFactory

from prism_wsgi import SessionMiddleware
from prism_wsgi.pyramid import PyramidSession
from prism_wsgi.text_settings import read_settings

SECRET = "Kx7mWq2nTz5vRb9cYd4hLf8jPs3gNe6a"

RENAMED = {"timeout": "ttl", "max_age": "max_lifetime"}
TAKEN = frozenset({"cookie_name", "path", "domain", "secure", "httponly", "samesite", *RENAMED})
"""Which arguments of SignedCookieSessionFactory have a counterpart; the others say how its cookie holds the data."""


def signed_cookie_session_factory(secret: object, **options: Any) -> Callable[[Any], PyramidSession]:
    """Stand in for SignedCookieSessionFactory."""
    options = {"cookie_name": "session", "secure": False, **options}
    given = {RENAMED.get(name, name): value for name, value in options.items() if name in TAKEN and value is not None}
    settings = read_settings({**given, "secret": SECRET})

    def session_of(request: Any) -> PyramidSession:
        cookie = "; ".join(f"{name}={_text(value)}" for name, value in request.cookies.items())
        opened = OpenRequest(lambda app: SessionMiddleware(app, **settings), cookie)

        def send(request: Any, response: Any) -> None:
            response.headerlist.extend(("Set-Cookie", one) for one in opened.finish())

        request.add_response_callback(send)
        session: PyramidSession = FACTORY(opened)
        return session

    return session_of


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _session_factory() -> Any:
    config = Configurator()
    config.include("prism_wsgi.pyramid")
    config.commit()
    return config.registry.getUtility(ISessionFactory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of session authentication, which give their requests a dict, give them a session."""
    module = sys.modules.get("tests.test_authentication")
    if module is None:
        return
    make_dummy, make_request = module.DummyRequest.__init__, module.TestSessionAuthenticationHelper._makeRequest

    def with_session(request: Any, values: dict[str, Any] | None) -> None:
        opened = OpenRequest(lambda app: SessionMiddleware(app, secret=SECRET, secure=False, user_id_key="userid"))
        request.opened = opened  # its response must not be over
        request.session = FACTORY(opened)
        request.session.update(values or {})

    def init(request: Any, environ: Any = None, session: Any = None, **others: Any) -> None:
        make_dummy(request, environ, **others)
        with_session(request, session)

    def make(case: Any, session: Any = None) -> Any:
        request = make_request(case)
        with_session(request, session)
        return request

    module.DummyRequest.__init__ = init
    module.TestSessionAuthenticationHelper._makeRequest = make


FACTORY = _session_factory()
pyramid.session.SignedCookieSessionFactory = signed_cookie_session_factory
pyramid.testing.DummySession = PyramidSession
