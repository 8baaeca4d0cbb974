"""The fixtures of tests that hold on every store: a clock, each store in turn, and a site over it.

A plugin that test modules name: `pytest_plugins = ["tests.support.every_store"]`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prism_wsgi import MemoryStore, RedisStore, SessionMiddleware, SessionStore, SQLAlchemyStore
from prism_wsgi.testing import ManualClock
from tests.support.databases import REDIS
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application

LONG = 10**8  # seconds: the memory store is not to end sessions before their time

MakeSite = Callable[..., SessionMiddleware]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[SessionStore]:
    if request.param == "memory":
        yield MemoryStore(clock=clock, ttl=LONG)
    elif request.param == "redis":
        redis_store = RedisStore(REDIS, prefix=request.getfixturevalue("redis_prefix"), clock=clock)
        yield redis_store
        redis_store.close()
    else:
        store = SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"), clock=clock)
        yield store
        store.close()


@pytest.fixture
def make_site(store: SessionStore, clock: ManualClock) -> MakeSite:
    """Return a site over the store, with more settings."""

    def make(**settings: Any) -> SessionMiddleware:
        return SessionMiddleware(application, store=store, secret=SECRET, secure=False, clock=clock, **settings)

    return make


@pytest.fixture
def site(make_site: MakeSite) -> SessionMiddleware:
    return make_site()


@pytest.fixture
def browser(site: SessionMiddleware) -> Browser:
    return Browser(site)
