"""The names of sessions that came from elsewhere: all follow from the key in the visitor's old cookie.

That key, unlike a secret of prism_wsgi, stood in the clear in the old store. The new store never holds it: the id
that an imported session waits under is its hash, and so is the secret with which the visitor goes on.
"""

import hashlib
from base64 import urlsafe_b64encode

from prism_wsgi.tokens import ID_LENGTH, RANDOM_BYTES, TIME_BYTES


def imported_id(origin: str, key: str) -> str:
    """Return the id under which the session of an old key waits for its visitor.

    It begins with the time zero, so that no drawn secret leads to it and no cookie can name it.
    """
    return _digest("imported session", origin, key).hex().rjust(ID_LENGTH, "0")


def adopted_secret(origin: str, key: str, moved_at: int) -> str:
    """Return the secret with which the visitor goes on, of a session that moves at `moved_at` (Unix ms).

    It follows from both, so that each request that brings the same old key finds the same session; the time is in
    the session's id too. Nothing opens by a secret that we have not signed.
    """
    drawn = moved_at.to_bytes(TIME_BYTES, "big") + _digest("adopted secret", origin, key)
    return urlsafe_b64encode(drawn).rstrip(b"=").decode("ascii")


def _digest(purpose: str, origin: str, key: str) -> bytes:
    # No purpose and no origin holds a zero byte, so the parts cannot run into each other.
    return hashlib.sha256(f"prism_wsgi {purpose}\0{origin}\0{key}".encode()).digest()[:RANDOM_BYTES]
