"""Redis servers that tests may kill, started once, for the test modules that name this one as a plugin."""

import itertools
from collections.abc import Iterator

import pytest

from tests.support.own_redis import OwnCluster, Watched, own_cluster, own_sentinel
from tests.support.own_servers import free_port

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[OwnCluster]:
    with own_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _watched() -> Iterator[Watched]:
    with own_sentinel() as watched:
        yield watched


@pytest.fixture
def cluster(_cluster: OwnCluster) -> OwnCluster:
    """A cluster in which every slot has a master and a replica."""
    _cluster.wait_until_whole()
    return _cluster


@pytest.fixture
def watched(_watched: Watched) -> Watched:
    """A master and a replica behind three sentinels."""
    _watched.wait_until_whole()
    return _watched


@pytest.fixture
def prefix() -> str:
    """What the names of this test's keys begin with, on servers that are thrown away."""
    return f"test{next(_numbers)}:"


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    return free_port()
