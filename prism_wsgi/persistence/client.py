"""Client: which device uses a session, recorded only where `record_client` asks for it."""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from wsgiref.types import WSGIEnvironment

MAX_ADDRESS_CHARACTERS = 64
MAX_USER_AGENT_CHARACTERS = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECORD = struct.Struct(">QHH")  # last seen, and how many bytes of address and user agent follow


@dataclass(frozen=True, slots=True)
class Client:
    """The device that last used a session.

    `address` is REMOTE_ADDR as the server gives it: behind a proxy the proxy's, unless server or middleware has put
    the visitor's there. No header is trusted for it. `user_agent` is what the browser says it is, cut at 256
    characters; both are empty where the request had none. `last_seen_at` is in UTC, and as exact as
    `touch_interval`.
    """

    address: str
    user_agent: str
    last_seen_at: datetime


def client_in(environ: WSGIEnvironment, now: int) -> Client:
    """Return who makes a request at `now` (Unix ms)."""
    address = _cleaned(environ.get("REMOTE_ADDR", ""), MAX_ADDRESS_CHARACTERS)
    user_agent = _cleaned(environ.get("HTTP_USER_AGENT", ""), MAX_USER_AGENT_CHARACTERS)
    return Client(address, user_agent, _moment(now))


def pack_client(client: Client) -> bytes:
    """Return a client as bytes."""
    address, user_agent = client.address.encode(), client.user_agent.encode()
    last_seen = (client.last_seen_at - _EPOCH) // timedelta(milliseconds=1)
    return _RECORD.pack(last_seen, len(address), len(user_agent)) + address + user_agent


def unpack_client(data: bytes) -> tuple[Client, bytes]:
    """Return what `pack_client` was given, and the bytes behind it. Raises ValueError for other bytes."""
    try:
        last_seen, address_size, agent_size = _RECORD.unpack_from(data)
        middle = _RECORD.size + address_size
        end = middle + agent_size
        client = Client(data[_RECORD.size : middle].decode(), data[middle:end].decode(), _moment(last_seen))
    except (struct.error, OverflowError) as error:
        raise ValueError(f"no record of a client: {type(error).__name__}") from None
    if len(data) < end:
        raise ValueError("a record of a client that is cut short")
    return client, data[end:]


def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _cleaned(text: str, longest: int) -> str:
    return "".join(character for character in text[:longest] if character.isprintable())
