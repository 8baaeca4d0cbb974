"""The floor: the least code that does a session middleware's work, by hand, on the raw driver.

A signed cookie, an id, msgpack, one prepared statement at a time on one held connection. No protection against
any attack, no merging, no retries, no reconnecting: a limit to compare with, nothing to use.
"""

import hashlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgpack

SESSION_KEY = "floor.session"
TTL = 14 * 24 * 3600

_HOUR_MS = 3_600_000

_ResultT = TypeVar("_ResultT")


class FloorStore(Protocol):
    """Rows of (id, data, expiry in Unix ms)."""

    def load(self, key: bytes) -> tuple[bytes, int] | None: ...
    def insert(self, key: bytes, data: bytes, expires_at: int) -> None: ...
    def update(self, key: bytes, data: bytes, expires_at: int) -> None: ...
    def touch(self, key: bytes, expires_at: int) -> None: ...
    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None: ...


class FloorSession:
    """A mapping that is loaded at the first access."""

    values: dict[str, Any] | None = None
    is_stored = changed = renewed = False
    retired: bytes | None = None

    def __init__(self, store: FloorStore, key: bytes | None) -> None:
        self.store = store
        self.key = key

    def load(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self.key is not None:
            row = self.store.load(self.key)
            if row is not None and row[1] > time.time() * 1000:
                values = msgpack.unpackb(row[0])
                self.is_stored = True
        self.values = values
        return values

    def get(self, name: str, default: Any = None) -> Any:
        values = self.values
        if values is None:
            values = self.load()
        return values.get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        values = self.values
        if values is None:
            values = self.load()
        values[name] = value
        self.changed = True

    def update(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self[name] = value

    def login(self, user: str) -> None:
        """Go on under a new id."""
        self["user"] = user
        self.retired, self.key = self.key, _new_key()

    def save(self) -> None:
        expires_at = int((time.time() + TTL) * 1000)
        if self.changed:
            data = msgpack.packb(self.values)
            if self.key is None:
                self.key = _new_key()
            if self.retired is not None:
                self.store.replace(self.retired, self.key, data, expires_at)
            elif self.is_stored:
                self.store.update(self.key, data, expires_at)
            else:
                self.store.insert(self.key, data, expires_at)
        elif self.renewed:
            assert self.key is not None
            self.store.touch(self.key, expires_at)


class FloorMiddleware:
    """Cookie `floor=<id in hex><HMAC in hex>`."""

    def __init__(self, app: WSGIApplication, store: FloorStore, secret: bytes) -> None:
        self.app = app
        self.store = store
        # HMAC-SHA-256 with both pads hashed in already: a third of the cost of hmac.digest.
        padded = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sent = self._verified(environ.get("HTTP_COOKIE", ""))
        session = FloorSession(self.store, sent)
        environ[SESSION_KEY] = session

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            if session.changed or session.renewed:
                session.save()
            if session.key is not sent or sent is None or session.renewed:
                headers = [*headers, ("Set-Cookie", self._cookie(session))]
            return start_response(status, headers, exc_info)

        return self.app(environ, start)

    def _cookie(self, session: FloorSession) -> str:
        key = session.key or _new_key()
        return f"floor={key.hex()}{self._signature(key)}; Path=/; Max-Age={TTL}; HttpOnly; SameSite=Lax"

    def _verified(self, cookies: str) -> bytes | None:
        for cookie in cookies.split("; "):
            if cookie.startswith("floor="):
                key = bytes.fromhex(cookie[6:70])
                return key if self._signature(key) == cookie[70:] else None
        return None

    def _signature(self, key: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key)
        outer.update(inner.digest())
        return outer.hexdigest()


def _new_key() -> bytes:
    return int(time.time() * 1000).to_bytes(6, "big") + os.urandom(26)


class MemoryFloor:
    """A dict."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[bytes, int]] = {}

    def load(self, key: bytes) -> tuple[bytes, int] | None:
        return self.rows.get(key)

    def insert(self, key: bytes, data: bytes, expires_at: int) -> None:
        self.rows[key] = (data, expires_at)

    update = insert

    def touch(self, key: bytes, expires_at: int) -> None:
        self.rows[key] = (self.rows[key][0], expires_at)

    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None:
        del self.rows[old]
        self.rows[new] = (data, expires_at)


_COLUMNS = "data, expires_at, sweep_bucket"
_INSERTED = f"id, version, created_at, superseded, {_COLUMNS}"


class SQLFloor:
    """The table that prism_wsgi uses, one statement at a time on a held cursor."""

    def __init__(self, cursor: Any, *, mark: str = "%s", begin: str = "BEGIN", prepare: bool = False) -> None:
        self._cursor = cursor
        self._execute: Callable[..., Any] = cursor.execute
        self._prepared = {"prepare": True} if prepare else {}
        self._begin = begin
        table = "floor_sessions"
        self._select = f"SELECT data, expires_at FROM {table} WHERE id = {mark}"
        self._insert = f"INSERT INTO {table} ({_INSERTED}) VALUES ({', '.join([mark] * 7)})"
        self._update = (
            f"UPDATE {table} SET data = {mark}, expires_at = {mark}, sweep_bucket = {mark}, version = version + 1 "
            f"WHERE id = {mark}"
        )
        self._touch = f"UPDATE {table} SET expires_at = {mark}, sweep_bucket = {mark} WHERE id = {mark}"

    def load(self, key: bytes) -> tuple[bytes, int] | None:
        self._execute(self._select, (key,), **self._prepared)
        row: tuple[bytes, int] | None = self._cursor.fetchone()
        return row

    def insert(self, key: bytes, data: bytes, expires_at: int) -> None:
        now = int(time.time() * 1000)
        row = (key, 1, now, False, data, expires_at, expires_at // _HOUR_MS)
        self._execute(self._insert, row, **self._prepared)

    def update(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._execute(self._update, (data, expires_at, expires_at // _HOUR_MS, key), **self._prepared)

    def touch(self, key: bytes, expires_at: int) -> None:
        self._execute(self._touch, (expires_at, expires_at // _HOUR_MS, key), **self._prepared)

    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None:
        self._execute(self._begin)
        self.update(old, msgpack.packb({}), int(time.time() * 1000) + 10_000)
        self.insert(new, data, expires_at)
        self._execute("COMMIT")

    def close(self) -> None:
        self._cursor.connection.close()


class SharedFloor:
    """Several stores, each with a connection of its own, for as many threads."""

    def __init__(self, stores: Iterable[FloorStore]) -> None:
        self._idle = deque(stores)

    def load(self, key: bytes) -> tuple[bytes, int] | None:
        return self._lent(lambda store: store.load(key))

    def insert(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._lent(lambda store: store.insert(key, data, expires_at))

    def update(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._lent(lambda store: store.update(key, data, expires_at))

    def touch(self, key: bytes, expires_at: int) -> None:
        self._lent(lambda store: store.touch(key, expires_at))

    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None:
        self._lent(lambda store: store.replace(old, new, data, expires_at))

    def _lent(self, work: Callable[[FloorStore], _ResultT]) -> _ResultT:
        store = self._idle.pop()
        try:
            return work(store)
        finally:
            self._idle.append(store)


def sqlite_cursor(path: str) -> sqlite3.Cursor:
    """Return a cursor on a connection as everybody's here: WAL, synchronous=NORMAL."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection.cursor()


def postgresql_cursor(conninfo: str) -> Any:
    """Return a psycopg 3 cursor that reads binary results, each statement committing itself."""
    import psycopg

    return psycopg.connect(conninfo, autocommit=True).cursor(binary=True)


def mariadb_cursor(host: str | None, port: int, user: str | None, password: str | None, database: str | None) -> Any:
    """Return a mysqlclient cursor, each statement committing itself."""
    import MySQLdb

    connection = MySQLdb.connect(
        host=host, port=port, user=user, password=password or "", database=database, autocommit=True
    )
    return connection.cursor()
