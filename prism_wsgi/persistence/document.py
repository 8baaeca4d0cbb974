"""The document of a session: the application's values, the session's properties, and their bytes."""

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgpack

from prism_wsgi.errors import SerializationError, SessionTooLarge
from prism_wsgi.persistence.client import unpack_client
from prism_wsgi.persistence.encryption import is_sealed
from prism_wsgi.persistence.login import NOBODY, Login, login_of
from prism_wsgi.persistence.merge import merge
from prism_wsgi.serializers import Serializer
from prism_wsgi.stores.base import StoredSession

# The first byte of stored data is its format. The first two formats are written wherever they suffice, since workers
# of earlier releases read them; _WITH_CLIENT is only read.
_PLAIN = b"\x01"
_WITH_PROPERTIES = b"\x02"
_WITH_CLIENT = b"\x03"
_WITH_HEADER = b"\x04"
_PROPERTIES = struct.Struct(">IBQ")  # ttl, persistent, lock
_HEADER_SIZE = struct.Struct(">H")
_KINDS = {"ttl": int, "persistent": bool, "lock": int, "max_lifetime": int}
_PERSISTENT = {None: 0, False: 1, True: 2}
_PERSISTENT_BACK = {code: value for value, code in _PERSISTENT.items()}

FLASH_PREFIX = "_f_"
"""The prefix of the keys of flash queues; Pyramid's name."""
FLASK_FLASHES = "_flashes"
"""The key under which `flask.flash()` puts messages."""


@dataclass(slots=True)
class Document:
    """A session's values, the settings that it overrides, and its login.

    `ttl` (seconds), `persistent` and `max_lifetime` (seconds) are None if the configured ones apply. `lock` is the
    random number of the request that is inside `atomic()`, 0 when none is. `created_at` is in Unix ms. `created_at`
    and `login` are columns of the stored session; the rest is its data.
    """

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    ttl: int | None = None
    persistent: bool | None = None
    lock: int = 0
    max_lifetime: int | None = None
    created_at: int = 0
    login: Login = NOBODY

    @property
    def began(self) -> int:
        """When the absolute lifetime began, in Unix ms: at the last proof of who the user is, or with the session."""
        return self.login.authenticated_at or self.created_at

    def is_blank(self) -> bool:
        """Tell whether there is nothing to store; a choice of `persistent` alone is not stored."""
        return not self.values and self.ttl is None and self.max_lifetime is None


class Codec:
    """The encoding of documents as stored bytes, whose first byte is the format of the rest."""

    def __init__(self, serializer: Serializer, max_size: int) -> None:
        self.serializer = serializer
        self._max_size = max_size
        self._check = getattr(serializer, "check", None)
        self._dumps_checked = getattr(serializer, "dumps_checked", serializer.dumps)

    def check(self, key: object, value: object) -> Any:
        """Return the value for the session to hold; see `Serializer`.

        Raises SerializationError when the value cannot be stored, as early as the serializer can tell.
        """
        if not isinstance(key, str) or isinstance(key, Enum):
            raise SerializationError(f"session[{key!r}]: keys must be str, not {type(key).__name__}", "session")
        if self._check is None:
            return value
        if not key.isascii():
            self._check("session", {key: None})
        held = self._check(f"session[{key!r}]", value)
        return value if held is None else held

    def encode(self, document: Document, *, checked: bool = False) -> bytes:
        """Return the bytes to store. Raises SerializationError and SessionTooLarge.

        `checked`: every value has passed `check`, and none can have changed since. If a session is too large, flash
        messages are dropped first, the older half of the largest queue at a time: no page may ever show them.
        """
        dumps = self._dumps_checked if checked else self.serializer.dumps
        data = _header(document) + dumps(document.values)
        while len(data) > self._max_size:
            if not self._drop_flashes(document.values):
                self._refuse_too_large(document, len(data))
            data = _header(document) + dumps(document.values)
        return data

    def decode(self, stored: StoredSession) -> Document:
        """Return what is in a stored session. Raises SerializationError for bytes that it does not understand.

        A client in the data, where earlier releases stored it, moves to its columns.
        """
        data = stored.data
        if data[:1] == _WITH_CLIENT and len(data) > _PROPERTIES.size:
            data = stored.data = _take_client_out(stored)
        document = self.read(data)
        document.created_at, document.login = stored.created_at, login_of(stored)
        return document

    def read(self, data: bytes) -> Document:
        """Return the document that `encode` has encoded, without its columns. Raises SerializationError."""
        form = data[:1]
        if form == _PLAIN:
            return Document(self._loads(data[1:]))
        if form == _WITH_PROPERTIES and len(data) > _PROPERTIES.size:
            ttl, persistent, lock = _PROPERTIES.unpack_from(data, 1)
            return Document(
                self._loads(data[1 + _PROPERTIES.size :]), ttl or None, _PERSISTENT_BACK.get(persistent), lock
            )
        if form == _WITH_HEADER:
            header, rest = _split_header(data)
            return Document(
                self._loads(rest), header["ttl"], header["persistent"], header["lock"] or 0, header["max_lifetime"]
            )
        if is_sealed(data):
            raise SerializationError("Stored session data is encrypted, and encryption_key is not set")
        raise SerializationError("Stored session data is in a format that this version does not know")

    def is_unchanged(self, document: Document, data: bytes) -> bool:
        """Tell whether `data` is the encoded `document`."""
        try:
            return _header(document) + self._dumps_checked(document.values) == data
        except SerializationError:
            return False

    def merge(self, base: Document, mine: Document, theirs: Document) -> Document:
        """Return `theirs` with the changes between `base` and `mine`, value by value."""
        return Document(
            merge(base.values, mine.values, theirs.values, lambda value: self.serializer.dumps({"": value})),
            theirs.ttl if mine.ttl == base.ttl else mine.ttl,
            theirs.persistent if mine.persistent == base.persistent else mine.persistent,
            theirs.lock if mine.lock == base.lock else mine.lock,
            theirs.max_lifetime if mine.max_lifetime == base.max_lifetime else mine.max_lifetime,
            theirs.created_at,
            theirs.login if mine.login == base.login else mine.login,
        )

    def _loads(self, data: bytes) -> dict[str, Any]:
        """Read the values. The application's serializer may raise any error."""
        try:
            values = self.serializer.loads(data)
        except SerializationError:
            raise
        except Exception as error:  # noqa: BLE001, which the application chose
            # Not chained: the message of a parser quotes what it read.
            raise SerializationError(f"Stored session data cannot be read: {type(error).__name__}") from None
        if not isinstance(values, dict):
            raise SerializationError(f"Stored session data holds no dict, but a {type(values).__name__}")
        return values

    def _drop_flashes(self, values: dict[str, Any]) -> bool:
        """Drop the older half of the largest queue of flash messages; tell whether there was one to drop from."""
        queues = [
            key
            for key, messages in values.items()
            if (key.startswith(FLASH_PREFIX) or key == FLASK_FLASHES)
            and isinstance(messages, list)
            and len(messages) > 1
        ]
        if not queues:
            return False
        largest = max(queues, key=lambda key: len(self.serializer.dumps({key: values[key]})))
        del values[largest][: len(values[largest]) // 2]
        return True

    def _refuse_too_large(self, document: Document, size: int) -> None:
        sizes = {key: len(self.serializer.dumps({key: value})) for key, value in document.values.items()}
        largest = sorted(sizes, key=lambda key: sizes[key], reverse=True)[:3]
        named = ", ".join(f"{key[:80]!r} ({sizes[key]} bytes)" for key in largest)
        raise SessionTooLarge(
            f"The session is {size} bytes, more than max_size={self._max_size}. Its largest keys: {named}. "
            "Store large things elsewhere and keep their id in the session, or raise max_size",
            size=size,
            limit=self._max_size,
        )


def _header(document: Document) -> bytes:
    ttl, persistent, lock, max_lifetime = document.ttl, document.persistent, document.lock, document.max_lifetime
    if max_lifetime is not None:
        named = {"ttl": ttl, "persistent": persistent, "lock": lock or None, "max_lifetime": max_lifetime}
        header: bytes = msgpack.packb({name: value for name, value in named.items() if value is not None})
        return _WITH_HEADER + _HEADER_SIZE.pack(len(header)) + header
    if ttl is None and persistent is None and not lock:
        return _PLAIN
    return _WITH_PROPERTIES + _PROPERTIES.pack(ttl or 0, _PERSISTENT[persistent], lock)


def _split_header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the properties in a header, None for those it lacks, and the bytes behind it."""
    try:
        (size,) = _HEADER_SIZE.unpack_from(data, 1)
        start = 1 + _HEADER_SIZE.size
        header = msgpack.unpackb(data[start : start + size])
        read = {name: _property(header.get(name), kind) for name, kind in _KINDS.items()}
    except (struct.error, ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise SerializationError(f"Stored session data cannot be read: {type(error).__name__}") from None
    return read, data[start + size :]


def _property(value: object, kind: type) -> object:
    if value is not None and (type(value) is not kind or (kind is int and value < 1)):  # type: ignore[operator]
        raise TypeError("a property of another type")
    return value


def _take_client_out(stored: StoredSession) -> bytes:
    """Return a stored session's data without the client in it, which goes into its columns if they are empty."""
    start = 1 + _PROPERTIES.size
    try:
        seen, address, user_agent, rest = unpack_client(stored.data[start:])
    except ValueError as error:
        raise SerializationError(f"Stored session data cannot be read: {error}") from None
    if stored.client_address is None and stored.user_agent is None:
        stored.last_seen_at, stored.client_address, stored.user_agent = seen, address, user_agent
    properties = stored.data[1:start]
    return (_PLAIN if not any(properties) else _WITH_PROPERTIES + properties) + rest
