"""Cipher: what stores keep of a session, encrypted (AES-256-GCM, NIST SP 800-38D)."""

import secrets
from collections.abc import Sequence

from prism_wsgi.errors import ConfigError, SerializationError
from prism_wsgi.key_derivation import expand, extract

NONCE_BYTES = 12

# The first byte of what is stored, beside those that document.py has for what is not encrypted.
SERVER_FORMAT = b"\x10"
COOKIE_FORMAT = b"\x11"

_SERVER_PURPOSE = b"session encryption, version 1"
_COOKIE_PURPOSE = b"session encryption with the cookie, version 1"


class Cipher:
    """Seals and opens the data of sessions.

    Each session has a key of its own, derived from the server's key and the session's id, and `with_cookie` from
    the cookie's secret too. So the random nonces of a busy site never come near the 2**32 that one key allows.
    Id and user are bound in as associated data: what was sealed for one session opens under no other.

    The first of `keys` seals; every key opens. `reads_unencrypted` lets data pass that was never sealed. Raises
    ConfigError where the package `cryptography` is missing.
    """

    def __init__(self, keys: Sequence[bytes], *, with_cookie: bool, reads_unencrypted: bool) -> None:
        try:
            # Here, because only those who encrypt need it, and it takes 30 ms.
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigError(
                'encryption_key needs the package cryptography; install it: pip install "prism_wsgi[encryption]"'
            ) from error
        self._invalid_tag = InvalidTag
        self._aes_gcm = AESGCM
        self._extracted = [extract(key) for key in keys]
        self._with_cookie = with_cookie
        self._reads_unencrypted = reads_unencrypted

    def __repr__(self) -> str:
        return f"<Cipher with {len(self._extracted)} keys>"

    def seal(self, data: bytes, session_id: str, user: str | None, secret: str | None) -> bytes:
        """Return the bytes to store. `secret` is the one in the session's cookie."""
        form = COOKIE_FORMAT if self._with_cookie else SERVER_FORMAT
        key = _key(self._extracted[0], form, session_id, secret)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return form + nonce + self._aes_gcm(key).encrypt(nonce, data, _bound(form, session_id, user))

    def open(self, data: bytes, session_id: str, user: str | None, secret: str | None) -> bytes:
        """Return what `seal` was given. Raises SerializationError for anything that it did not seal so."""
        form = data[:1]
        if form not in (SERVER_FORMAT, COOKIE_FORMAT):
            if self._reads_unencrypted:
                return data
            raise SerializationError("Stored session data is not encrypted, and read_unencrypted is not set")
        nonce, sealed = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        bound = _bound(form, session_id, user)
        for extracted in self._extracted:
            key = _key(extracted, form, session_id, secret)
            try:
                return self._aes_gcm(key).decrypt(nonce, sealed, bound)
            except (self._invalid_tag, ValueError):  # ValueError: too short to have a nonce
                continue
        raise SerializationError(
            "Stored session data cannot be decrypted: it was changed, or encrypted for another session or by a key "
            "that is not among encryption_key"
        )


def is_sealed(data: bytes) -> bool:
    """Tell whether stored bytes are encrypted."""
    return data[:1] in (SERVER_FORMAT, COOKIE_FORMAT)


def _key(extracted: bytes, form: bytes, session_id: str, secret: str | None) -> bytes:
    if form == SERVER_FORMAT:
        return expand(extracted, _SERVER_PURPOSE, session_id.encode())
    if secret is None:
        raise SerializationError(
            "Stored session data is encrypted with its cookie, and only a request that brings the cookie can read it"
        )
    return expand(extracted, _COOKIE_PURPOSE, session_id.encode(), secret.encode())


def _bound(form: bytes, session_id: str, user: str | None) -> bytes:
    # The id has a fixed length, and "=" tells a user from nobody.
    return form + session_id.encode() + (b"" if user is None else b"=" + user.encode())
