"""The ids and secrets of imported sessions, derived from the key in the visitor's old cookie.

The old store held that key in clear text; the new one never holds it. The id under which an imported session waits is
a hash of the key, and so is the secret that the visitor gets.
"""

import hashlib
from base64 import urlsafe_b64encode

from prism_wsgi.tokens import ID_LENGTH, RANDOM_BYTES, TIME_BYTES

TAG_BYTES = 4


def waiting_prefix(origin: str) -> str:
    """Return the beginning of the ids under which sessions of one origin wait.

    It begins with a time of zero, which no drawn secret has, so no cookie can name such an id.
    """
    return "0" * 2 * TIME_BYTES + _digest("origin", origin)[:TAG_BYTES].hex()


def imported_id(origin: str, key: str) -> str:
    """Return the id under which the session of an old key waits for its visitor."""
    return waiting_prefix(origin) + _digest("imported session", origin, key)[TAG_BYTES:].hex()


def earlier_imported_id(origin: str, key: str) -> str:
    """Return the id under which a checkout before version 0.1 left the imported session of an old key."""
    return _digest("imported session", origin, key).hex().rjust(ID_LENGTH, "0")


def import_record_id(origin: str, key: str) -> str:
    """Return the id of the marker which tells that the session of an old key has been imported."""
    return "0" * 2 * TIME_BYTES + _digest("import record", origin, key).hex()


def adopted_secret(origin: str, key: str, moved_at: int) -> str:
    """Return the secret for the visitor of an imported session, which moves at `moved_at` (Unix ms).

    Key and time give the same secret each time, so that all requests with the old key find the same session; the time
    is in the session's id too. A secret opens nothing without our signature.
    """
    drawn = moved_at.to_bytes(TIME_BYTES, "big") + _digest("adopted secret", origin, key)
    return urlsafe_b64encode(drawn).rstrip(b"=").decode("ascii")


def _digest(purpose: str, origin: str, key: str = "") -> bytes:
    # No purpose and no origin holds a zero byte, so the parts cannot run into each other.
    return hashlib.sha256(f"prism_wsgi {purpose}\0{origin}\0{key}".encode()).digest()[:RANDOM_BYTES]
