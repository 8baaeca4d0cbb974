"""The footprint of prism_wsgi: the time to import it, the memory of a session."""

import statistics
import subprocess
import sys
import tracemalloc
from typing import Any

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.report.figures import Figures
from benchmarks.subjects.scenarios import SMALL_STORED
from prism_wsgi import MemoryStore, StoredSession

SESSIONS = 50_000

_TIMED_IMPORT = """
import sys, time
began = time.process_time()
import {module}
print(time.process_time() - began, "sqlalchemy" in sys.modules, "msgspec" in sys.modules)
"""


def measure(_: Places, plan: Plan) -> Figures:
    """Measure both."""
    return {"footprint": {"import_ms": import_times(3 * plan.rounds), "bytes_per_session": bytes_per_session()}}


def import_times(rounds: int) -> dict[str, Any]:
    """Return milliseconds of processor time to import prism_wsgi and WebOb, in fresh processes, in turns."""
    times: dict[str, list[float]] = {"prism_wsgi": [], "webob": []}
    heavy = False
    for _ in range(rounds):
        for module, taken in times.items():
            command = [sys.executable, "-W", "ignore", "-c", _TIMED_IMPORT.format(module=module)]
            seconds, *imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            taken.append(float(seconds) * 1000)
            heavy = heavy or "True" in imported
    return {module: statistics.median(taken) for module, taken in times.items()} | {"imports_sqlalchemy": heavy}


def bytes_per_session() -> float:
    """Return the bytes that a session of 200 bytes takes in a MemoryStore, nothing shared with another."""
    store = MemoryStore(max_sessions=2 * SESSIONS)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(SESSIONS):
        data = bytes(bytearray(SMALL_STORED))  # bytes(SMALL_STORED) would be the same object each time
        store.save(StoredSession(number.to_bytes(32, "big").hex(), data, 0, 0, 10**13 + number))
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(store) == SESSIONS
    return (after - before) / SESSIONS
