"""The floor's stores: a dict, and prism_wsgi's own table by one statement at a time on the raw driver."""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgpack

MARKER: bytes = msgpack.packb({})
"""The data of a marker, which stays for a moment where a session moved away."""

_HOUR_MS = 3_600_000

_ResultT = TypeVar("_ResultT")


class FloorStore(Protocol):
    """Rows of (id, data, expiry in Unix ms)."""

    def load(self, key: bytes) -> tuple[bytes, int] | None: ...
    def insert(self, key: bytes, data: bytes, expires_at: int) -> None: ...
    def update(self, key: bytes, data: bytes, expires_at: int) -> None: ...
    def touch(self, key: bytes, expires_at: int) -> None: ...
    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None: ...


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


def marker_expiry() -> int:
    """Return the expiry of a marker (Unix ms)."""
    return int(time.time() * 1000) + 10_000


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
        self.update(old, MARKER, marker_expiry())
        self.insert(new, data, expires_at)
        self._execute("COMMIT")

    def close(self) -> None:
        self._cursor.connection.close()


class SharedFloor:
    """Several stores, each with one connection, for as many threads."""

    def __init__(self, stores: Iterable[FloorStore]) -> None:
        self._idle = deque(stores)

    def load(self, key: bytes) -> tuple[bytes, int] | None:
        return self._with_one(lambda store: store.load(key))

    def insert(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._with_one(lambda store: store.insert(key, data, expires_at))

    def update(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._with_one(lambda store: store.update(key, data, expires_at))

    def touch(self, key: bytes, expires_at: int) -> None:
        self._with_one(lambda store: store.touch(key, expires_at))

    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None:
        self._with_one(lambda store: store.replace(old, new, data, expires_at))

    def _with_one(self, work: Callable[[FloorStore], _ResultT]) -> _ResultT:
        store = self._idle.pop()
        try:
            return work(store)
        finally:
            self._idle.append(store)


def sqlite_cursor(path: str) -> sqlite3.Cursor:
    """Return a cursor on a connection with the pragmas that all subjects have: WAL, synchronous=NORMAL."""
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
