"""Eight threads loading sessions through one store, against eight threads on raw connections that they share."""

import random
import secrets
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.report.figures import Figures
from benchmarks.subjects.floor.stores import FloorStore
from benchmarks.subjects.floor.subjects import shared_floor
from benchmarks.subjects.scenarios import SMALL_STORED
from prism_wsgi import SQLAlchemyStore, StoredSession

THREADS = 8
SESSIONS = 1000
SECONDS = 0.7  # a turn

_FAR = 10**13


def measure(places: Places, plan: Plan) -> Figures:
    """Let eight threads load, from each SQL engine."""
    return {"threads": loads_per_second(places, plan.rounds)}


def loads_per_second(places: Places, rounds: int) -> dict[str, Any]:
    """Return, for each SQL engine, the median loads a second of both, taken in turns."""
    figures: dict[str, Any] = {}
    for engine in ("sqlite", "postgresql", "mariadb"):
        if engine in places:
            store = SQLAlchemyStore(places[engine])
            raw = shared_floor(engine, places[engine], THREADS)
            ids = [_stored(number, store, raw) for number in range(SESSIONS)]
            keys = [bytes.fromhex(session_id) for session_id in ids]
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(_rate(store.load, ids))
                theirs.append(_rate(raw.load, keys))
            store.close()
            figures[engine] = {"store": statistics.median(ours), "raw": statistics.median(theirs)}
    return figures


def _stored(number: int, store: SQLAlchemyStore, raw: FloorStore) -> str:
    key = number.to_bytes(6, "big") + secrets.token_bytes(26)
    store.save(StoredSession(key.hex(), SMALL_STORED, 0, 0, _FAR))
    raw.insert(key, SMALL_STORED, _FAR)
    return key.hex()


def _rate(load: Callable[[Any], object], keys: list[Any]) -> float:
    begin = threading.Barrier(THREADS + 1)
    is_over = threading.Event()
    done = [0] * THREADS

    def work(thread: int) -> None:
        chosen = random.Random(thread)  # noqa: S311
        begin.wait()
        while not is_over.is_set():
            for key in chosen.sample(keys, 20):
                assert load(key) is not None
            done[thread] += 20

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    is_over.wait(SECONDS)
    is_over.set()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)
