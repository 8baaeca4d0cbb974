"""Django's sessions, as `django.contrib.sessions.backends.db` stores them: JSON, signed by `django.core.signing`."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from typing import Any

from prism_wsgi.compat.importing.peer import (
    PeerSession,
    Skip,
    SkippedError,
    check_not_over,
    decompress,
    milliseconds,
    read_json,
    text,
)
from prism_wsgi.cookie_fallbacks import DJANGO_KEY, DjangoCookie

USER, HASH = "_auth_user_id", "_auth_user_hash"
LOGIN_SALT = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
SALT = "django.contrib.sessions.SessionStore"


class DjangoPeer:
    """The table `django_session`. `secret_keys` are SECRET_KEY and SECRET_KEY_FALLBACKS.

    Django ends a login when the user's password changes, because the session holds an HMAC of it. `passwords` are the
    users' passwords by user id, as Django stores them, and verify logins. Without them a session with a login is
    skipped, unless `trusts_logins`.

    Without USE_TZ, SQLite and MariaDB hold local time, which is read as UTC.
    """

    origin = DjangoCookie.origin
    columns = ("session_key", "session_data", "expire_date")
    order = "session_key"

    def __init__(
        self, secret_keys: Sequence[str], passwords: Mapping[str, str] | None = None, *, trusts_logins: bool = False
    ) -> None:
        self._passwords = passwords
        self._trusts_logins = trusts_logins
        self._login_keys = [hashlib.sha256(f"{LOGIN_SALT}{key}".encode()).digest() for key in secret_keys]
        # salted_hmac(salt + "signer", value, key, algorithm="sha256")
        self._keys = [hashlib.sha256(f"{SALT}signer{key}".encode()).digest() for key in secret_keys]

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row that cannot be read."""
        return str(row["session_key"])

    def read(self, row: Mapping[str, Any], now: int) -> PeerSession:
        """Return the session in a row of `django_session`."""
        expires_at = milliseconds(row["expire_date"])
        check_not_over(expires_at, now)
        key = text(row["session_key"], Skip.WEAK_KEY)
        if not DJANGO_KEY.fullmatch(key):
            raise SkippedError(Skip.WEAK_KEY)
        values = read_json(self._verified(text(row["session_data"], Skip.UNREADABLE)))
        if not values:
            raise SkippedError(Skip.EMPTY)
        if USER in values and not self._trusts_logins:
            self._check_login(values)
        return PeerSession(key, values, expires_at=expires_at)

    def _check_login(self, values: Mapping[str, Any]) -> None:
        if self._passwords is None:
            raise SkippedError(Skip.UNVERIFIED_LOGIN)
        password, given = self._passwords.get(str(values[USER])), values.get(HASH)
        if password is None or not isinstance(given, str):
            raise SkippedError(Skip.ENDED_LOGIN)
        hashes = [hmac.new(key, password.encode(), "sha256").hexdigest() for key in self._login_keys]
        if not any(hmac.compare_digest(one.encode(), given.encode()) for one in hashes):
            raise SkippedError(Skip.ENDED_LOGIN)

    def _verified(self, signed: str) -> bytes:
        """Return the payload of `payload:timestamp:signature`."""
        value, _, signature = signed.rpartition(":")
        given = signature.encode()
        if not any(hmac.compare_digest(_signature(key, value), given) for key in self._keys):
            raise SkippedError(Skip.BAD_SIGNATURE)
        payload, _, _ = value.rpartition(":")
        try:
            data = urlsafe_b64decode(payload.removeprefix(".") + "===")
        except Base64Error:
            raise SkippedError(Skip.UNREADABLE) from None
        return decompress(data) if payload.startswith(".") else data


def _signature(key: bytes, value: str) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, value.encode(), "sha256")).rstrip(b"=")
