"""Beaker's sessions, as `ext:database` stores them with `data_serializer = json`."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any

from prism_wsgi.compat.importing.peer import (
    PeerSession,
    Skip,
    SkippedError,
    binary,
    check_not_over,
    decompress,
    is_pickled,
    read_json,
    text,
)
from prism_wsgi.cookie_fallbacks import BEAKER_KEY, BeakerCookie

ACCESSED, CREATED = "_accessed_time", "_creation_time"
NOT_KEPT = (ACCESSED, "_domain", "_path")

# Beaker puts its JSON, compressed and in base64, into a dict that SQLAlchemy pickles: {"session": "eJy..."}. Nothing
# is unpickled: this matches only the bytes that pickle's protocols 2 to 5 write for such a dict.
_MEMO, _FRAME = rb"(?:\x94|q.)", rb"(?:\x95.{8})?"
_PICKLED_DICT = re.compile(
    rb"\x80[\x02-\x05]" + _FRAME + rb"\}" + _MEMO
    + rb"(?:\x8c\x07|X\x07\0\0\0)session" + _MEMO + _FRAME
    + rb"(?:\x8c.|X.{4})([A-Za-z0-9+/=]*)" + _FRAME + _MEMO + _FRAME
    + rb"s\.",
    re.DOTALL,
)  # fmt: skip


class BeakerPeer:
    """The table `beaker_cache`. `timeout` is `session.timeout` in seconds, None if there was none."""

    origin = BeakerCookie.origin
    columns = ("namespace", "data")
    order = "namespace"

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row that cannot be read."""
        return str(row["namespace"])

    def read(self, row: Mapping[str, Any], now: int) -> PeerSession:
        """Return the session in a row of `beaker_cache`."""
        key = text(row["namespace"], Skip.NO_SESSION)
        if not BEAKER_KEY.fullmatch(key):
            raise SkippedError(Skip.NO_SESSION)
        values = read_json(_inner(binary(row["data"])))
        created_at, expires_at = _moment(values.get(CREATED)), None
        if self._timeout is not None and (accessed := _moment(values.get(ACCESSED))) is not None:
            expires_at = accessed + int(self._timeout * 1000)
            check_not_over(expires_at, now)
        values = {name: value for name, value in values.items() if name not in NOT_KEPT}
        if not values.keys() - {CREATED}:
            raise SkippedError(Skip.EMPTY)
        return PeerSession(key, values, created_at, expires_at)


def _inner(data: bytes) -> bytes:
    found = _PICKLED_DICT.fullmatch(data)
    if found is None:
        raise SkippedError(Skip.PICKLED if is_pickled(data) else Skip.UNREADABLE)
    try:
        inner = b64decode(found[1], validate=True)
    except Base64Error:
        raise SkippedError(Skip.UNREADABLE) from None
    if is_pickled(inner):
        raise SkippedError(Skip.PICKLED)
    return decompress(inner)


def _moment(seconds: object) -> int | None:
    return int(seconds * 1000) if isinstance(seconds, int | float) and 0 < seconds < 1e10 else None
