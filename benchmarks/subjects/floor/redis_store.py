"""The floor's store in Redis: one command or script at a time, written to the socket by hand."""

import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.subjects.floor.stores import MARKER, marker_expiry

_SAVE = b"""
for number, key in ipairs(KEYS) do
  local data, expires_at = ARGV[2 * number - 1], ARGV[2 * number]
  redis.call('HSET', key, 'data', data, 'expires_at', expires_at)
  redis.call('HINCRBY', key, 'version', 1)
  redis.call('PEXPIREAT', key, expires_at)
end
"""
_TOUCH = b"""
redis.call('HSET', KEYS[1], 'expires_at', ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
"""


class RedisFloor:
    """A hash for each session. A load is one HMGET, every write is one EVALSHA."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._prefix = parse_qs(place.query)["prefix"][0].encode() + b"floor:"
        self._socket = socket.create_connection((place.hostname or "127.0.0.1", place.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        if place.password:
            self._ask(b"AUTH", place.password.encode())
        self._ask(b"SELECT", place.path.strip("/").encode() or b"0")
        self._save, self._touch = (self._ask(b"SCRIPT", b"LOAD", script) for script in (_SAVE, _TOUCH))

    def load(self, key: bytes) -> tuple[bytes, int] | None:
        data, expires_at = self._ask(b"HMGET", self._prefix + key, b"data", b"expires_at")
        return None if data is None else (data, int(expires_at))

    def insert(self, key: bytes, data: bytes, expires_at: int) -> None:
        self._ask(b"EVALSHA", self._save, b"1", self._prefix + key, data, b"%d" % expires_at)

    update = insert

    def touch(self, key: bytes, expires_at: int) -> None:
        self._ask(b"EVALSHA", self._touch, b"1", self._prefix + key, b"%d" % expires_at)

    def replace(self, old: bytes, new: bytes, data: bytes, expires_at: int) -> None:
        keys = (self._prefix + old, self._prefix + new)
        marker = (MARKER, b"%d" % marker_expiry())
        self._ask(b"EVALSHA", self._save, b"2", *keys, *marker, data, b"%d" % expires_at)

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def _ask(self, *words: bytes) -> Any:
        """Send a command and return its answer; RESP 2, as the Redis documentation describes it."""
        framed = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self._socket.sendall(b"*%d\r\n%b" % (len(words), b"".join(framed)))
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self._answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind in (b"-", b""):
            raise RuntimeError(f"Redis answered {line.decode()!r}")
        return rest
