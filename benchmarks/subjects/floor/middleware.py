"""The floor's middleware: a signed cookie around a session that is loaded at the first access."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgpack

from benchmarks.subjects.floor.stores import FloorStore

SESSION_KEY = "floor.session"
TTL = 14 * 24 * 3600


class FloorSession:
    """A mapping that is loaded at the first access."""

    values: dict[str, Any] | None = None
    is_stored = changed = renewed = False
    retired: bytes | None = None

    def __init__(self, store: FloorStore, key: bytes | None) -> None:
        self.store = store
        self.key = key

    def load(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self.key is not None:
            row = self.store.load(self.key)
            if row is not None and row[1] > time.time() * 1000:
                values = msgpack.unpackb(row[0])
                self.is_stored = True
        self.values = values
        return values

    def get(self, name: str, default: Any = None) -> Any:
        values = self.values
        if values is None:
            values = self.load()
        return values.get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        values = self.values
        if values is None:
            values = self.load()
        values[name] = value
        self.changed = True

    def update(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self[name] = value

    def login(self, user: str) -> None:
        """Move to a new id."""
        self["user"] = user
        self.retired, self.key = self.key, _new_key()

    def save(self) -> None:
        expires_at = int((time.time() + TTL) * 1000)
        if self.changed:
            data = msgpack.packb(self.values)
            if self.key is None:
                self.key = _new_key()
            if self.retired is not None:
                self.store.replace(self.retired, self.key, data, expires_at)
            elif self.is_stored:
                self.store.update(self.key, data, expires_at)
            else:
                self.store.insert(self.key, data, expires_at)
        elif self.renewed:
            assert self.key is not None
            self.store.touch(self.key, expires_at)


class FloorMiddleware:
    """Cookie `floor=<id in hex><HMAC in hex>`."""

    def __init__(self, app: WSGIApplication, store: FloorStore, secret: bytes) -> None:
        self.app = app
        self.store = store
        # HMAC-SHA-256 with both pads hashed in already: a third of the cost of hmac.digest.
        padded = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        cookies = environ.get("HTTP_COOKIE", "")
        sent = self._verified(cookies)
        is_new_here = "floor=" not in cookies
        session = FloorSession(self.store, sent)
        environ[SESSION_KEY] = session

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            if session.changed or session.renewed:
                session.save()
            if session.key is not sent or is_new_here or session.renewed:
                headers = [*headers, ("Set-Cookie", self._cookie(session))]
            return start_response(status, headers, exc_info)

        return self.app(environ, start)

    def _cookie(self, session: FloorSession) -> str:
        key = session.key or _new_key()
        return f"floor={key.hex()}{self._signature(key)}; Path=/; Max-Age={TTL}; HttpOnly; SameSite=Lax"

    def _verified(self, cookies: str) -> bytes | None:
        for cookie in cookies.split("; "):
            if cookie.startswith("floor="):
                key = bytes.fromhex(cookie[6:70])
                return key if self._signature(key) == cookie[70:] else None
        return None

    def _signature(self, key: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key)
        outer.update(inner.digest())
        return outer.hexdigest()


def _new_key() -> bytes:
    return int(time.time() * 1000).to_bytes(6, "big") + os.urandom(26)
