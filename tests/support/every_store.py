"""The fixtures of tests that hold on every store: a clock that stands still, and each store in turn.

A plugin for all tests. The fixture of a plugin is there for every test module, and of two plugins whose fixtures have
one name, one replaces the other's; so these have names of no other.
"""

from collections.abc import Iterator

import pytest

from prism_wsgi import MemoryStore, RedisStore, SessionStore, SQLAlchemyStore
from prism_wsgi.testing import ManualClock
from tests.support.databases import REDIS

LONG = 10**8  # seconds: the memory store is not to end sessions before their time


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def every_store(request: pytest.FixtureRequest, manual_clock: ManualClock) -> Iterator[SessionStore]:
    if request.param == "memory":
        yield MemoryStore(clock=manual_clock, ttl=LONG)
    elif request.param == "redis":
        redis_store = RedisStore(REDIS, prefix=request.getfixturevalue("redis_prefix"), clock=manual_clock)
        yield redis_store
        redis_store.close()
    else:
        store = SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"), clock=manual_clock)
        yield store
        store.close()
