"""Write a session store: three methods over any database, here plain sqlite3, and an application that uses it."""

import os
import secrets
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import astuple, fields, replace
from typing import Any
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import (
    SessionConflict,
    SessionExists,
    SessionGone,
    SessionMiddleware,
    StoredSession,
    get_session,
)

# A secret made here ends every cookie with this process, although the sessions in the file stay.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)

FIELDS = [field.name for field in fields(StoredSession)]
CHANGING = [name for name in FIELDS if name not in ("id", "version", "created_at")]


class SQLiteStore:
    def __init__(self, path: str) -> None:
        self._path = path
        self._execute(f"CREATE TABLE IF NOT EXISTS sessions ({', '.join(FIELDS)}, PRIMARY KEY (id))")

    def load(self, session_id: str) -> StoredSession | None:
        rows, _ = self._execute("SELECT * FROM sessions WHERE id = ? AND expires_at > ?", session_id, now())
        return StoredSession(*rows[0]) if rows else None

    def save(self, session: StoredSession) -> None:
        if session.version == 0:
            self._insert(session)
            return
        changes = ", ".join(f"{name} = ?" for name in CHANGING)
        _, updated = self._execute(
            f"UPDATE sessions SET {changes}, version = version + 1"  # noqa: S608  # names of fields
            " WHERE id = ? AND version = ?",  # compare and swap, in one statement
            *(getattr(session, name) for name in CHANGING),
            *(session.id, session.version),
        )
        if not updated:
            rows, _ = self._execute("SELECT version FROM sessions WHERE id = ?", session.id)
            raise SessionConflict(session.id) if rows else SessionGone(session.id)

    def destroy(self, session_id: str) -> None:
        self._execute("DELETE FROM sessions WHERE id = ?", session_id)

    def _insert(self, session: StoredSession) -> None:
        values = astuple(replace(session, version=1))
        try:
            self._execute(f"INSERT INTO sessions VALUES ({', '.join('?' * len(values))})", *values)  # noqa: S608
        except sqlite3.IntegrityError:
            raise SessionExists(session.id) from None

    def _execute(self, statement: str, *values: object) -> tuple[list[Any], int]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            cursor = database.execute(statement, values)
            return cursor.fetchall(), cursor.rowcount


def now() -> int:
    return int(time.time() * 1000)


def count_visits(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    with get_session(environ).atomic() as session:
        session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Visits: {session['visits']}\n".encode()]


store = SQLiteStore(os.environ.get("SESSION_FILE", "custom_sessions.db"))
application = SessionMiddleware(count_visits, store=store, secret=SECRET)


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
