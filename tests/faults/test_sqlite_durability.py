"""What `sqlite_synchronous` promises: whether an acknowledged write is on the disk, on each connection there is."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from prism_wsgi import ConfigError, SQLAlchemyStore
from prism_wsgi.testing import new_session
from tests.support.visitors import run_in_processes

COMMITS = 20
LEVELS = {"NORMAL": 1, "FULL": 2}


@pytest.fixture
def url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


@pytest.fixture(params=LEVELS)
def setting(request: pytest.FixtureRequest) -> str:
    setting: str = request.param
    return setting


@pytest.fixture
def store(url: str, setting: str) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(url, sqlite_synchronous=setting)
    yield store
    store.close()


def levels_of(store: SQLAlchemyStore, count: int = 3) -> list[int]:
    """Return what is in effect on so many connections in use at once, and on those of maintenance."""
    leases = [store._connections.acquire() for _ in range(count)]
    levels = []
    for lease in leases:
        with lease:
            lease.connection.cursor.execute("PRAGMA synchronous")
            levels.append(lease.connection.cursor.fetchall()[0][0])
    return [*levels, store._execute(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar_one())]


def test_setting_is_in_effect_on_every_connection(store: SQLAlchemyStore, setting: str) -> None:
    store.save(new_session())
    assert set(levels_of(store)) == {LEVELS[setting]}


def test_setting_is_in_effect_after_connecting_anew(store: SQLAlchemyStore, setting: str) -> None:
    levels_of(store)
    store._connections.drop_idle()
    store.engine.dispose()
    assert set(levels_of(store)) == {LEVELS[setting]}


def test_setting_is_in_effect_in_a_forked_process(store: SQLAlchemyStore, setting: str) -> None:
    levels_of(store)
    assert run_in_processes([lambda: levels_of(store)] * 2) == [[LEVELS[setting]] * 4] * 2


def test_setting_is_refused_where_it_would_not_be_in_effect(url: str) -> None:
    engine = create_engine(url)
    with pytest.raises(ConfigError, match="PRAGMA synchronous"):
        SQLAlchemyStore(engine, sqlite_synchronous="FULL")
    engine.dispose()


WRITER = """
import os, sys
from dataclasses import replace
from prism_wsgi import SQLAlchemyStore
from prism_wsgi.testing import new_session

store, verb, commits = SQLAlchemyStore(sys.argv[1], sqlite_synchronous=sys.argv[2]), sys.argv[3], int(sys.argv[4])
store.save(new_session())  # a log that has just begun is synchronised whatever the setting
for _ in range(commits):
    session = new_session()
    if verb != "save":
        store.save(session)
    if verb == "destroy":
        calls = [lambda: store.destroy(session.id)]
    elif verb == "touch":
        calls = [lambda: store.touch(replace(session, version=1, expires_at=session.expires_at + 1000))]
    elif verb == "replace":
        calls = [lambda: store.replace(replace(session, version=1, data=b"", superseded=True), new_session())]
    else:
        calls = [lambda: store.save(session), lambda: store.save(replace(session, version=1))]
    for call in calls:
        os.write(1, b"asked\\n")
        call()
        os.write(1, b"acknowledged %s\\n" % session.id.encode())
"""


@pytest.mark.parametrize("verb", ["save", "touch", "destroy", "replace"])
def test_acknowledged_write_is_on_the_disk_with_full_only(url: str, setting: str, verb: str, tmp_path: Path) -> None:
    """By what the process asks of the system: fdatasync() of the write-ahead log before each acknowledgement."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed, to see what is written to disk")
    trace = tmp_path / "trace"
    watch = [strace, "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,write", "-s", "12", "-o", str(trace)]
    if subprocess.run([*watch, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not watch processes here")
    command = [sys.executable, "-c", WRITER, url, setting, verb, str(COMMITS)]
    subprocess.run([*watch, *command], check=True, capture_output=True)
    calls = re.findall(r'write\(1<[^>]*>, "(asked|acknowledged)|(sync)\(\d+<[^>]*-wal>', trace.read_text())
    waits = re.findall("A(S*)B", "".join({"asked": "A", "acknowledged": "B"}.get(said, "S") for said, _ in calls))
    assert len(waits) == COMMITS * (2 if verb == "save" else 1)
    assert all(waits) if setting == "FULL" else not any(waits)


def test_acknowledged_writes_outlive_a_killed_process(url: str, setting: str) -> None:
    command = [sys.executable, "-c", WRITER, url, setting, "save", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        first = [next(writer.stdout) for _ in range(400)]
        writer.kill()
        said = [*first, *writer.stdout]
    acknowledged = [line.split()[1] for line in said if re.fullmatch(r"acknowledged \w{64}\n", line)]
    assert len(acknowledged) >= 200
    store = SQLAlchemyStore(url)
    last = acknowledged[-1]  # saved once more, perhaps, without having said so
    for session_id in acknowledged:
        stored = store.load(session_id)
        assert stored is not None
        assert stored.version == acknowledged.count(session_id) or session_id == last
    store.close()
