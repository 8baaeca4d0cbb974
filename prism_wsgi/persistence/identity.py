"""The identity of a session in a request: its secret, its id, and what the store holds under the id."""

from dataclasses import dataclass, field

from prism_wsgi.stores.base import StoredSession
from prism_wsgi.tokens import Token, new_secret, session_id


@dataclass(slots=True)
class Identity:
    """One id of a session, and the secret that opens it.

    `token` is the verified cookie that named it; None for an id drawn in this request. `stored` is what the store
    holds under the id as far as this request knows, decrypted. `is_sent`: the browser has the cookie of this id, or
    gets it with the response. `instead_of` is the id of the unreadable session that this one replaces. `moved_from`
    is the identity from which the session moved here; the next save leaves a marker there.
    """

    secret: str = field(repr=False)
    id: str
    token: Token | None = None
    stored: StoredSession | None = None
    is_sent: bool = False
    instead_of: str | None = None
    moved_from: "Identity | None" = None

    @property
    def is_shared(self) -> bool:
        """Whether other requests may have this id too."""
        return self.token is not None or self.stored is not None


def identity_of(token: Token) -> Identity:
    """Return the identity that a verified cookie names."""
    return Identity(token.secret, session_id(token.secret), token, is_sent=True)


def drawn_identity(now: int, instead_of: str | None = None, moved_from: Identity | None = None) -> Identity:
    """Return a new identity that nobody else has. Raises OSError when the system has no randomness."""
    secret = new_secret(now)
    return Identity(secret, session_id(secret), instead_of=instead_of, moved_from=moved_from)
