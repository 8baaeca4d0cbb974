"""Flask-Session's sessions, as its SQLAlchemy interface stores them: msgpack or JSON."""

from collections.abc import Mapping
from typing import Any

import msgpack

from prism_wsgi.compat.importing.peer import (
    PeerSession,
    Skip,
    SkippedError,
    binary,
    check_not_over,
    checked_values,
    is_pickled,
    milliseconds,
    read_json,
    text,
)
from prism_wsgi.cookie_fallbacks import FLASK_SESSION_KEY, FlaskSessionCookie

PERMANENT = "_permanent"


class FlaskSessionPeer:
    """The table `sessions`. `key_prefix` is SESSION_KEY_PREFIX, with which each id there begins."""

    origin = FlaskSessionCookie.origin
    columns = ("id", "session_id", "data", "expiry")
    order = "id"

    def __init__(self, key_prefix: str) -> None:
        self._prefix = key_prefix

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row that cannot be read."""
        return str(row["session_id"]).removeprefix(self._prefix)

    def read(self, row: Mapping[str, Any], now: int) -> PeerSession:
        """Return the session in a row of `sessions`."""
        if row["expiry"] is None:
            raise SkippedError(Skip.EXPIRED)  # Flask-Session's meaning of NULL
        expires_at = milliseconds(row["expiry"])
        check_not_over(expires_at, now)
        name = text(row["session_id"], Skip.WEAK_KEY)
        key = name.removeprefix(self._prefix)
        if not name.startswith(self._prefix) or not FLASK_SESSION_KEY.fullmatch(key):
            raise SkippedError(Skip.WEAK_KEY)
        values = _read(binary(row["data"]))
        permanent = values.pop(PERMANENT, None)
        if not values:
            raise SkippedError(Skip.EMPTY)
        return PeerSession(key, values, expires_at=expires_at, persistent=bool(permanent))


def _read(data: bytes) -> dict[str, Any]:
    if data.startswith(b"{"):  # in msgpack that is the number 123, which is no session
        return read_json(data)
    try:
        # 3: msgspec's value of a datetime with an offset comes back as a datetime.
        return checked_values(msgpack.unpackb(data, timestamp=3, strict_map_key=False))
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):  # TypeError: a list as a key
        raise SkippedError(Skip.PICKLED if is_pickled(data) else Skip.UNREADABLE) from None
