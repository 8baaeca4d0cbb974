"""The login of a session: who is logged in, and how they proved it."""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from prism_wsgi.stores.base import StoredSession

MAX_USER_CHARACTERS = 255
MAX_METHOD_CHARACTERS = 64

KNOWN_USER_KEYS = ("_user_id", "_auth_user_id", "auth.userid", "user_id")
"""The keys under which login libraries, and many applications, put the user."""


class Login(NamedTuple):
    """The user of a session, and their proof; all None for an anonymous visitor.

    `authenticated_at` (Unix ms) is when the user last proved who they are, and `auth_method` how (RFC 8176).
    `actor` is the administrator who impersonates the user. `device_key` is the browser's key, where it has one.
    """

    user: str | None = None
    authenticated_at: int | None = None
    auth_method: str | None = None
    actor: str | None = None
    device_key: bytes | None = None


NOBODY = Login()


def login_of(stored: StoredSession) -> Login:
    """Return who is logged in to a stored session."""
    if stored.user is None and stored.device_key is None:
        return NOBODY
    return Login(stored.user, stored.authenticated_at, stored.auth_method, stored.actor, stored.device_key)


def checked_user(user: object, verb: str = "login()") -> str:
    """Return a user's name. Raises TypeError and ValueError, which name the `verb`, for any other value."""
    if not isinstance(user, str):
        raise TypeError(f"{verb} takes the user's name or id as text, not {type(user).__name__}; use str(user.id)")
    if not is_user(user):
        raise ValueError(f"{verb} takes 1 to {MAX_USER_CHARACTERS} printable characters")
    return user


def is_user(text: str) -> bool:
    """Tell whether a text can be a user's name."""
    return 1 <= len(text) <= MAX_USER_CHARACTERS and text.isprintable()


def checked_method(auth_method: object) -> str | None:
    """Return how a user proved who they are. Raises TypeError and ValueError for an unfit value."""
    if auth_method is None:
        return None
    if not isinstance(auth_method, str):
        raise TypeError(f"auth_method must be text such as 'pwd otp', not {type(auth_method).__name__}")
    if not 1 <= len(auth_method) <= MAX_METHOD_CHARACTERS or not (
        auth_method.isprintable() and auth_method.isascii()
    ):
        raise ValueError(f"auth_method must be 1 to {MAX_METHOD_CHARACTERS} printable ASCII characters: 'pwd otp'")
    return auth_method


def named_user(value: object) -> str | None:
    """Return the user that a login library's value names: a text, a whole number, a UUID; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    return None


def unseen_user_key(values: Mapping[str, object]) -> str | None:
    """Return the key of a login library under which a user stands, None if there is none."""
    return next((key for key in KNOWN_USER_KEYS if named_user(values.get(key)) is not None), None)
