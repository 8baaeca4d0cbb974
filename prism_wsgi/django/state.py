"""DjangoState: a session's state where Django decides its key, its expiry and when it is saved."""

from collections.abc import Callable
from typing import Any

from prism_wsgi.cookie_fallbacks import DJANGO_KEY, DjangoCookie
from prism_wsgi.persistence.identity import Identity, identity_of
from prism_wsgi.persistence.imported_ids import imported_id
from prism_wsgi.request.site import Site
from prism_wsgi.request.state import SessionState
from prism_wsgi.tokens import Token, is_secret

LONG_AGO = 1
"""The Unix second at which a cookie counts as renewed. Django's cookie does not say when; the stored expiry does."""


class DjangoState(SessionState):
    """The state of a session with Django's key.

    `age` returns the seconds for which the session lives on if it is saved now. `identity` is that of the request's
    key, None for a new session.
    """

    __slots__ = ("_age", "_has_new_key")

    def __init__(self, site: Site, age: Callable[[], int], identity: Identity | None = None) -> None:
        self._age = age
        self._has_new_key = False
        super().__init__(site, None if identity is None else identity.token)
        self.holds_mutable = True  # Django holds the values themselves
        if identity is not None:
            self.identity = identity  # an imported session has another id than its key's hash

    @property
    def ttl(self) -> int:
        """The idle lifetime in seconds."""
        return max(1, self._age())

    def next_expiry(self) -> int:
        """Return when the session ends if it is saved now, in Unix ms; in the past where `set_expiry` says so."""
        document = self.document
        expires_at = self.site.now() + self._age() * 1000
        return self.site.lifetimes.capped(expires_at, document.began, document.max_lifetime)

    def note_changes(self) -> None:
        """Note which keys are new, have another value, or are gone."""
        before, values = self._stored_values(), self.document.values
        self.holds_mutable = True
        for key in before.keys() | values.keys():
            if key not in before or key not in values or before[key] != values[key]:
                self.note_write(key)

    def move_to_new_key(self) -> None:
        """Move to a new key. A login later in this request keeps that key, because nobody else has seen it."""
        self._has_new_key = False
        self.regenerate()
        self._has_new_key = True

    def _move(self) -> None:
        if self._has_new_key:
            self._has_new_key = False
        else:
            super()._move()

    def _stored_values(self) -> dict[str, Any]:
        stored = self.contested.stored
        return {} if stored is None or stored.superseded else self.site.codec.decode(stored).values


def key_identity(key: str | None) -> Identity | None:
    """Return the identity that a session key names, None for a text that is no key.

    A key from one of Django's engines names the session that was imported under it.
    """
    if not isinstance(key, str):
        return None
    token = Token(key, LONG_AGO)
    if is_secret(key):
        return identity_of(token)
    if DJANGO_KEY.fullmatch(key):
        return Identity(key, imported_id(DjangoCookie.origin, key), token, is_sent=True)
    return None
