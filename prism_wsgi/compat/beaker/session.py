"""A Session with Beaker's interface, which is saved when Beaker would save it.

The application works on a copy. `persist()` writes the changes in the copy into the Session; other changes in the
copy are dropped. Changes that the application makes in the Session itself stay.
"""

import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NoReturn

from prism_wsgi.cookies import Cookie
from prism_wsgi.persistence.merge import merge
from prism_wsgi.session import Session

CREATED, ACCESSED, DOMAIN, PATH = "_creation_time", "_accessed_time", "_domain", "_path"
NOT_STORED = frozenset({ACCESSED, DOMAIN, PATH})
"""The keys that Beaker keeps among the application's values, and that prism_wsgi keeps elsewhere."""


@dataclass(frozen=True, slots=True)
class BeakerSite:
    """The settings of all sessions of an application; `auto` and `save_accessed_time` are Beaker's."""

    cookie: Cookie
    auto: bool
    save_accessed_time: bool


class BeakerSession(MutableMapping[str, Any]):
    """The visitor's session, as `environ["beaker.session"]`.

    It is a mapping over a copy that is made at the first access. After `save()` the session is saved when the
    response begins. Without `save()` changes are dropped, unless `session.auto` is on. `delete()` and `invalidate()`
    end the session at once. `id` is not secret, because no cookie holds it.
    """

    def __init__(self, session: Session, site: BeakerSite) -> None:
        self._session = session
        self._site = site
        self._copy: dict[str, Any] | None = None
        self._dirty = False
        self._deleted = False
        self._first: dict[str, Any] = {}
        self._base: dict[str, Any] = {}
        self._endings = 0
        self._lock: AbstractContextManager[Session] | None = None

    def __getitem__(self, key: str) -> Any:
        return self._look()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._look()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._look()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def __repr__(self) -> str:
        return f"<BeakerSession {self.id}>"

    def has_key(self, key: object) -> bool:
        """Tell whether `key` is there."""
        return key in self._look()

    def copy(self) -> dict[str, Any]:
        """Return the values as a dict."""
        return self._look().copy()

    def clear(self) -> None:
        """Remove every value."""
        for key in [one for one in self._look() if one not in (DOMAIN, PATH)]:
            del self._look()[key]

    @property
    def created(self) -> float:
        """When the session began, in Unix seconds."""
        began: float = self._look()[CREATED]
        return began

    @property
    def id(self) -> str:
        """The id of the session."""
        self._look()
        return self._session.id

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this visitor, or `invalidate()` has begun a new session."""
        self._look()
        return self._session.is_new

    @property
    def last_accessed(self) -> float | None:
        """When the session was used before, in Unix seconds, as exactly as use is recorded; None for a new one."""
        self._look()
        stored = self._session._state.identity.stored
        if self.is_new or stored is None:
            return None
        if stored.last_seen_at is None:  # saved before that was recorded
            return self._session.expires_at.timestamp() - self._session.ttl
        return stored.last_seen_at / 1000

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
        """Save the session when the response begins, with all changes until then.

        As in Beaker, a session that the application has not looked at is not saved.
        """
        self._forget_what_has_ended()
        self._dirty = True

    def persist(self) -> None:
        """Write the session as it is now, if `save()` has been called or `session.auto` is on.

        Otherwise write the values of the first access, as Beaker does when it saves the time of access: a change
        inside one of these values is saved without `save()`.
        """
        self._forget_what_has_ended()
        if (self._dirty or self._site.auto) and not self._deleted:
            self._write(self._look())
        elif self._site.save_accessed_time and not self._deleted and not self.is_new:
            self._write(self._first)
        self.unlock()

    def delete(self) -> None:
        """End the session at once, and delete the visitor's cookie; later writes are dropped."""
        self._session.destroy()
        self._copy = self._begin()
        self.clear()
        self._dirty = self._deleted = True

    def invalidate(self) -> None:
        """End the session at once, and begin a new one under a new id."""
        self._session.destroy()
        self._copy = self._begin()
        self._deleted = False

    def regenerate_id(self) -> None:
        """Move the session to a new id; the old one opens nothing any more."""
        self._look()
        self._session.regenerate()

    def load(self) -> None:
        """Return to the stored values, and drop all changes."""
        self._copy = self._begin()

    def revert(self) -> None:
        """Return to the values of the first access, and drop all changes."""
        self._look()
        self._copy = dict(self._first)

    def lock(self) -> None:
        """Keep other requests out of `lock()` of the same session until `unlock()`, or until the response begins.

        `load()` then shows what is stored now. Keep the lock for a short time, because other requests wait for it.
        """
        if self._lock is None:
            self._look()
            entered = self._session.atomic()
            entered.__enter__()
            self._lock = entered

    def unlock(self) -> None:
        """Save if `save()` has been called, then let other requests in."""
        if self._lock is not None:
            self._forget_what_has_ended()
            if self._dirty and not self._deleted:
                self._write(self._look())
            entered, self._lock = self._lock, None
            entered.__exit__(None, None, None)

    def get_by_id(self, id: str) -> NoReturn:  # noqa: A002, Beaker's name
        """Raise NotImplementedError: an id from a form would open any session, because ids are not secret here."""
        raise NotImplementedError(
            "get_by_id() would open any visitor's session to anyone who knows its id, which is not secret in "
            "prism_wsgi; list and end a user's sessions with the store's find(user=...) and destroy_all(user)"
        )

    def _look(self) -> dict[str, Any]:
        self._forget_what_has_ended()
        if self._copy is None:
            self._copy = self._begin()
        return self._copy

    def _begin(self) -> dict[str, Any]:
        values = _with_beaker_values(self._session, self._session.created_at.timestamp(), self._site.cookie)
        self._first = dict(values)
        self._base = {key: deepcopy(value) for key, value in self._session.items()}
        self._endings = self._session._state.endings
        return values

    def _forget_what_has_ended(self) -> None:
        """Drop the copy if `environ["prism.session"]` has ended its session, because a save would undo a logout."""
        if self._copy is not None and self._endings != self._session._state.endings:
            self._copy = self._begin()
            self._dirty = False

    def _write(self, written: Mapping[str, Any]) -> None:
        values, present = _to_store(written), dict(self._session)
        serializer = self._session._state.site.codec.serializer
        merged = merge(self._base, values, present, lambda value: serializer.dumps({"": value}))
        for key in present.keys() - merged.keys():
            del self._session[key]
        for key, value in merged.items():
            if key not in present or present[key] is not value:
                self._session[key] = value
        self._base = {key: deepcopy(value) for key, value in values.items()}


def _with_beaker_values(stored: Mapping[str, Any], created: float, cookie: Cookie) -> dict[str, Any]:
    """Return a copy of a session's values, with the keys that Beaker keeps among them."""
    values = {key: deepcopy(value) for key, value in stored.items()}
    return {DOMAIN: cookie.domain, PATH: cookie.path, CREATED: created, **values, ACCESSED: time.time()}


def _to_store(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the values to store, which is never empty, so that a saved session is there the next time."""
    kept = {CREATED: time.time(), **values}
    return {key: deepcopy(value) for key, value in kept.items() if key not in NOT_STORED}
