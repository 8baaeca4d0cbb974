"""Another package as an import sees it: rows of a table, each read as a session or skipped for a reason."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

MAX_DECOMPRESSED = 16 * 1024 * 1024  # bytes; a few compressed kilobytes can expand to gigabytes

_PICKLE_PROTOCOLS = tuple(bytes([0x80, number]) for number in range(2, 6))


class Skip(StrEnum):
    """The reason why a row was not imported."""

    EXPIRED = "expired"
    """The session has expired."""
    ALREADY_IMPORTED = "already_imported"
    """Imported before, and perhaps in use since."""
    EMPTY = "empty"
    """The session is empty: Beaker's `delete()` leaves such rows."""
    NO_SESSION = "no_session"
    """The row is no session: Beaker's cache may use the same table."""
    WEAK_KEY = "weak_key"
    """A key that the package does not make, so that a visitor may have chosen it."""
    BAD_SIGNATURE = "bad_signature"
    """Not signed with one of the secret keys given."""
    UNVERIFIED_LOGIN = "unverified_login"
    """With a login that nothing verifies: Django might have ended it."""
    ENDED_LOGIN = "ended_login"
    """With a login that Django would end, because the user is gone or has changed the password."""
    PICKLED = "pickled"
    """Pickled: reading it would run stored code."""
    UNREADABLE = "unreadable"
    """In a format that this import does not know."""
    UNSTORABLE = "unstorable"
    """With a value that prism_wsgi does not store: NaN, a key that is no text."""
    TOO_LARGE = "too_large"
    """Larger than `--max-size`."""
    BAD_USER = "bad_user"
    """With a user that is no text or number, or is longer than 255 characters."""


HARMLESS = frozenset({Skip.EXPIRED, Skip.ALREADY_IMPORTED, Skip.EMPTY, Skip.NO_SESSION, Skip.ENDED_LOGIN})
"""The reasons that log nobody out."""


class SkippedError(Exception):
    """A row is skipped; `reason` says why."""

    def __init__(self, reason: Skip) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PeerSession:
    """One session of another package.

    `key` is the key in its cookie. `created_at` and `expires_at` are Unix ms. Without them the session begins now,
    and waits UNLIMITED_MS for its visitor. `persistent` is None if the configured one applies.
    """

    key: str = field(repr=False)
    values: dict[str, Any] = field(repr=False)
    created_at: int | None = None
    expires_at: int | None = None
    persistent: bool | None = None


class Peer(Protocol):
    """Another package: the columns of its table, the one that orders them, and the reader of a row."""

    @property
    def origin(self) -> str: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def order(self) -> str: ...

    def read(self, row: Mapping[str, Any], now: int) -> PeerSession:
        """Return the session in a row, at `now` (Unix ms). Raises SkippedError."""
        ...

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row that cannot be read."""
        ...


def text(value: object, otherwise: Skip) -> str:
    """Return a column's text. Raises SkippedError with the reason `otherwise` for any other value."""
    if isinstance(value, str):
        return value
    raise SkippedError(otherwise)


def binary(value: object) -> bytes:
    """Return a column's bytes. Raises SkippedError for any other value."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise SkippedError(Skip.UNREADABLE)


def milliseconds(moment: object) -> int:
    """Return a column's date and time in Unix ms; one without an offset is UTC. Raises SkippedError."""
    try:
        # SQLite returns text, other databases return a datetime.
        read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        raise SkippedError(Skip.UNREADABLE) from None
    if not isinstance(read, datetime):
        raise SkippedError(Skip.UNREADABLE)
    try:
        return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):  # with its offset, it is outside the years 1 to 9999
        raise SkippedError(Skip.UNREADABLE) from None


def check_not_over(expires_at: int, now: int) -> None:
    """Raise SkippedError for a session that has expired; its data is not read."""
    if expires_at <= now:
        raise SkippedError(Skip.EXPIRED)


def read_json(data: bytes) -> dict[str, Any]:
    """Return the object in a JSON text. Raises SkippedError."""
    if data.startswith(_PICKLE_PROTOCOLS):
        raise SkippedError(Skip.PICKLED)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise SkippedError(Skip.UNREADABLE) from None
    return checked_values(values)


def checked_values(values: object) -> dict[str, Any]:
    """Return the values read from a row's data. Raises SkippedError if they are no dict."""
    if not isinstance(values, dict):
        raise SkippedError(Skip.UNREADABLE)
    return values


def decompress(data: bytes) -> bytes:
    """Return the bytes that zlib has compressed. Raises SkippedError."""
    reader = zlib.decompressobj()
    try:
        inflated = reader.decompress(data, MAX_DECOMPRESSED)
    except zlib.error:
        raise SkippedError(Skip.UNREADABLE) from None
    if reader.unconsumed_tail:
        raise SkippedError(Skip.TOO_LARGE)
    return inflated


def is_pickled(data: bytes) -> bool:
    """Tell whether data begins as a pickle does."""
    return data.startswith(_PICKLE_PROTOCOLS)
