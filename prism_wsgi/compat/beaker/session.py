"""BeakerSession: a Session under Beaker's names, which is saved when Beaker would save it.

The application works on a copy. What `persist()` writes from it into the Session is saved, and all else forgotten.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from prism_wsgi.compat.beaker.detached import DetachedSession
from prism_wsgi.compat.beaker.values import BeakerSite, Values, to_store, with_beaker_values
from prism_wsgi.session import Session


class BeakerSession(Values):
    """The visitor's session, as `environ["beaker.session"]`.

    A mapping; `save()` has it saved when the response begins, without which changes are forgotten unless
    `session.auto` is on. `delete()` and `invalidate()` end it at once. `id` is not secret: no cookie holds it.
    """

    def __init__(self, session: Session, site: BeakerSite) -> None:
        self._session = session
        self._site = site
        self._dirty = False
        self._deleted = False
        self._first: dict[str, Any] = {}
        self._lock: AbstractContextManager[Session] | None = None

    def __repr__(self) -> str:
        return f"<BeakerSession {self.id}>"

    @property
    def id(self) -> str:
        """The id of the session."""
        self._look()
        return self._session.id

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this visitor, or `invalidate()` has started over."""
        self._look()
        return self._session.is_new

    @property
    def last_accessed(self) -> float | None:
        """When the session was used before, in Unix seconds, as exactly as use is recorded; None for a new one."""
        self._look()
        return None if self.is_new else self._session.expires_at.timestamp() - self._session.ttl

    @property
    def timeout(self) -> int:
        """The idle lifetime, in seconds."""
        return self._session.ttl

    @property
    def domain(self) -> str | None:
        """The cookie's Domain."""
        return self._site.cookie.domain

    @property
    def path(self) -> str:
        """The cookie's Path."""
        return self._site.cookie.path

    def accessed(self) -> bool:
        """Tell whether the application has looked at the session."""
        return self._copy is not None

    def dirty(self) -> bool:
        """Tell whether `save()` or `delete()` has been called."""
        return self._dirty

    def save(self) -> None:
        """Have the session saved when the response begins, with all that is changed until then.

        As in Beaker, a session that the application has not looked at is not.
        """
        self._dirty = True

    def persist(self) -> None:
        """Write the session as it is now, if `save()` has been called or `session.auto` is on.

        Otherwise, as Beaker does when it saves the time of access, write what was there at the first look: a change
        inside one of its values is saved without `save()`.
        """
        if (self._dirty or self._site.auto) and not self._deleted:
            self._write(self._look())
        elif self._site.save_accessed_time and not self._deleted and not self.is_new:
            self._write(self._first)
        self.unlock()

    def delete(self) -> None:
        """End the session, at once, and delete the visitor's cookie; what is written afterwards is forgotten."""
        self._session.destroy()
        self._copy = self._begin()
        self.clear()
        self._dirty = self._deleted = True

    def invalidate(self) -> None:
        """End the session, at once, and begin a new one under a new id."""
        self._session.destroy()
        self._copy = self._begin()
        self._deleted = False

    def regenerate_id(self) -> None:
        """Move the session to a new id; the old one opens nothing any more."""
        self._look()
        self._session.regenerate()

    def load(self) -> None:
        """Take the values as they are stored, dropping changes."""
        self._copy = self._begin()

    def revert(self) -> None:
        """Take the values as they were at the first look, dropping changes."""
        self._look()
        self._copy = dict(self._first)

    def lock(self) -> None:
        """Let no other request into `lock()` of the same session until `unlock()`, or until the response begins.

        `load()` then shows what is stored now. Keep it short; others are waiting.
        """
        if self._lock is None:
            self._look()
            entered = self._session.atomic()
            entered.__enter__()
            self._lock = entered

    def unlock(self) -> None:
        """Let others in, after saving if `save()` has been called."""
        if self._lock is not None:
            if self._dirty and not self._deleted:
                self._write(self._look())
            entered, self._lock = self._lock, None
            entered.__exit__(None, None, None)

    def get_by_id(self, id: str) -> "DetachedSession | None":  # noqa: A002, Beaker's name
        """Return the session of an `id`, whosoever it is, or None."""
        return DetachedSession.found(self._site, id)

    def _begin(self) -> dict[str, Any]:
        values = with_beaker_values(self._session, self._session.created_at.timestamp(), self._site.cookie)
        self._first = dict(values)
        return values

    def _write(self, written: Mapping[str, Any]) -> None:
        values = to_store(written)
        for key in [one for one in self._session if one not in values]:
            del self._session[key]
        self._session.update(values)
