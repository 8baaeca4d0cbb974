"""Document: what a session's stored bytes hold, the application's values and the session's own properties."""

import struct
from dataclasses import dataclass, field
from typing import Any

from prism_wsgi.errors import SerializationError, SessionTooLarge
from prism_wsgi.persistence.client import Client, pack_client, unpack_client
from prism_wsgi.persistence.encryption import is_sealed
from prism_wsgi.persistence.merge import merge
from prism_wsgi.serializers import Serializer

_PLAIN = b"\x01"
_WITH_PROPERTIES = b"\x02"
_WITH_CLIENT = b"\x03"
_PROPERTIES = struct.Struct(">IBQ")  # ttl, persistent, lease
_PERSISTENT = {None: 0, False: 1, True: 2}
_PERSISTENT_BACK = {code: value for value, code in _PERSISTENT.items()}


@dataclass(slots=True)
class Document:
    """A session's values and what it decided for itself.

    `ttl` (seconds) and `persistent` are None where the configured ones hold. `lease` is the random number of
    the request that is inside `atomic()`, 0 when none is. `client` is who used the session last, where that is
    recorded.
    """

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    ttl: int | None = None
    persistent: bool | None = None
    lease: int = 0
    client: Client | None = None

    def is_blank(self) -> bool:
        """Tell whether there is nothing worth storing."""
        return not self.values and self.ttl is None and self.persistent is None


class Codec:
    """Turns documents into stored bytes and back; the first byte says in which format the rest is."""

    def __init__(self, serializer: Serializer, max_size: int) -> None:
        self.serializer = serializer
        self._max_size = max_size
        self._check = getattr(serializer, "check", None)
        self._dumps_checked = getattr(serializer, "dumps_checked", serializer.dumps)

    def check(self, key: object, value: object) -> None:
        """Raise SerializationError when a value cannot be stored, as early as the serializer can tell."""
        if type(key) is not str:
            raise SerializationError(f"session[{key!r}]: keys must be str, not {type(key).__name__}", "session")
        if self._check is not None:
            if not key.isascii():
                self._check("session", {key: None})
            self._check(f"session[{key!r}]", value)

    def encode(self, document: Document, *, checked: bool = False) -> bytes:
        """Return the bytes to store. Raises SerializationError and SessionTooLarge.

        `checked`: every value has passed `check`, and none can have changed since.
        """
        dumps = self._dumps_checked if checked else self.serializer.dumps
        data = _header(document) + dumps(document.values)
        if len(data) > self._max_size:
            self._refuse_too_large(document, len(data))
        return data

    def decode(self, data: bytes) -> Document:
        """Return what `encode` was given. Raises SerializationError for bytes it does not understand."""
        form = data[:1]
        if form == _PLAIN:
            return Document(self._loads(data[1:]))
        if form in (_WITH_PROPERTIES, _WITH_CLIENT) and len(data) > _PROPERTIES.size:
            ttl, persistent, lease = _PROPERTIES.unpack_from(data, 1)
            client, rest = None, data[1 + _PROPERTIES.size :]
            if form == _WITH_CLIENT:
                client, rest = _split_client(rest)
            return Document(self._loads(rest), ttl or None, _PERSISTENT_BACK.get(persistent), lease, client)
        if is_sealed(data):
            raise SerializationError("Stored session data is encrypted, and encryption_key is not set")
        raise SerializationError("Stored session data is in a format that this version does not know")

    def is_unchanged(self, document: Document, data: bytes) -> bool:
        """Tell whether `document` is what `data` holds."""
        try:
            return _header(document) + self._dumps_checked(document.values) == data
        except SerializationError:
            return False

    def merge(self, base: Document, mine: Document, theirs: Document) -> Document:
        """Return `theirs` with what changed between `base` and `mine`, value by value."""
        return Document(
            merge(base.values, mine.values, theirs.values, lambda value: self.serializer.dumps({"": value})),
            theirs.ttl if mine.ttl == base.ttl else mine.ttl,
            theirs.persistent if mine.persistent == base.persistent else mine.persistent,
            theirs.lease if mine.lease == base.lease else mine.lease,
            theirs.client,
        )

    def _loads(self, data: bytes) -> dict[str, Any]:
        """Read the values; a serializer of the application's own may fail in ways of its own."""
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

    def _refuse_too_large(self, document: Document, size: int) -> None:
        # What we add of our own accord must not make a session too large that was not.
        if document.client is not None:
            size -= len(pack_client(document.client))
        if size <= self._max_size:
            return
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
    if document.ttl is None and document.persistent is None and not document.lease and document.client is None:
        return _PLAIN
    properties = _PROPERTIES.pack(document.ttl or 0, _PERSISTENT[document.persistent], document.lease)
    if document.client is None:
        return _WITH_PROPERTIES + properties
    return _WITH_CLIENT + properties + pack_client(document.client)


def _split_client(data: bytes) -> tuple[Client, bytes]:
    try:
        return unpack_client(data)
    except ValueError as error:
        raise SerializationError(f"Stored session data cannot be read: {error}") from None
