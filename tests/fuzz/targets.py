"""What is fuzzed: functions that take any bytes and raise when a promise about them is broken."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from prism_wsgi import MemoryStore, SerializationError, Session, SessionMiddleware, StoredSession
from prism_wsgi.cookies import read_cookie
from prism_wsgi.persistence.document import Codec
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.tokens import Signer, is_token_shaped, new_secret

NAME = "prism_session"
NOW = 1_800_000_000_000
KEYS = [b"the first key of the fuzzing, 32 bytes", b"an old key of the fuzzing, of 32 bytes"]
TOKEN_PLACE = "{token}"  # where an input wants a valid token

SERIALIZER = TypedSerializer()
CODEC = Codec(SERIALIZER, 65536)
SIGNER = Signer(KEYS, NAME)
OLD_SIGNER = Signer(KEYS[1:], NAME)
SECRET = new_secret(NOW)
TOKEN = SIGNER.sign(SECRET, 0)


def plain_reading(header: str, name: str) -> list[str]:
    """Read a cookie as `read_cookie` does, in another way: one character after the other."""
    found: list[str] = []
    key, value, in_value = "", "", False
    for character in header + ";":
        if character == ";":
            value = value.rstrip(" \t")
            if in_value and key == name and value and value not in found:
                found.append(value)
            key, value, in_value = "", "", False
        elif in_value:
            if value or character not in " \t":
                value += character
        elif character == "=":
            in_value = True
        elif key or character not in " \t":
            key += character
    return found


def cookie_reader(data: bytes) -> None:
    """Two independent readers agree on any header and name."""
    header, _, name = data.decode("latin-1").partition("\n")
    name = name or NAME
    if "=" in name or ";" in name or name != name.strip(" \t"):
        return  # no cookie has such a name
    assert read_cookie(header, name) == plain_reading(header, name)


class _CountingStore(MemoryStore):
    loads = 0

    def load(self, session_id: str) -> StoredSession | None:
        self.loads += 1
        return super().load(session_id)


_store = _CountingStore(clock=lambda: NOW / 1000)
_asked: list[bool] = []


def _application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    session: Session = environ["prism.session"]
    assert session.get("n") is None
    _asked.append(True)
    start_response("200 OK", [])
    return []


_site = SessionMiddleware(_application, store=_store, secret=KEYS, clock=lambda: NOW / 1000)
_TOKEN_OF_THE_SITE = _site.site.cookies.signer.sign(SECRET, 0)


def request(data: bytes) -> None:
    """Any Cookie header is answered, and costs a store call only when it holds a token that we signed."""
    header = data.decode("latin-1").replace(TOKEN_PLACE, _TOKEN_OF_THE_SITE)
    _store.loads = 0
    _asked.clear()
    environ = {"REQUEST_METHOD": "GET", "HTTP_COOKIE": header}
    _site(environ, lambda status, headers, exc_info=None: lambda data: None)
    values = plain_reading(header, NAME)
    assert _asked == [True]
    assert _store.loads == 0 or _TOKEN_OF_THE_SITE in values
    assert _store.loads == 1 or values != [_TOKEN_OF_THE_SITE]


def token_decoder(data: bytes) -> None:
    """No value opens a session but the one spelling that signing gives, and claims come back as signed."""
    text = data.decode("latin-1")
    assert SIGNER.verify(text) is None
    is_token_shaped(text)
    for signer in (SIGNER, OLD_SIGNER):
        _forge(signer, text)
    mutated = _mutate(TOKEN, data)
    assert (SIGNER.verify(mutated) is not None) == (mutated == TOKEN)


def _forge(signer: Signer, claims: str) -> None:
    """Sign claims as only we could, and see that what is well formed says one thing only."""
    if not claims.isascii():
        return
    token = f"{claims}.{signer._signature(signer._macs[0], claims)}"
    if not is_token_shaped(token):
        return
    said = SIGNER.verify(token)
    assert said is not None
    assert said.outdated_key == (signer is OLD_SIGNER)
    if said.ttl != 0:
        assert signer.sign(said.secret, said.refreshed, said.ttl, said.persistent) == token


def _mutate(token: str, data: bytes) -> str:
    """Change a token: each pair of bytes says where and to what."""
    changed = list(token)
    for place, character in zip(data[::2], data[1::2], strict=False):
        if place < 128:
            changed[place % len(changed)] = chr(character)
        elif place < 192:
            changed.insert(place % len(changed), chr(character))
        elif len(changed) > 1:
            del changed[character % len(changed)]
    return "".join(changed)


def serializer(data: bytes) -> None:
    """Any bytes are refused with SerializationError, or hold a value that is refused so, or stored and comes back."""
    with suppress(SerializationError):
        value = SERIALIZER.loads(data)
        stored = SERIALIZER.dumps_checked(value)
        assert SERIALIZER.dumps_checked(SERIALIZER.loads(stored)) == stored
    with suppress(SerializationError):
        document = CODEC.read(data)
        stored = CODEC.encode(document)
        assert CODEC.read(stored) == document


def round_trip(data: bytes) -> None:
    """What `dumps` takes comes back as it was; what it does not take is refused with SerializationError."""
    session = _Drawing(data).mapping(0)
    try:
        stored = SERIALIZER.dumps(session)
    except SerializationError:
        return
    loaded = SERIALIZER.loads(stored)
    assert loaded == session
    assert SERIALIZER.dumps(loaded) == stored
    assert SERIALIZER.dumps_checked(session) == stored


class _Drawing:
    """Draws a session from bytes, so that each change of a byte changes the session a little."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def mapping(self, depth: int) -> dict[Any, Any]:
        return {self._key(): self.value(depth + 1) for _ in range(self._number(1) % 5)}

    def value(self, depth: int) -> Any:
        kind = self._number(1) % 24
        if depth > 70 or self._position >= len(self._data):
            kind %= 12
        if kind < 12:
            return self._scalar(kind)
        if kind < 14:
            return self._surprise(kind)
        elements = [self.value(depth + 1) for _ in range(self._number(1) % 4)]
        if kind < 16:
            return elements
        if kind < 18:
            return tuple(elements)
        if kind < 20:
            return self.mapping(depth)
        hashable = [element for element in elements if _is_hashable(element)]
        return set(hashable) if kind < 22 else frozenset(hashable)

    def _scalar(self, kind: int) -> Any:
        number = self._number(4)
        draw: list[Callable[[], Any]] = [
            lambda: None,
            lambda: bool(number & 1),
            lambda: number - 2**31,
            lambda: (number - 2**31) << (number % 200),
            lambda: float.fromhex(f"{'-' if number & 1 else ''}0x1.{number:x}p{number % 2000 - 1000}"),
            lambda: self._text(number % 8),
            lambda: self._take(number % 8),
            lambda: datetime.fromtimestamp(number, UTC if number & 1 else None),
            lambda: date.fromordinal(1 + number % 3_000_000),
            lambda: time(number % 24, number % 60, number % 59, number % 1_000_000),
            lambda: timedelta(number % 10_000, number, -number),
            lambda: UUID(int=number) if number & 1 else Decimal(number).scaleb(number % 100 - 50).normalize(),
        ]
        return draw[kind]()

    def _surprise(self, kind: int) -> Any:
        """Draw what is mostly refused."""
        number = self._number(1)
        return [float("nan"), float("inf"), "\ud800", Decimal("sNaN"), Decimal("-0"), -0.0, object, bytearray(b"x")][
            number % 8
        ]

    def _key(self) -> Any:
        number = self._number(1)
        return number if number == 255 else self._text(number % 8)

    def _text(self, length: int) -> str:
        return self._take(length).decode("utf-8", "surrogateescape" if length == 7 else "replace")

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:  # signalling NaN too
        return False
    return True


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (cookie_reader, request, token_decoder, serializer, round_trip)
}
