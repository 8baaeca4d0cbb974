"""A store of the three verbs and nothing more, as a reader of the documentation would write it."""

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from prism_wsgi import SessionConflict, SessionExists, SessionGone, StoredSession
from prism_wsgi.clock import Clock, system_clock

COLUMNS = [field.name for field in fields(StoredSession)]
WRITTEN = [name for name in COLUMNS if name not in ("id", "version", "created_at")]


class PlainStore:
    """Sessions in a SQLite file, a connection for each call."""

    def __init__(self, path: Path, clock: Clock = system_clock) -> None:
        self._path = path
        self._clock = clock
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"CREATE TABLE IF NOT EXISTS sessions ({', '.join(COLUMNS)}, PRIMARY KEY (id))")

    def load(self, session_id: str) -> StoredSession | None:
        with closing(self._connect()) as connection:
            query = f"SELECT {', '.join(COLUMNS)} FROM sessions WHERE id = ? AND expires_at > ?"
            row = connection.execute(query, (session_id, self._now())).fetchone()
        return None if row is None else StoredSession(*row)

    def save(self, session: StoredSession) -> None:
        with closing(self._connect()) as connection:
            if session.version == 0:
                values = [getattr(session, name) if name != "version" else 1 for name in COLUMNS]
                try:
                    connection.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * len(values))})", values)
                except sqlite3.IntegrityError as error:
                    raise SessionExists(session.id) from error
                return
            updated = connection.execute(
                f"UPDATE sessions SET version = version + 1, {', '.join(f'{name} = ?' for name in WRITTEN)} "
                "WHERE id = ? AND version = ?",
                (*(getattr(session, name) for name in WRITTEN), session.id, session.version),
            )
            if updated.rowcount == 0:
                there = connection.execute("SELECT 1 FROM sessions WHERE id = ?", (session.id,)).fetchone()
                raise SessionConflict(session.id) if there else SessionGone(session.id)

    def destroy(self, session_id: str) -> None:
        with closing(self._connect()) as connection:
            connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)

    def _now(self) -> int:
        return int(self._clock() * 1000)
