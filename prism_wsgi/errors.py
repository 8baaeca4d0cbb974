"""Every error and warning of prism_wsgi, in one tree under PrismError."""


class PrismError(Exception):
    """Something in prism_wsgi went wrong; the root of all its errors."""


class ConfigError(PrismError, ValueError):
    """A setting breaks its rule; the message names the setting, the rule and the fix."""


class InvalidCookie(PrismError, ValueError):
    """A cookie cannot be built as asked; browsers would drop or misread it (RFC 6265bis)."""


class SerializationError(PrismError, ValueError):
    """A value cannot be stored, or stored bytes cannot be read.

    `path` says where, as an expression such as `session['cart'][2].owner`; it is empty for stored bytes.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class SessionTooLarge(PrismError, ValueError):
    """A session is larger than `max_size`, and was not saved. `size` and `limit` are bytes."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ResponseStarted(PrismError, RuntimeError):
    """The session's cookie has to change, but the response's headers have been sent."""


class NotLoggedIn(PrismError, RuntimeError):
    """The call needs a user who is logged in and not impersonated."""


class StoreError(PrismError):
    """A session store failed; the root of the errors that stores raise."""


class SessionConflict(StoreError):
    """The stored version is not the one that was loaded: another request saved in between."""


class SessionExists(SessionConflict):
    """A new session's id is already taken in the store; what is stored there was left alone."""


class SessionGone(StoreError):
    """The session to be saved is not in the store: it was destroyed, has expired or has moved."""


class StoreUnavailable(StoreError):
    """The store could not be reached or did not answer in time; a write may or may not have happened."""


class SchemaMissing(StoreUnavailable):
    """The sessions table does not exist, or is from an earlier version; the message names the command to run."""


class ClocksDiffer(StoreError):
    """This host's clock and the database's differ too much to decide which sessions have expired."""


class InsecureSecretWarning(UserWarning):
    """The signing secret is missing, short or a placeholder, so sessions can be forged or lost."""
