"""Other packages' cookies among `cookie_fallbacks`, and the sessions that they lead to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prism_wsgi.cookie_fallbacks import AnyCookie, DataCookie
from prism_wsgi.cookies import MAX_CANDIDATES, Cookie, must_be_secure, read_cookie


@dataclass(frozen=True, slots=True)
class Earlier:
    """The session that another package's cookie leads to: the key of an imported session, or the session's values."""

    origin: str = ""
    key: str = field(default="", repr=False)
    values: dict[str, Any] | None = field(default=None, repr=False)


class PeerFallback:
    """The cookie of another package among `cookie_fallbacks`, and the header that deletes it."""

    __slots__ = ("_cookie", "deletion", "name", "place")

    def __init__(self, cookie: AnyCookie) -> None:
        self._cookie = cookie
        self.name = cookie.name
        old = Cookie(cookie.name, "", path=cookie.path, domain=cookie.domain, secure=must_be_secure(cookie.name))
        self.place = (old.name, old.domain, old.path)
        self.deletion = old.deletion().header_value

    def read(self, header: str, now: int) -> Earlier | None:
        """Return the session that a request's cookie leads to at `now` (Unix ms), None if there are none or several.

        Of several, another site under the same domain may have planted one.
        """
        values = read_cookie(header, self.name)
        if len(values) > MAX_CANDIDATES:
            return None
        found = [one for value in values if (one := self._read(value, now))]
        return found[0] if len(found) == 1 else None

    def _read(self, value: str, now: int) -> Earlier | None:
        if isinstance(self._cookie, DataCookie):
            values = self._cookie.values_in(value, now)
            return Earlier(values=values) if values else None
        key = self._cookie.key_in(value)
        return None if key is None else Earlier(self._cookie.origin, key)


def earlier_session(peers: Sequence[PeerFallback], header: str, now: int) -> Earlier | None:
    """Return the first session that one of the other packages' cookies in a request leads to."""
    return next((found for one in peers if (found := one.read(header, now))), None)
