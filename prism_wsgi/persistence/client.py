"""The client: the device that uses a session, recorded only with `record_client`."""

import struct
from datetime import UTC, datetime, timedelta

from prism_wsgi.events import Client
from prism_wsgi.stores.base import StoredSession

MAX_ADDRESS_CHARACTERS = 64
MAX_USER_AGENT_CHARACTERS = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECORD = struct.Struct(">QHH")  # last seen, and the sizes in bytes of the address and user agent that follow


def client_of(stored: StoredSession) -> Client | None:
    """Return the device that last used a stored session, None if none was recorded."""
    if stored.client_address is None and stored.user_agent is None:
        return None
    seen = stored.last_seen_at or 0
    return Client(stored.client_address or "", stored.user_agent or "", _EPOCH + timedelta(milliseconds=seen))


def clean_address(text: str) -> str:
    """Return an address as it is stored: printable, and no longer than its column."""
    return _cleaned(text, MAX_ADDRESS_CHARACTERS)


def clean_user_agent(text: str) -> str:
    """Return a user agent as it is stored: printable, and no longer than its column."""
    return _cleaned(text, MAX_USER_AGENT_CHARACTERS)


def unpack_client(data: bytes) -> tuple[int, str, str, bytes]:
    """Read a client from a session's data, where earlier releases stored it.

    Returns when it was last seen (Unix ms), its address and user agent, and the bytes behind. Raises ValueError.
    """
    try:
        last_seen, address_size, agent_size = _RECORD.unpack_from(data)
        middle = _RECORD.size + address_size
        end = middle + agent_size
        address, user_agent = data[_RECORD.size : middle].decode(), data[middle:end].decode()
    except struct.error as error:
        raise ValueError(f"no record of a client: {type(error).__name__}") from None
    if len(data) < end:
        raise ValueError("a record of a client that is cut short")
    return last_seen, address, user_agent, data[end:]


def _cleaned(text: str, longest: int) -> str:
    return "".join(character for character in text[:longest] if character.isprintable())
