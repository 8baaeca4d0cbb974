"""Servers that are killed or turn read-only, and what was acknowledged before."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prism_wsgi import SessionMiddleware, SQLAlchemyStore, StoredSession, StoreError, StoreUnavailable, migrate
from prism_wsgi.testing import loaded, new_session
from tests.support.keys import SECRET
from tests.support.own_servers import OwnServer, own_mariadb, own_postgresql
from tests.support.visitors import Browser, application, put
from tests.support.waiting import PATIENCE, eventually

WRITERS = 4


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    start = {"postgresql": own_postgresql, "mariadb": own_mariadb}[request.param]
    with start() as server:
        migrate.upgrade(server.url)
        yield server


@pytest.fixture
def store(server: OwnServer) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(server.url, timeout=2)
    yield store
    store.close()


class Ledger:
    """What was acknowledged, on the disk before the next thing is done."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._path = path
        self._lock = threading.Lock()
        self.lines = 0

    def write(self, *words: str) -> None:
        with self._lock:
            self._file.write(" ".join(words).encode() + b"\n")
            os.fsync(self._file.fileno())
            self.lines += 1

    def close(self) -> None:
        self._file.close()

    def read(self) -> list[list[str]]:
        return [line.split() for line in self._path.read_text().splitlines()]

    def wait_for(self, lines: int) -> None:
        eventually(lambda: self.lines >= lines, lambda: f"{self.lines} of {lines} lines")


class Writer(threading.Thread):
    """Creates sessions, saves each twice and destroys every third, and enters in the ledger what succeeded."""

    def __init__(self, store: SQLAlchemyStore, ledger: Ledger, stop: threading.Event) -> None:
        super().__init__()
        self._store, self._ledger, self._stop_event = store, ledger, stop
        self.answered_at = 0.0

    def run(self) -> None:
        turn = 0
        while not self._stop_event.is_set():
            turn += 1
            session = new_session(data=b"1")
            try:
                self._use(session, destroys=turn % 3 == 0)
            except StoreError:
                continue
            self.answered_at = time.monotonic()

    def _use(self, session: StoredSession, *, destroys: bool) -> None:
        self._store.save(session)
        self._ledger.write("saved", session.id, "1")
        for version in (1, 2):
            self._ledger.write("saving", session.id, str(version + 1))
            self._store.save(replace(session, version=version, data=b"%d" % (version + 1)))
            self._ledger.write("saved", session.id, str(version + 1))
        if destroys:
            self._ledger.write("destroying", session.id)
            self._store.destroy(session.id)
            self._ledger.write("destroyed", session.id)


def compare(store: SQLAlchemyStore, ledger: Ledger) -> None:
    """What was acknowledged is there, and what was ended is not."""
    saved: dict[str, int] = {}
    tried: dict[str, int] = {}
    ending: set[str] = set()
    ended: set[str] = set()
    for word, session_id, *rest in ledger.read():
        if word == "saved":
            saved[session_id] = int(rest[0])
        elif word == "saving":
            tried[session_id] = int(rest[0])
        else:
            (ending if word == "destroying" else ended).add(session_id)
    assert saved
    for session_id, version in saved.items():
        stored = store.load(session_id)
        if session_id in ended:
            assert stored is None
        elif stored is None:
            assert session_id in ending, f"{session_id} was lost"
        else:
            assert version <= stored.version <= max(version, tried.get(session_id, 0))
            assert stored.data == b"%d" % stored.version


def test_what_was_acknowledged_outlives_a_killed_server(
    server: OwnServer, store: SQLAlchemyStore, tmp_path: Path
) -> None:
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(lambda session: session.login("alice"))
    browser.do(put("kept", 1))
    cookies = dict(browser.cookies)
    ledger, stop = Ledger(tmp_path / "ledger"), threading.Event()
    writers = [Writer(store, ledger, stop) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            ledger.wait_for(ledger.lines + 100)
            server.kill()
            refused = browser.visit(put("late", 1))
            assert refused.status.startswith("503")
            assert refused.set_cookies == []
            server.start()
            back = time.monotonic()
            eventually(lambda: min(writer.answered_at for writer in writers) >= back, "writers are still refused")  # noqa: B023
    finally:
        stop.set()
        for writer in writers:
            writer.join()
        ledger.close()
    compare(store, ledger)
    assert browser.cookies == cookies
    assert browser.read() == {"kept": 1}
    assert browser.do(lambda session: session.user) == "alice"
    assert store._connections.in_use == 0  # type: ignore[attr-defined]


READ_ONLY = {
    "postgresql": ["ALTER SYSTEM SET default_transaction_read_only = {0}", "SELECT pg_reload_conf()"],
    "mysql": ["SET GLOBAL read_only = {0}"],
}


def refusal_of(store: SQLAlchemyStore) -> str:
    """Return why the store refuses to save a session, or nothing."""
    try:
        store.save(new_session())
    except StoreUnavailable as error:
        return str(error)
    return ""


def test_server_that_turns_read_only_is_reported_and_used_again_when_it_does_not(
    server: OwnServer, store: SQLAlchemyStore
) -> None:
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(put("kept", 1))
    statements = READ_ONLY[store.engine.dialect.name]
    server.execute(*(statement.format("on") for statement in statements))
    try:
        refusal = eventually(lambda: refusal_of(store))  # PostgreSQL's processes hear of it one by one
        assert "read" in refusal.lower()
        refused = browser.visit(put("late", 1))
        assert refused.status.startswith("503")
        assert refused.set_cookies == []
        assert browser.read() == {"kept": 1}
    finally:
        server.execute(*(statement.format("off") for statement in statements))
    eventually(lambda: browser.visit(put("later", 1)).status == "200 OK", "writing is still refused")
    assert browser.read() == {"kept": 1, "later": 1}
    assert store._connections.in_use == 0  # type: ignore[attr-defined]


class MeetingStore(SQLAlchemyStore):
    """A store whose first transaction waits for another's, with a row of its own locked."""

    meeting: threading.Barrier | None = None

    def _save(self, cursor: object, session: StoredSession) -> None:
        super()._save(cursor, session)  # type: ignore[arg-type]
        meeting, self.meeting = self.meeting, None
        if meeting is not None:
            meeting.wait(PATIENCE)


def test_deadlock_is_resolved_with_one_winner(server: OwnServer) -> None:
    first, second = new_session(), new_session()
    stores = [MeetingStore(server.url, timeout=5) for _ in range(2)]
    stores[0].save(first)
    stores[0].save(second)
    meeting = threading.Barrier(2)
    outcomes: list[str] = []

    def replace_both(store: MeetingStore, name: bytes, *order: StoredSession) -> None:
        store.meeting = meeting
        one, other = (replace(session, version=1, data=name) for session in order)
        try:
            store.replace(one, other)
        except StoreError as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("ok")

    threads = [
        threading.Thread(target=replace_both, args=(stores[0], b"a", first, second)),
        threading.Thread(target=replace_both, args=(stores[1], b"b", second, first)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["SessionConflict", "ok"]
    stored = [loaded(stores[0], session) for session in (first, second)]
    assert stored[0].data == stored[1].data
    assert [one.version for one in stored] == [2, 2]
    for store in stores:
        store.close()
