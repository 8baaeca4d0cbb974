"""DetachedSession: a session by its id, not by the visitor's cookie."""

from dataclasses import replace
from typing import Any

from prism_wsgi.compat.beaker.values import BeakerSite, Values, to_store, with_beaker_values
from prism_wsgi.errors import SerializationError, SessionConflict, SessionGone, StoreUnavailable
from prism_wsgi.persistence.document import Document
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import new_secret, session_id

MAX_ATTEMPTS = 40


class DetachedSession(Values):
    """A session that is not the visitor's: `get_by_id(id)`, or `environ["beaker.get_session"]()` for a new one.

    It has no cookie. `save()` and `delete()` act at once.
    """

    def __init__(self, site: BeakerSite, stored: StoredSession, document: Document) -> None:
        self._site = site
        self._stored = stored
        self._document = document
        self.is_new = stored.version == 0

    @classmethod
    def found(cls, site: BeakerSite, given: str) -> "DetachedSession | None":
        """Return the live session of an id, None when there is none that can be read."""
        try:
            stored = site.repository.load(given)
            if stored is None or stored.superseded:
                return None
            return cls(site, stored, site.repository.codec.decode(stored.data))
        except SerializationError:
            return None

    @classmethod
    def begun(cls, site: BeakerSite) -> "DetachedSession":
        """Return a new, empty session, which is stored when it is saved."""
        now = site.repository.now()
        return cls(site, StoredSession(session_id(new_secret(now)), b"", 0, now, now), Document())

    def __repr__(self) -> str:
        return f"<DetachedSession {self.id}>"

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._stored.id

    def save(self) -> None:
        """Store the session, merged with what others have stored since; one that has ended stays so.

        Raises StoreUnavailable when the store fails or rivals never cease.
        """
        repository, codec = self._site.repository, self._site.repository.codec
        mine = replace(self._document, values=to_store(self._look()))
        for attempt in range(MAX_ATTEMPTS):
            theirs = repository.load(self.id) if self._stored.version else self._stored
            if theirs is None or theirs.superseded:
                return
            current = codec.decode(theirs.data) if theirs.version else Document()
            merged = codec.merge(self._document, mine, current)
            expires_at = repository.expiry(theirs.created_at, merged.ttl or repository.ttl)
            saved = replace(theirs, data=codec.encode(merged), expires_at=expires_at)
            try:
                repository.save(saved)
            except SessionConflict:
                pause(attempt)
                continue
            except SessionGone:
                return
            self._stored, self._document = replace(saved, version=saved.version + 1), merged
            return
        raise StoreUnavailable(f"session {self.id} changed in all {MAX_ATTEMPTS} attempts to save it")

    def delete(self) -> None:
        """End the session."""
        self._site.repository.destroy(self.id)
        self.clear()

    def _begin(self) -> dict[str, Any]:
        return with_beaker_values(self._document.values, self._stored.created_at / 1000, self._site.cookie)
