"""One user's story, told alike on each store."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from prism_wsgi import MemoryStore, RedisStore, Session, SQLAlchemyStore
from tests.support import databases
from tests.support.browsing import Clock, Site, read
from tests.support.observing import Recorder

STORES = ["memory", "sqlite", "postgresql", "mariadb", "redis"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryStore(clock=clock, ttl=10**8)
    elif request.param == "redis":
        prefix = request.getfixturevalue("redis_prefix")
        with closing(RedisStore(databases.REDIS, prefix=prefix)) as redis_store:
            yield redis_store
    else:
        with closing(SQLAlchemyStore(request.getfixturevalue(f"empty_{request.param}_url"))) as sql_store:
            yield sql_store


@pytest.fixture
def clock() -> Clock:
    from time import time

    return Clock(time())


def test_a_story_of_logins_is_told_alike_on_each_store(store: Any, clock: Clock) -> None:
    recorder = Recorder()
    site = Site(store, clock, observers=[recorder], max_sessions_per_user=2)
    first, second, third = (site.browser() for _ in range(3))
    first.visit(lambda session: session.login("ann"))
    assert recorder.names() == ["started", "logged_in"]
    first.visit(lambda session: session.regenerate())
    first.visit(lambda session: session.confirm_login())
    assert recorder.names() == ["id_changed", "confirmed"]
    clock.advance(1)
    second.visit(lambda session: session.login("ann"))
    clock.advance(1)
    third.visit(lambda session: session.login("ann"))
    assert recorder.names() == ["started", "logged_in", "started", "logged_in", "ended:limit"]
    assert first.visit(lambda session: session.user).result is None
    assert recorder.names() == ["rejected:unknown_id"]
    assert third.visit(lambda session: session.logout_elsewhere()).result == 1
    assert recorder.names() == ["ended:revoked"]
    third.visit(lambda session: session.impersonate("bob"))
    third.visit(lambda session: session.stop_impersonating())
    third.visit(lambda session: session.login("carl"))
    assert recorder.names() == ["logged_in", "logged_out", "ended:replaced_user", "logged_in"]
    third.visit(Session.logout)
    assert recorder.names() == ["logged_out", "ended:logout"]
    third.visit(read("n"))
    assert recorder.take() == []
    assert {call.outcome for call in recorder.calls} == {"ok"}
