"""SQLite files that are full, read-only, or whose writers are killed."""

import json
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from prism_wsgi import SessionMiddleware, SQLAlchemyStore, StoreUnavailable
from prism_wsgi.testing import loaded, new_session
from tests.support.keys import SECRET
from tests.support.served import ROOT
from tests.support.visitors import Browser, application, put


@pytest.fixture
def url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


@pytest.fixture
def store(url: str) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(url)
    yield store
    store.close()


def limit_pages(store: SQLAlchemyStore, pages: int) -> None:
    """Let the store's connections find the disk full beyond this many pages."""

    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(store.engine, "connect", limit)


def test_full_disk_is_reported_and_what_was_stored_stays(url: str) -> None:
    full = SQLAlchemyStore(url)
    limit_pages(full, 40)
    site = SessionMiddleware(application, store=full, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(put("kept", 1))
    saved = [new_session(data=secrets.token_bytes(4000)) for _ in range(100)]
    refusals = 0
    for session in list(saved):
        try:
            full.save(session)
        except StoreUnavailable as error:
            assert "full" in str(error)
            refusals += 1
            saved.remove(session)
    assert refusals > 50
    refused = browser.visit(put("large", secrets.token_bytes(30_000)))
    assert refused.status.startswith("503")
    assert refused.set_cookies == []
    assert browser.read() == {"kept": 1}
    assert [loaded(full, session).data for session in saved] == [session.data for session in saved]
    # Room is made by deleting, which works on a full disk; nothing has to be restarted.
    full.destroy(saved.pop().id)
    full.save(new_session(data=secrets.token_bytes(2000)))
    full.close()


def test_limit_of_the_file_system_is_reported(url: str, tmp_path: Path) -> None:
    """A write that the system itself refuses, in a process that may not make files any larger."""
    program = (
        "import resource, sys\n"
        "from prism_wsgi import SQLAlchemyStore, StoreUnavailable\n"
        "from prism_wsgi.testing import new_session\n"
        "store = SQLAlchemyStore(sys.argv[1])\n"
        "kept = new_session()\n"
        "store.save(kept)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    for _ in range(1000): store.save(new_session(data=bytes(4000)))\n"
        "except StoreUnavailable as error: print('refused', error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert store.load(kept.id) is not None\n"
        "store.save(new_session(data=bytes(4000)))\n"
        "print('works again')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert "refused" in done.stdout, done.stdout + done.stderr
    assert "works again" in done.stdout, done.stdout + done.stderr


def test_read_only_file_is_read_and_reports_writes(url: str, store: SQLAlchemyStore) -> None:
    session = new_session()
    store.save(session)
    path = url.removeprefix("sqlite:///")
    reader = SQLAlchemyStore(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert loaded(reader, session).data == session.data
    for write in (
        lambda: reader.save(new_session()),
        lambda: reader.save(replace(session, version=1)),
        lambda: reader.touch(replace(session, version=1)),
        lambda: reader.destroy(session.id),
        lambda: reader.sweep(1, 1),
    ):
        with pytest.raises(StoreUnavailable, match="readonly"):
            write()
    assert loaded(reader, session).data == session.data
    reader.close()


def test_file_is_whole_after_its_writers_were_killed(url: str, tmp_path: Path) -> None:
    board, jar = tmp_path / "board", tmp_path / "jar"
    board.write_text("0" * 64 * 8)
    jar.write_text(" " * 160 * 2)
    command = [sys.executable, "-m", "tests.losses.worker"]
    plan = {"url": url, "seed": "1", "seconds": 60, "threads": 4, "timeout": 5, "cookies": {}}
    plan |= {"board": str(board), "jar": str(jar)}
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    writers = [subprocess.Popen([*command, json.dumps({**plan, "log": str(log)})], cwd=ROOT) for log in logs]
    while not all(log.exists() and log.stat().st_size > 50_000 for log in logs):
        assert [writer.poll() for writer in writers] == [None, None], "what a writer died of is above"
        time.sleep(0.01)
    for writer in writers:
        writer.kill()
        writer.wait()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
