"""The live load: reads, saves and touches at a steady pace, in another process, each one timed."""

import threading
import time
from dataclasses import dataclass, field, replace
from random import Random
from threading import Event

from prism_wsgi import SQLAlchemyStore, StoredSession
from prism_wsgi.errors import StoreError

THREADS = 4
OPERATIONS_PER_SECOND = 500
HOUR_MS = 3_600_000

Sample = tuple[float, float]
"""The moment at which an operation was due (`time.monotonic`), and the seconds that it took from then."""


@dataclass
class Samples:
    """Every operation of a live load, and the errors among them."""

    loads: list[Sample] = field(default_factory=list)
    saves: list[Sample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def live_load(url: str, ids: list[str], ready: Event, stop: Event) -> Samples:
    """Use sessions until told to stop: of ten operations seven load, two save and one touches.

    An operation that is late because the one before took long is timed from when it was due.
    """
    store = SQLAlchemyStore(url, timeout=10)
    samples = Samples()
    threads = [
        threading.Thread(target=_use, args=(store, ids[number::THREADS], stop, samples)) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    store.close()
    return samples


def _use(store: SQLAlchemyStore, ids: list[str], stop: Event, samples: Samples) -> None:
    chance = Random()
    interval = THREADS / OPERATIONS_PER_SECOND
    due = time.monotonic() + chance.random() * interval
    while not stop.is_set():
        due += interval
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
            due = time.monotonic()
        session_id = chance.choice(ids)
        kind = chance.random()
        try:
            session = store.load(session_id)
            if kind < 0.7:
                samples.loads.append((due, time.monotonic() - due))
                continue
            assert session is not None
            started = time.monotonic()
            _write(store, session, kind)
            samples.saves.append((started, time.monotonic() - started))
        except (StoreError, AssertionError) as error:
            samples.errors.append(f"{type(error).__name__}: {error}")


def _write(store: SQLAlchemyStore, session: StoredSession, kind: float) -> None:
    if kind < 0.9:
        store.save(session)
    else:
        assert store.touch(replace(session, expires_at=session.expires_at + HOUR_MS))
