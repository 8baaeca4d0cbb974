"""Sessions that are ended while they move to another id, on every store."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from prism_wsgi import MemoryStore, RedisStore, Session, SessionMiddleware, SQLAlchemyStore, StoredSession, migrate
from prism_wsgi.stores.sql.schema import sweep_bucket
from prism_wsgi.testing import Steps, every_interleaving, marker_of, new_session
from tests.support.browsing import ThreeVerbStore
from tests.support.databases import REDIS
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application
from tests.support.waiting import eventually


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "redis":
        store: Any = RedisStore(REDIS, prefix=request.getfixturevalue("redis_prefix"))
    else:
        url: str = request.getfixturevalue(f"{request.param}_url")
        migrate.upgrade(url)
        store = SQLAlchemyStore(url)
    yield store
    store.close()


def site(store: Any) -> SessionMiddleware:
    return SessionMiddleware(application, store=store, secret=SECRET, secure=False)


@pytest.mark.parametrize("looks_first", [False, True], ids=["logs out", "looks, then logs out"])
def test_logout_wins_over_a_session_that_moves_in_every_order(store: Any, looks_first: bool) -> None:
    def scenario(steps: Steps) -> Any:
        browser = Browser(site(store))
        browser.do(lambda session: session.login("alice"))
        browser._site = site(steps.of(store))

        def end(session: Session) -> None:
            if looks_first:
                assert session.user in ("alice", None)
            session.logout()

        def check() -> None:
            assert list(store.find(user="alice")) == []
            store.destroy_all("alice")

        return [lambda: browser.visit(lambda session: session.regenerate()), lambda: browser.visit(end)], check

    assert every_interleaving(scenario) >= 5


@pytest.mark.parametrize("looks_first", [False, True], ids=["logs out", "looks, then logs out"])
@pytest.mark.parametrize("moves", [1, 2], ids=["moves", "moves twice"])
def test_logout_wins_over_a_session_that_moves_in_a_store_of_three_verbs(moves: int, looks_first: bool) -> None:
    def scenario(steps: Steps) -> Any:
        memory = MemoryStore()
        store = ThreeVerbStore(memory)
        browser = Browser(site(store))
        browser.do(lambda session: session.login("alice"))
        browser._site = site(steps.of(store))

        def end(session: Session) -> None:
            if looks_first:
                assert session.user in ("alice", None)
            session.logout()

        def move() -> None:
            mover = Browser(browser._site)
            mover.cookies = dict(browser.cookies)
            for _ in range(moves):
                mover.visit(lambda session: session.regenerate() if session.user else None)

        def check() -> None:
            assert memory.find(user="alice") == []

        return [move, lambda: browser.visit(end)], check

    assert every_interleaving(scenario, limit=300) >= 5


@pytest.fixture(params=["postgresql", "mariadb"])
def server_store(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyStore]:
    url: str = request.getfixturevalue(f"{request.param}_url")
    migrate.upgrade(url)
    store = SQLAlchemyStore(url)
    yield store
    store.close()


WAITING_FOR_US = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))",
    "mysql": (
        "SELECT count(*) FROM information_schema.innodb_lock_waits JOIN information_schema.innodb_trx "
        "ON trx_id = blocking_trx_id WHERE trx_mysql_thread_id = CONNECTION_ID()"
    ),
}


def move(connection: Connection, store: SQLAlchemyStore, old: StoredSession, new: StoredSession) -> None:
    """Do what `replace` does, in a transaction that stays open."""
    table, marker = store.table, marker_of(old, new)
    retired = {"data": marker.data, "user_id": marker.user, "superseded": True, "version": 2}
    connection.execute(update(table).where(table.c.id == bytes.fromhex(old.id)).values(**retired))
    connection.execute(
        insert(table).values(
            id=bytes.fromhex(new.id),
            data=new.data,
            version=1,
            created_at=new.created_at,
            expires_at=new.expires_at,
            user_id=new.user,
            superseded=False,
            sweep_bucket=sweep_bucket(new.expires_at),
        )
    )


@pytest.mark.parametrize(
    "end",
    [
        lambda store, one: store.destroy(one.id),
        lambda store, one: store.destroy_many([one.id]),
        lambda store, one: store.destroy_all(one.user),
    ],
    ids=["destroy", "destroy_many", "destroy_all"],
)
def test_session_is_ended_that_has_begun_to_move(
    server_store: SQLAlchemyStore, end: Callable[[SQLAlchemyStore, StoredSession], object]
) -> None:
    """The row is locked by whoever moves it: the DELETE waits, and what it finds then is a marker."""
    old = new_session(user="alice")
    new = replace(new_session(user="alice"), expires_at=old.expires_at)
    server_store.save(old)
    ending = threading.Thread(target=end, args=(server_store, old))
    waiting = WAITING_FOR_US[server_store.engine.dialect.name]
    engine = server_store.engine.execution_options(isolation_level="READ COMMITTED")
    with engine.begin() as connection:
        move(connection, server_store, old, new)
        ending.start()
        eventually(
            lambda: connection.exec_driver_sql(waiting).scalar_one(),
            "nobody waits for the session that moves",
            pause=0.15,  # InnoDB shows the same again to whoever asks ten times a second
        )
    ending.join()
    assert server_store.find_all() == []
