"""Write a session store: three methods over any database, here plain sqlite3, and an application that uses it."""

import os
import secrets
import signal
import sqlite3
import threading
import time
from contextlib import closing
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

# With a secret drawn here, the sessions in the file outlive this process and their cookies do not.
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)


class SQLiteStore:
    def __init__(self, path: str) -> None:
        self._path = path
        self._execute(
            "CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, data BLOB, version INTEGER,"
            " created_at INTEGER, expires_at INTEGER, user TEXT, superseded BOOLEAN)"
        )

    def load(self, session_id: str) -> StoredSession | None:
        rows, _ = self._execute("SELECT * FROM sessions WHERE id = ? AND expires_at > ?", session_id, now())
        return StoredSession(*rows[0]) if rows else None

    def save(self, session: StoredSession) -> None:
        if session.version == 0:
            self._insert(session)
            return
        _, updated = self._execute(
            "UPDATE sessions SET data = ?, version = version + 1, expires_at = ?, user = ?, superseded = ?"
            " WHERE id = ? AND version = ? AND expires_at > ?",  # compare and swap, in one statement
            *(session.data, session.expires_at, session.user, session.superseded),
            *(session.id, session.version, now()),
        )
        if not updated:
            raise SessionGone(session.id) if self.load(session.id) is None else SessionConflict(session.id)

    def destroy(self, session_id: str) -> None:
        self._execute("DELETE FROM sessions WHERE id = ?", session_id)

    def _insert(self, session: StoredSession) -> None:
        columns = (session.created_at, session.expires_at, session.user, session.superseded)
        try:
            self._execute("INSERT INTO sessions VALUES (?, ?, 1, ?, ?, ?, ?)", session.id, session.data, *columns)
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
