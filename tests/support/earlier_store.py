"""A worker of the release before revision 0004: its statements, on the columns that it knew."""

from sqlalchemy import create_engine, text

from prism_wsgi.errors import SessionConflict
from prism_wsgi.stores.base import StoredSession

HOUR_MS = 3_600_000

_SELECT = "SELECT data, version, created_at, expires_at, user_id, superseded FROM prism_sessions WHERE id = :id"
_INSERT = """INSERT INTO prism_sessions (id, data, version, user_id, created_at, expires_at, sweep_bucket, superseded)
VALUES (:id, :data, 1, :user, :created_at, :expires_at, :bucket, :superseded)"""
_UPDATE = """UPDATE prism_sessions SET data = :data, version = version + 1, user_id = :user, expires_at = :expires_at,
sweep_bucket = :bucket, superseded = :superseded WHERE id = :id AND version = :version"""
_DELETE = "DELETE FROM prism_sessions WHERE sweep_bucket <= :bucket AND expires_at <= :before"


class EarlierStore:
    """Loads, saves and sweeps as the earlier release did."""

    def __init__(self, url: str) -> None:
        waits = {"timeout": 60} if url.startswith("sqlite") else {}
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=waits)

    def close(self) -> None:
        self._engine.dispose()

    def load(self, session_id: str) -> StoredSession | None:
        with self._engine.connect() as connection:
            row = connection.execute(text(_SELECT), {"id": bytes.fromhex(session_id)}).one_or_none()
        if row is None:
            return None
        data, version, created_at, expires_at, user, superseded = row
        return StoredSession(session_id, bytes(data), version, created_at, expires_at, user, bool(superseded))

    def save(self, session: StoredSession) -> None:
        values = {
            "id": bytes.fromhex(session.id),
            "data": session.data,
            "version": session.version,
            "user": session.user,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
            "bucket": -(-session.expires_at // HOUR_MS),
            "superseded": session.superseded,
        }
        with self._engine.connect() as connection:
            if connection.execute(text(_UPDATE if session.version else _INSERT), values).rowcount != 1:
                raise SessionConflict

    def sweep(self, before: int) -> int:
        with self._engine.connect() as connection:
            values = {"bucket": -(-before // HOUR_MS), "before": before}
            return int(connection.execute(text(_DELETE), values).rowcount)
