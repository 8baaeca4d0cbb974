"""What the sessions of another package are to an import: rows of a table, each read or skipped for a reason."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

MAX_DECOMPRESSED = 16 * 1024 * 1024  # bytes; a few kilobytes can claim to be gigabytes

_PICKLE_PROTOCOLS = tuple(bytes([0x80, number]) for number in range(2, 6))


class Skip(StrEnum):
    """Why a row was not imported."""

    EXPIRED = "expired"
    """Over already."""
    ALREADY_IMPORTED = "already_imported"
    """Imported before, and perhaps in use by now."""
    EMPTY = "empty"
    """Nothing is in it: what Beaker's `delete()` leaves."""
    NO_SESSION = "no_session"
    """Something else in the same table: what Beaker caches."""
    WEAK_KEY = "weak_key"
    """A key that the package does not make, so that a visitor may have chosen it."""
    BAD_SIGNATURE = "bad_signature"
    """Not signed with one of the secret keys given."""
    UNVERIFIED_LOGIN = "unverified_login"
    """With a user, and nothing to tell whether Django would still take the login."""
    ENDED_LOGIN = "ended_login"
    """With a user who is gone, or has changed the password since: Django would not take the login any more."""
    PICKLED = "pickled"
    """Pickled: reading it would run whatever was stored."""
    UNREADABLE = "unreadable"
    """In no format that this import knows."""
    UNSTORABLE = "unstorable"
    """With a value that prism_wsgi does not store: NaN, a key that is no text."""
    TOO_LARGE = "too_large"
    """Larger than `--max-size`."""
    BAD_USER = "bad_user"
    """With a user who is no text or number, or longer than 255 characters."""


HARMLESS = frozenset({Skip.EXPIRED, Skip.ALREADY_IMPORTED, Skip.EMPTY, Skip.NO_SESSION, Skip.ENDED_LOGIN})
"""Skipped without anybody being logged out."""


class SkippedError(Exception):
    """A row is not to be imported; `reason` says why."""

    def __init__(self, reason: Skip) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PeerSession:
    """One session as another package has it.

    `key` is what its cookie carries. `created_at` and `expires_at` are Unix ms; without them the session begins now,
    and ends when nobody has come for it for a while. `persistent` is None where the configured one holds.
    """

    key: str = field(repr=False)
    values: dict[str, Any] = field(repr=False)
    created_at: int | None = None
    expires_at: int | None = None
    persistent: bool | None = None


class Peer(Protocol):
    """Another package: the columns of its table, in the order of one of them, and how a row is read."""

    @property
    def origin(self) -> str: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def order(self) -> str: ...

    def read(self, row: Mapping[str, Any], now: int) -> PeerSession:
        """Return the session in a row, at `now` (Unix ms). Raises SkippedError."""
        ...


def text(value: object, otherwise: Skip) -> str:
    """Return a column's text. Raises SkippedError with the reason `otherwise` for anything else."""
    if isinstance(value, str):
        return value
    raise SkippedError(otherwise)


def binary(value: object) -> bytes:
    """Return a column's bytes. Raises SkippedError for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise SkippedError(Skip.UNREADABLE)


def milliseconds(moment: object) -> int:
    """Return a column's date and time in Unix ms; one without an offset is UTC. Raises SkippedError."""
    try:
        # SQLite has text where the others have a datetime.
        read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        raise SkippedError(Skip.UNREADABLE) from None
    if not isinstance(read, datetime):
        raise SkippedError(Skip.UNREADABLE)
    try:
        return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):  # an offset that leads out of the years 1 to 9999
        raise SkippedError(Skip.UNREADABLE) from None


def check_not_over(expires_at: int, now: int) -> None:
    """Raise SkippedError for a session that has expired; its data is never looked at."""
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
    """Return what was read from a row's data, if it is a session's values. Raises SkippedError."""
    if not isinstance(values, dict):
        raise SkippedError(Skip.UNREADABLE)
    return values


def decompress(data: bytes) -> bytes:
    """Return what zlib has compressed. Raises SkippedError."""
    reader = zlib.decompressobj()
    try:
        inflated = reader.decompress(data, MAX_DECOMPRESSED)
    except zlib.error:
        raise SkippedError(Skip.UNREADABLE) from None
    if reader.unconsumed_tail:
        raise SkippedError(Skip.TOO_LARGE)
    return inflated


def is_pickled(data: bytes) -> bool:
    """Tell whether data begins as pickles do."""
    return data.startswith(_PICKLE_PROTOCOLS)
