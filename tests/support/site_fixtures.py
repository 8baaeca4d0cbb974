"""The fixtures of the HTTP tests: a clock, every kind of store, and a site of its own for each test.

A plugin that the test modules name instead of a conftest.py: two modules called conftest cannot be type-checked
in one run.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_wsgi import MemoryStore, SQLAlchemyStore, migrate
from tests.support.browsing import Clock, Site, ThreeVerbStore, WatchedStore

LONG = 10**8  # seconds: the memory store is not to end sessions before their time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the sessions table, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "sessions.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["memory", "sqlite", "three verbs"])
def store(
    request: pytest.FixtureRequest, clock: Clock, migrated_file: Path, tmp_path: Path
) -> Iterator[ThreeVerbStore]:
    """Each kind of store in turn, watched."""
    if request.param == "memory":
        yield WatchedStore(MemoryStore(clock=clock, ttl=LONG))
    elif request.param == "three verbs":
        yield ThreeVerbStore(MemoryStore(clock=clock, ttl=LONG))
    else:
        path = shutil.copy(migrated_file, tmp_path / "watched.db")
        sql_store = SQLAlchemyStore(f"sqlite:///{path}", clock=clock)
        yield WatchedStore(sql_store)
        sql_store.close()


@pytest.fixture
def site(store: ThreeVerbStore, clock: Clock) -> Site:
    """A site on each kind of store in turn."""
    return Site(store, clock)
