"""Placement: the processors on which the application and the databases run.

The kernel puts a database's process sometimes on the processor of its client and sometimes on another. On the same
one an answer took 25 µs, from another 50 to 80 µs, and that changed with the connection and the moment. The
difference is larger than most of what is measured here, so a run places the processes in the same way for all
subjects.
"""

import os
from enum import StrEnum
from pathlib import Path

from sqlalchemy import NullPool, create_engine

from benchmarks.machine.databases import Places


class Placement(StrEnum):
    """The processors of the databases, seen from the application."""

    APART = "apart"
    """On other processors, as if on another server."""
    TOGETHER = "together"
    """On the same one: no waiting for another processor to wake up."""
    FREE = "free"
    """Wherever the system likes."""


_OUR_THREADS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()",
    "mariadb": "SELECT tid FROM information_schema.processlist WHERE db = database()",
}


def place(places: Places, placement: Placement) -> str:
    """Place this process and the servers' side of its connections; return what was done, as a sentence."""
    available = sorted(os.sched_getaffinity(0))
    if placement is Placement.FREE or len(available) < 2:
        return "Processors: as the system chose."
    ours, theirs = {available[0]}, set(available[1:])
    os.sched_setaffinity(0, ours)
    try:
        for engine, statement in _OUR_THREADS.items():
            if engine in places:
                for thread in _ids(places[engine], statement):
                    if not _is_here(thread):
                        return f"Processors: {engine} was not placed, since it is not on this machine."
                    os.sched_setaffinity(thread, ours if placement is Placement.TOGETHER else theirs)
    except (PermissionError, ProcessLookupError) as error:
        return f"Processors: the databases were not placed ({error})."
    return f"Processors: application and databases {placement}."


def _ids(place: str, statement: str) -> list[int]:
    engine = create_engine(place, poolclass=NullPool)
    with engine.connect() as connection:
        return [int(row[0]) for row in connection.exec_driver_sql(statement)]


def _is_here(thread: int) -> bool:
    try:
        return Path(f"/proc/{thread}/comm").read_text().startswith(("postgres", "mariadbd", "mysqld", "one_conn"))
    except OSError:
        return False
