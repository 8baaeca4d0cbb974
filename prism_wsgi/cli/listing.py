"""Listing and ending sessions in any store: by SQL in a database, otherwise by the methods of IndexedStore."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from prism_wsgi.stores.base import SessionSummary, StoredSession

if TYPE_CHECKING:
    from prism_wsgi import RedisStore, SQLAlchemyStore

AnyStore: TypeAlias = "SQLAlchemyStore | RedisStore"

TRANSACTION = 100
"""The number of sessions that are ended in one transaction."""
PAGE = 5000
"""The number of sessions in a page of a store that reads the names of all keys for each page."""


def batch_size(store: AnyStore) -> int:
    """Return how many sessions to list and end at once."""
    from prism_wsgi import SQLAlchemyStore

    return TRANSACTION if isinstance(store, SQLAlchemyStore) else PAGE


def summaries(
    store: AnyStore,
    *,
    user: str | None = None,
    created_before: int | None = None,
    limit: int,
    after: str | None = None,
) -> list[SessionSummary]:
    """Return live sessions in the order of their ids, without the data; see `SQLAlchemyStore.summaries`."""
    from prism_wsgi import SQLAlchemyStore

    if isinstance(store, SQLAlchemyStore):
        return store.summaries(user=user, created_before=created_before, limit=limit, after=after)
    found: list[SessionSummary] = []
    while len(found) < limit:
        page = (
            store.find_all(limit=PAGE, after=after)
            if user is None
            else store.find(user=user, limit=PAGE, after=after)
        )
        found += [summary_of(one) for one in page if created_before is None or one.created_at < created_before]
        if len(page) < PAGE:
            break
        after = page[-1].id
    return found[:limit]


def destroy_many(store: AnyStore, ids: Sequence[str]) -> int:
    """Delete the sessions of these ids; return how many there were."""
    from prism_wsgi import SQLAlchemyStore

    if isinstance(store, SQLAlchemyStore):
        return store.destroy_many(ids)
    for session_id in ids:
        store.destroy(session_id)
    return len(ids)


def summary_of(session: StoredSession) -> SessionSummary:
    """Return the summary of a session for a listing."""
    return SessionSummary(
        session.id,
        session.user,
        session.created_at,
        session.expires_at,
        len(session.data),
        session.version,
        session.last_seen_at,
        session.authenticated_at,
        session.auth_method,
        session.actor,
        session.client_address,
        session.user_agent,
    )
