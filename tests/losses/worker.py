"""A client of the soak: threads that use sessions at random, and write down what they did and saw.

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

from prism_wsgi import RedisStore, Session, SessionMiddleware, SQLAlchemyStore, StoredSession, StoreUnavailable
from prism_wsgi.errors import StoreError
from prism_wsgi.stores.urls import open_store
from prism_wsgi.testing import marker_of, new_session
from tests.support.histories import MILLISECOND
from tests.support.keys import SECRET
from tests.support.visitors import Action, Browser, application, count

ID_CHARACTERS = 64
COOKIE_CHARACTERS = 160
SECRET_CHARACTERS = 43
OFTEN = {"load": 30, "save": 45, "touch": 10, "replace": 5, "destroy": 3, "sweep": 3, "count": 7, "key": 7}
OFTEN_AS_USER = {"look": 8, "login": 2, "regenerate": 3, "logout": 1}

LONG, SHORT = 600_000, 1500  # ms; how long sessions live, the short ones at most
AHEAD = 300  # ms; by how much a sweeper's clock may be ahead
_EPOCH = 4_000_000_000  # seconds; in the year 2096, so that Redis, which has a clock of its own, deletes nothing


def clock() -> float:
    """Return the time of every process here, which never jumps: a history is about which moment was before which."""
    return _EPOCH + time.monotonic()


def instant(milliseconds: int) -> int:
    """Return a moment of `clock` as histories have it: nanoseconds."""
    return (milliseconds - _EPOCH * 1000) * MILLISECOND


Store = SQLAlchemyStore | RedisStore


@dataclass
class Plan:
    """What soak.py tells a worker, as JSON."""

    url: str
    seed: str
    seconds: float
    threads: int
    timeout: float
    board: str
    jar: str
    log: str
    cookies: dict[str, str]


class Board:
    """Words in a file that every process sees, such as the ids in use; one may be torn or out of date."""

    def __init__(self, path: Path, width: int) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._width = width
        self.slots = os.fstat(self._file).st_size // width

    def read(self, slot: int) -> str:
        return os.pread(self._file, self._width, slot * self._width).decode().strip()

    def write(self, slot: int, word: str) -> None:
        os.pwrite(self._file, word.ljust(self._width).encode(), slot * self._width)


class Log:
    """Lines of JSON, each out of the process before the next call is made."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self, work: Callable[[], Any], **named: Any) -> Any:
        """Make a call of a store; write down that it begins, and how it ended. Returns None for a failure."""
        number = self.begin(**named)
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
        self.end(number, outcome=outcome, seen=seen)
        return result

    def begin(self, **named: Any) -> str:
        """Write down that something begins."""
        number = secrets.token_hex(8)
        self._write(call=number, began=time.monotonic_ns(), **named)
        return number

    def end(self, number: str, **named: Any) -> None:
        """Write down how it ended."""
        self._write(call=number, ended=time.monotonic_ns(), **named)

    def _write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Client(threading.Thread):
    """One thread that does one thing after another."""

    def __init__(self, plan: Plan, number: int, store: Store, log: Log) -> None:
        super().__init__()
        self._random = random.Random(f"{plan.seed}-{number}")
        self._end = time.monotonic() + plan.seconds
        self._store, self._log = store, log
        self._board, self._jar = Board(Path(plan.board), ID_CHARACTERS), Board(Path(plan.jar), COOKIE_CHARACTERS)
        self._key = f"{plan.seed}-{number}"
        self._sequence = 0
        self._site = SessionMiddleware(
            application, store=store, secret=SECRET, secure=False, cookie_on="write", clock=clock
        )
        self._cookies = plan.cookies
        self.is_done = False

    def run(self) -> None:
        often = OFTEN | OFTEN_AS_USER
        while time.monotonic() < self._end:
            (kind,) = self._random.choices(list(often), list(often.values()))
            self._act(kind)
        self.is_done = True

    def _act(self, kind: str) -> None:
        self._sequence += 1
        if kind == "count":
            self._visit("count", count)
        elif kind == "key":
            self._visit("key", lambda session: session.update({self._key: self._sequence}))
        elif kind == "sweep":
            self._sweep()
        elif kind in OFTEN_AS_USER:
            self._be_a_user(kind, self._random.randrange(self._jar.slots))
        else:
            self._use(kind, self._random.randrange(self._board.slots))

    # Sessions as the store has them

    def _use(self, kind: str, slot: int) -> None:
        session_id = self._board.read(slot)
        if kind == "destroy":
            self._log.call(lambda: self._store.destroy(session_id), kind="destroy", id=session_id)
            return
        stored = self._log.call(lambda: self._store.load(session_id), kind="load", id=session_id)
        if stored is None or stored.superseded:
            self._create(slot, session_id)
            return
        until = max(stored.expires_at, self._expiry(slot))
        if kind == "save":
            changed = replace(stored, data=secrets.token_hex(8).encode(), expires_at=until)
            named = {"version": stored.version, "data": changed.data.decode(), "expires": instant(until)}
            self._log.call(lambda: self._store.save(changed), kind="save", id=session_id, **named)
        elif kind == "touch":
            used = replace(stored, expires_at=until)
            named = {"version": stored.version, "expires": instant(until)}
            self._log.call(lambda: self._store.touch(used), kind="touch", id=session_id, **named)
        elif kind == "replace":
            self._replace(slot, stored, until)

    def _create(self, slot: int, previous: str) -> None:
        new = self._new_session(self._expiry(slot))
        named = {"data": new.data.decode(), "expires": instant(new.expires_at)}
        self._log.call(lambda: self._store.save(new), kind="create", id=new.id, **named)
        if self._board.read(slot) == previous:
            self._board.write(slot, new.id)

    def _replace(self, slot: int, stored: StoredSession, until: int) -> None:
        new = self._new_session(until)
        marker = replace(marker_of(stored), version=stored.version, expires_at=until)
        named = {
            "version": stored.version,
            "data": new.data.decode(),
            "new_id": new.id,
            "expires": instant(until),
        }
        self._log.call(lambda: self._store.replace(marker, new), kind="replace", id=stored.id, **named)
        self._board.write(slot, new.id)

    def _sweep(self) -> None:
        if isinstance(self._store, RedisStore):
            return  # it has none
        store, before = self._store, int(clock() * 1000) + self._random.choice((0, AHEAD))
        self._log.call(lambda: store.sweep(before, 50), kind="sweep", id="", expires=instant(before))

    def _expiry(self, slot: int) -> int:
        """Return until when a session used now is to live: those in the odd slots expire while others use them."""
        return int(clock() * 1000) + (self._random.randint(1, SHORT) if slot % 2 else LONG)

    def _new_session(self, expires_at: int) -> StoredSession:
        return new_session(data=secrets.token_hex(8).encode(), expires_at=expires_at)

    # Sessions as browsers have them

    def _visit(self, kind: str, action: Action) -> None:
        """Change the session that everybody shares, as a request does."""

        def visit() -> None:
            self._request(self._cookies, action)

        self._log.call(visit, kind=kind, id=self._key, version=self._sequence)

    def _be_a_user(self, kind: str, household: int) -> None:
        """Make a request with the cookie that a household shares; whoever is sent another one leaves it to all."""
        cookie = self._jar.read(household)
        new_user = f"{self._key}-{self._sequence}" if kind == "login" else ""
        users: list[str] = []

        def act(session: Session) -> None:
            users.append(session.user or "")
            if kind == "login":
                session.login(new_user)
            elif kind != "look":
                getattr(session, kind)()

        number = self._log.begin(kind=kind, cookie=cookie[:SECRET_CHARACTERS], new_user=new_user)
        try:
            browser = self._request({self._site.site.cookies.name: cookie} if cookie else {}, act)
        except StoreUnavailable:
            self._log.end(number, outcome="maybe")
            return
        kept = browser.cookies.get(self._site.site.cookies.name, "")
        new_cookie = "" if kept == cookie else kept[:SECRET_CHARACTERS]
        self._log.end(number, outcome="ok", user=users[-1], new_cookie=new_cookie)
        if kept != cookie:
            self._jar.write(household, kept)

    def _request(self, cookies: dict[str, str], action: Action) -> Browser:
        """Make one request; raise StoreUnavailable when it is refused."""
        browser = Browser(self._site)
        browser.cookies = dict(cookies)
        answer = browser.visit(action)
        if not answer.status.startswith("200"):
            assert not answer.set_cookies, answer
            raise StoreUnavailable(answer.status)
        return browser


def store_at(url: str, timeout: float | None = None) -> Store:
    """Return the store of a soak."""
    store = open_store(url, timeout=timeout, clock=clock)
    assert isinstance(store, SQLAlchemyStore | RedisStore)
    return store


def connections_in_use(store: Store) -> int:
    if isinstance(store, RedisStore):
        nodes: Any = store._server.nodes
        return sum(nodes.connections(one).in_use for one in nodes.masters())
    return int(store._connections.in_use)  # type: ignore[attr-defined]


def main(plan: Plan) -> None:
    logging.getLogger("prism_wsgi").setLevel(logging.CRITICAL)  # every fault is an event
    store = store_at(plan.url, timeout=plan.timeout)
    log = Log(Path(plan.log))
    clients = [Client(plan, number, store, log) for number in range(plan.threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert all(client.is_done for client in clients), "what a thread raised is above"
    in_use = connections_in_use(store)
    assert in_use == 0, f"{in_use} connections did not come back"
    store.close()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
