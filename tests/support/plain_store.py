"""A store of the three verbs and nothing more, as a reader of the README would write it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from prism_wsgi import SessionConflict, SessionExists, SessionGone, StoredSession
from prism_wsgi.clock import Clock, system_clock

COLUMNS = "id, data, version, created_at, expires_at, user, superseded"


class PlainStore:
    """Sessions in a SQLite file, a connection for each call."""

    def __init__(self, path: Path, clock: Clock = system_clock) -> None:
        self._path = path
        self._clock = clock
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, data BLOB, version INTEGER, "
                "created_at INTEGER, expires_at INTEGER, user TEXT, superseded INTEGER)"
            )

    def load(self, session_id: str) -> StoredSession | None:
        with closing(self._connect()) as connection:
            query = f"SELECT {COLUMNS} FROM sessions WHERE id = ? AND expires_at > ?"
            row = connection.execute(query, (session_id, self._now())).fetchone()
        return None if row is None else StoredSession(*row)

    def save(self, session: StoredSession) -> None:
        values = (session.data, session.expires_at, session.user, session.superseded)
        with closing(self._connect()) as connection:
            if session.version == 0:
                try:
                    connection.execute(
                        "INSERT INTO sessions (data, expires_at, user, superseded, id, created_at, version) "
                        "VALUES (?, ?, ?, ?, ?, ?, 1)",
                        (*values, session.id, session.created_at),
                    )
                except sqlite3.IntegrityError as error:
                    raise SessionExists(session.id) from error
                return
            updated = connection.execute(
                "UPDATE sessions SET data = ?, expires_at = ?, user = ?, superseded = ?, version = version + 1 "
                "WHERE id = ? AND version = ? AND expires_at > ?",
                (*values, session.id, session.version, self._now()),
            )
        if updated.rowcount == 0:
            raise SessionGone(session.id) if self.load(session.id) is None else SessionConflict(session.id)

    def destroy(self, session_id: str) -> None:
        with closing(self._connect()) as connection:
            connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)

    def _now(self) -> int:
        return int(self._clock() * 1000)
