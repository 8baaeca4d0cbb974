"""A client of the soak: threads that use the sessions on a board at random, and write down what they did and saw.

Run by soak.py, in processes of its own that may be killed at any moment: each call is written down before it is made,
and what came of it afterwards.
"""

import json
import logging
import os
import random  # a run can be repeated from its seed
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.extend(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))

from visitors import Browser, application, count

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore, StoredSession, StoreUnavailable
from prism_wsgi.errors import StoreError
from prism_wsgi.testing import marker_of, new_session

SECRET = "0123456789abcdef0123456789abcdef-for-tests"
ID_CHARACTERS = 64
OFTEN = {"load": 30, "save": 45, "touch": 10, "replace": 5, "destroy": 3, "count": 7, "key": 7}


@dataclass
class Plan:
    """What soak.py tells a worker, as JSON."""

    url: str
    seed: str
    seconds: float
    threads: int
    timeout: float
    board: str
    log: str
    cookies: dict[str, str]


class Board:
    """The ids of the sessions in use, in a file that every process sees; a slot may be torn or out of date."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self.slots = os.fstat(self._file).st_size // ID_CHARACTERS

    def read(self, slot: int) -> str:
        return os.pread(self._file, ID_CHARACTERS, slot * ID_CHARACTERS).decode()

    def write(self, slot: int, session_id: str) -> None:
        os.pwrite(self._file, session_id.encode(), slot * ID_CHARACTERS)


class Log:
    """Lines of JSON, each out of the process before the next call is made."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self, work: Callable[[], Any], **named: Any) -> Any:
        """Make a call of a store; write down that it begins, and how it ended. Returns None for a failure."""
        number = secrets.token_hex(8)
        self._write(call=number, began=time.monotonic_ns(), **named)
        outcome, seen, result = "ok", None, None
        try:
            result = work()
        except StoreUnavailable:
            outcome = "maybe"
        except StoreError:
            outcome = "refused"
        if named["kind"] == "load" and isinstance(result, StoredSession):
            seen = [result.version, result.data.decode(), result.superseded]
        if result is False:
            outcome = "refused"
        self._write(call=number, ended=time.monotonic_ns(), outcome=outcome, seen=seen)
        return result

    def _write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Client(threading.Thread):
    """One thread that does one thing after another."""

    def __init__(self, plan: Plan, number: int, store: SQLAlchemyStore, log: Log, board: Board) -> None:
        super().__init__()
        self._random = random.Random(f"{plan.seed}-{number}")
        self._end = time.monotonic() + plan.seconds
        self._store, self._log, self._board = store, log, board
        self._key = f"{plan.seed}-{number}"
        self._sequence = 0
        site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
        self._browser = Browser(site)
        self._browser.cookies = dict(plan.cookies)
        self._cookies = plan.cookies
        self.is_done = False

    def run(self) -> None:
        while time.monotonic() < self._end:
            (kind,) = self._random.choices(list(OFTEN), list(OFTEN.values()))
            self._act(kind, self._random.randrange(self._board.slots))
        self.is_done = True

    def _act(self, kind: str, slot: int) -> None:
        if kind == "count":
            self._visit("count", count)
        elif kind == "key":
            self._sequence += 1
            self._visit("key", lambda session: session.update({self._key: self._sequence}))
        else:
            self._use(kind, slot)

    def _use(self, kind: str, slot: int) -> None:
        session_id = self._board.read(slot)
        if kind == "destroy":
            self._log.call(lambda: self._store.destroy(session_id), kind="destroy", id=session_id)
            return
        stored = self._log.call(lambda: self._store.load(session_id), kind="load", id=session_id)
        if stored is None or stored.superseded:
            self._create(slot, session_id)
        elif kind == "save":
            changed = replace(stored, data=secrets.token_hex(8).encode())
            named = {"version": stored.version, "data": changed.data.decode()}
            self._log.call(lambda: self._store.save(changed), kind="save", id=session_id, **named)
        elif kind == "touch":
            self._log.call(lambda: self._store.touch(session_id, stored.expires_at + 1), kind="touch", id=session_id)
        elif kind == "replace":
            self._replace(slot, stored)

    def _create(self, slot: int, previous: str) -> None:
        new = new_session(data=secrets.token_hex(8).encode())
        self._log.call(lambda: self._store.save(new), kind="create", id=new.id, data=new.data.decode())
        if self._board.read(slot) == previous:
            self._board.write(slot, new.id)

    def _replace(self, slot: int, stored: StoredSession) -> None:
        new = new_session(data=secrets.token_hex(8).encode())
        marker = replace(marker_of(stored), version=stored.version)
        named = {"version": stored.version, "data": new.data.decode(), "new_id": new.id}
        self._log.call(lambda: self._store.replace(marker, new), kind="replace", id=stored.id, **named)
        self._board.write(slot, new.id)

    def _visit(self, kind: str, action: Callable[[Session], object]) -> None:
        """Change the session that everybody shares, as a request does."""

        def visit() -> None:
            self._browser.cookies = dict(self._cookies)
            answer = self._browser.visit(action)
            if not answer.status.startswith("200"):
                assert not answer.set_cookies, answer
                raise StoreUnavailable(answer.status)

        self._log.call(visit, kind=kind, id=self._key, version=self._sequence)


def main(plan: Plan) -> None:
    logging.getLogger("prism_wsgi").setLevel(logging.CRITICAL)  # every fault is an event
    store = SQLAlchemyStore(plan.url, timeout=plan.timeout)
    log, board = Log(Path(plan.log)), Board(Path(plan.board))
    clients = [Client(plan, number, store, log, board) for number in range(plan.threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert all(client.is_done for client in clients), "what a thread raised is above"
    idle = store._connections._permits.qsize()  # type: ignore[attr-defined]
    assert idle == store._connections._limit, f"{idle} permits came back"  # type: ignore[attr-defined]
    store.close()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
