"""The statements on the tables of events and sweeps that belong to a table of sessions."""

from typing import Any

from sqlalchemy import Connection, Table, case, delete, func, insert, select, text, update

from prism_wsgi.stores.base import StoredEvent, SweepRun
from prism_wsgi.stores.sql.rows import concerns, holds_user, key_of
from prism_wsgi.stores.sql.schema import HOUR_MS, table_names

ERASED_AT_ONCE = 1000
"""The number of events that are deleted or renamed in one transaction."""

_OLDEST = "DELETE FROM {} WHERE timestamp BETWEEN :first AND :before ORDER BY timestamp, id LIMIT :limit"


class Trail:
    """The statements on one trail of events and its record of sweeps, each run on the connection that it is given."""

    def __init__(self, sessions: Table) -> None:
        _, sweeps, events = table_names(sessions.name)
        # Not by the metadata's keys, which begin with the schema.
        tables = {table.name: table for table in sessions.metadata.tables.values()}
        self._sweeps, self._events = tables[sweeps], tables[events]
        # Where the next batch of a sweep begins (Unix ms). From the start of the index it would pass the entries
        # of all rows deleted since the last VACUUM: a million of them take PostgreSQL a tenth of a second.
        self._swept_to = 0

    def add(self, connection: Connection, event: StoredEvent) -> None:
        """Add an event."""
        connection.execute(
            insert(self._events).values(
                timestamp=event.timestamp,
                kind=event.kind,
                reason=event.reason,
                session_id=_key(event.session_id),
                previous_id=_key(event.previous_id),
                user_id=event.user,
                actor_id=event.actor,
                client_address=event.client_address,
                user_agent=event.user_agent,
                author=event.author,
            )
        )

    def find(self, connection: Connection, user: str, limit: int, before: int | None) -> list[StoredEvent]:
        """Return the events that concern a user, the newest first; see `TrailStore.find_events`."""
        columns = self._events.c
        names = ("id", "timestamp", "kind", "reason", "session_id", "previous_id", "user_id", "actor_id")
        found: dict[int, StoredEvent] = {}
        # One after the other: each is in the order of its index, where an OR would gather and sort all of them.
        for whose in (columns.user_id, columns.actor_id):
            statement = (
                select(*(columns[name] for name in (*names, "client_address", "user_agent", "author")))
                .where(holds_user(whose, user))
                .order_by(whose.desc(), columns.id.desc())
                .limit(limit)
            )
            if before is not None:
                statement = statement.where(columns.id < before)
            found |= {row.id: _stored_event(row) for row in connection.execute(statement)}
        return [found[number] for number in sorted(found, reverse=True)[:limit]]

    def count_by_hour(self, connection: Connection, since: int, limit: int) -> list[tuple[int, str, str | None, int]]:
        """Count the newest `limit` events since `since` by the hour's beginning (both Unix ms), kind and reason."""
        columns = self._events.c
        hour = columns.timestamp - columns.timestamp % HOUR_MS
        newest = (
            select(hour.label("hour"), columns.kind, columns.reason)
            .where(columns.timestamp >= since)
            .order_by(columns.timestamp.desc())
            .limit(limit)
            .subquery()
        )
        names = newest.c.hour, newest.c.kind, newest.c.reason
        found = connection.execute(select(*names, func.count()).group_by(*names).order_by(newest.c.hour))
        return [(int(row[0]), row[1], row[2], int(row[3])) for row in found]

    def sweep(self, connection: Connection, before: int, limit: int) -> int:
        """Delete at most `limit` events of `before` (Unix ms) and earlier, the oldest first; return how many."""
        deleted = self._delete_oldest(connection, before, limit)
        if deleted:
            moment = self._events.c.timestamp
            oldest = connection.execute(select(func.min(moment)).where(moment >= self._swept_to)).scalar_one()
            self._swept_to = oldest or 0
        elif self._swept_to:
            self._swept_to = 0  # an event may have come late, from a host whose clock is behind
            deleted = self._delete_oldest(connection, before, limit)
        return deleted

    def _delete_oldest(self, connection: Connection, before: int, limit: int) -> int:
        if connection.dialect.name in ("mysql", "mariadb"):
            # For a DELETE with a subquery they would read, and lock, the whole table.
            values = {"first": self._swept_to, "before": before, "limit": limit}
            return int(connection.execute(text(_OLDEST.format(self._events.name)), values).rowcount)
        columns = self._events.c
        is_due = columns.timestamp.between(self._swept_to, before)
        oldest = select(columns.id).where(is_due).order_by(columns.timestamp).limit(limit)
        return int(connection.execute(delete(self._events).where(columns.id.in_(oldest))).rowcount)

    def erase(self, connection: Connection, user: str, alias: str | None) -> int:
        """Erase a user from up to ERASED_AT_ONCE events; see `TrailStore.erase_events`."""
        columns = self._events.c
        statement = select(columns.id, columns.user_id).where(concerns(self._events, user)).limit(ERASED_AT_ONCE)
        found = connection.execute(statement).all()
        own = [row.id for row in found if row.user_id == user] if alias is None else []
        others = [row.id for row in found if row.id not in set(own)]
        if own:
            connection.execute(delete(self._events).where(columns.id.in_(own)))
        if others:
            has_user, has_actor = holds_user(columns.user_id, user), holds_user(columns.actor_id, user)
            connection.execute(
                update(self._events)
                .where(columns.id.in_(others))
                .values(
                    user_id=case((has_user, alias), else_=columns.user_id),
                    actor_id=case((has_actor, alias), else_=columns.actor_id),
                    client_address=None,
                    user_agent=None,
                )
            )
        return len(found)

    def add_sweep(self, connection: Connection, run: SweepRun) -> None:
        """Add the record of a sweep."""
        connection.execute(
            insert(self._sweeps).values(
                started_at=run.started_at,
                ended_at=run.ended_at,
                deleted=run.deleted,
                outcome=run.outcome,
                host=run.host,
            )
        )

    def last_sweeps(self, connection: Connection, limit: int) -> list[SweepRun]:
        """Return the latest sweeps, the newest first."""
        columns = self._sweeps.c
        statement = select(columns.started_at, columns.ended_at, columns.deleted, columns.outcome, columns.host)
        return [SweepRun(*row) for row in connection.execute(statement.order_by(columns.id.desc()).limit(limit))]

    def forget_sweeps(self, connection: Connection, before: int) -> None:
        """Delete the records of sweeps that began at `before` (Unix ms) and earlier."""
        connection.execute(delete(self._sweeps).where(self._sweeps.c.started_at <= before))


def _key(session_id: str | None) -> bytes | None:
    return None if session_id is None else key_of(session_id)


def _stored_event(row: Any) -> StoredEvent:
    number, timestamp, kind, reason, session_id, previous_id, user, actor, address, agent, author = row
    return StoredEvent(
        timestamp=timestamp,
        kind=kind,
        reason=reason,
        session_id=None if session_id is None else bytes(session_id).hex(),
        previous_id=None if previous_id is None else bytes(previous_id).hex(),
        user=user,
        actor=actor,
        client_address=address,
        user_agent=agent,
        author=author,
        number=number,
    )
