"""The encryption of sessions' data (AES-256-GCM, NIST SP 800-38D)."""

import secrets
from collections.abc import Sequence

import msgpack

from prism_wsgi.errors import ConfigError, SerializationError
from prism_wsgi.key_derivation import expand, extract
from prism_wsgi.stores.base import StoredSession

NONCE_BYTES = 12

# The first byte of encrypted data; document.py has those of unencrypted data.
SERVER_FORMAT = b"\x12"
COOKIE_FORMAT = b"\x13"
# The formats of earlier releases, whose seal bound only id and user; they are only read.
_EARLIER = {b"\x10": SERVER_FORMAT, b"\x11": COOKIE_FORMAT}
_FORMATS = (SERVER_FORMAT, COOKIE_FORMAT, *_EARLIER)

_SERVER_PURPOSE = b"session encryption, version 1"
_COOKIE_PURPOSE = b"session encryption with the cookie, version 1"


class Cipher:
    """A cipher that seals and opens the data of sessions.

    Each session has its key, derived from the server's key and the session's id, and `with_cookie` from the cookie's
    secret too. So the random nonces of a busy site never come near the 2**32 that one key allows. The seal binds the
    columns that decide rights as associated data: the id, the user, when the session began, when and how the user
    proved who they are, who impersonates them, and the browser's key. So data sealed for one session opens under no
    other, and an attacker who can write to the database cannot make a login fresh or a session young again.

    The first of `keys` seals; every key opens. `reads_unencrypted` accepts data that was never sealed. Raises
    ConfigError if the package `cryptography` is missing.
    """

    def __init__(self, keys: Sequence[bytes], *, with_cookie: bool, reads_unencrypted: bool) -> None:
        try:
            # Imported here, because only encryption needs it and it takes 30 ms.
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

    def seal(self, row: StoredSession, secret: str | None) -> bytes:
        """Return a session's data as it is to be stored. `secret` is the one in the session's cookie."""
        form = COOKIE_FORMAT if self._with_cookie else SERVER_FORMAT
        key = _key(self._extracted[0], form, row.id, secret)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return form + nonce + self._aes_gcm(key).encrypt(nonce, row.data, _bound(form, row))

    def open(self, row: StoredSession, secret: str | None) -> bytes:
        """Return the data of a stored session as it was before `seal`.

        Raises SerializationError for data that was not sealed for this very session, user and login.
        """
        form = row.data[:1]
        if form not in _FORMATS:
            if self._reads_unencrypted:
                return row.data
            raise SerializationError("Stored session data is not encrypted, and read_unencrypted is not set")
        nonce, sealed = row.data[1 : 1 + NONCE_BYTES], row.data[1 + NONCE_BYTES :]
        bound = _bound(form, row)
        for extracted in self._extracted:
            key = _key(extracted, _EARLIER.get(form, form), row.id, secret)
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
    return data[:1] in _FORMATS


def _key(extracted: bytes, form: bytes, session_id: str, secret: str | None) -> bytes:
    if form == SERVER_FORMAT:
        return expand(extracted, _SERVER_PURPOSE, session_id.encode())
    if secret is None:
        raise SerializationError(
            "Stored session data is encrypted with its cookie, and only a request that brings the cookie can read it"
        )
    return expand(extracted, _COOKIE_PURPOSE, session_id.encode(), secret.encode())


def _bound(form: bytes, row: StoredSession) -> bytes:
    rights = (row.authenticated_at, row.auth_method, row.actor, row.device_key)
    if form in _EARLIER:
        if any(right is not None for right in rights):
            raise SerializationError("Stored session data was sealed without a login, but its row names a login")
        # The id has a fixed length, and "=" tells an empty user from none.
        return form + row.id.encode() + (b"" if row.user is None else b"=" + row.user.encode())
    bound: bytes = msgpack.packb((form, row.id, row.user, row.created_at, *rights))
    return bound
