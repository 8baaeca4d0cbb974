"""Every store of ours behaves as a plain dictionary would, whatever Hypothesis does to it; wrong stores do not."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from prism_wsgi import MemoryStore, RedisStore, SessionStore, SQLAlchemyStore
from prism_wsgi.testing import ManualClock
from prism_wsgi.testing.states import IDS, StoreMachine
from tests.support.databases import REDIS
from tests.support.plain_store import PlainStore
from tests.testing import wrong_stores

QUICK = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(QUICK, max_examples=60)
HUNT = settings(QUICK, max_examples=5000, phases=[Phase.generate])  # it ends at the first difference


def machine_of(make_store: Any) -> type[StoreMachine]:
    class Machine(StoreMachine):
        def make_store(self) -> SessionStore:
            store: SessionStore = make_store(self.clock)
            return store

    return Machine


def test_memory_store_behaves_as_the_model() -> None:
    run_state_machine_as_test(machine_of(lambda clock: MemoryStore(ttl=10**6, clock=clock)), settings=THOROUGH)


def test_store_of_three_verbs_behaves_as_the_model(tmp_path: Path) -> None:
    def make_store(clock: ManualClock) -> PlainStore:
        store = PlainStore(tmp_path / "plain.db", clock)
        for session_id in IDS:
            store.destroy(session_id)
        return store

    run_state_machine_as_test(machine_of(make_store), settings=QUICK)


@pytest.fixture
def sql_stores(empty_url: str) -> Iterator[Any]:
    """Makes empty stores on one database, one after the other."""
    store = SQLAlchemyStore(empty_url)

    def make_store(clock: ManualClock) -> SQLAlchemyStore:
        store._clock = clock
        store.destroy_many(IDS)
        return store

    yield make_store
    store.close()


def test_sql_store_behaves_as_the_model(sql_stores: Any) -> None:
    run_state_machine_as_test(machine_of(sql_stores), settings=QUICK)


def test_redis_store_behaves_as_the_model(redis_prefix: str) -> None:
    with redis.Redis.from_url(REDIS) as client:

        def make_store(clock: ManualClock) -> RedisStore:
            for key in client.scan_iter(f"{redis_prefix}*"):
                client.delete(key)
            return RedisStore(client, prefix=redis_prefix, clock=clock)

        run_state_machine_as_test(machine_of(make_store), settings=QUICK)


WRONG_IN_TURN = [
    contract.Store
    for _, contract in inspect.getmembers(wrong_stores, inspect.isclass)
    if issubclass(contract, wrong_stores.Contract)
    and contract not in (wrong_stores.Contract, wrong_stores.TestRightStore, wrong_stores.TestStoreWhoseReadsRewrite)
]
"""The wrong stores that are wrong without a race."""


@pytest.mark.whole
@pytest.mark.parametrize("store", WRONG_IN_TURN, ids=lambda store: store.__qualname__.partition(".")[0])
def test_wrong_store_differs_from_the_model(store: type[MemoryStore]) -> None:
    with pytest.raises((AssertionError, RecursionError)):
        run_state_machine_as_test(machine_of(lambda clock: store(ttl=10**6, clock=clock)), settings=HUNT)
