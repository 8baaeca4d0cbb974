"""SessionCookie: when a session's cookie is believed, and when one is sent."""

from wsgiref.types import WSGIEnvironment

from prism_wsgi.cookies import Cookie, read_cookie
from prism_wsgi.events import Reason
from prism_wsgi.persistence.adapter import Repository
from prism_wsgi.request.state import GONE, NEW, SessionState
from prism_wsgi.tokens import Signer, Token, issued_at

MAX_CANDIDATES = 4
"""How many cookies of our name are verified: a request must not buy any number of HMACs."""


class SessionCookie:
    """Reads the token of a session from a request, and writes it into a response; asks no store."""

    def __init__(self, cookie: Cookie, signer: Signer, repository: Repository) -> None:
        self.name = cookie.name
        self.signer = signer
        self._attributes = cookie.attributes
        self._deletion = cookie.deletion().header_value
        self._repository = repository

    def received(self, environ: WSGIEnvironment) -> Token | Reason | None:
        """Return the one valid token among a request's cookies, or why there is none."""
        values = read_cookie(environ.get("HTTP_COOKIE", ""), self.name)
        if not values:
            return None
        if len(values) > 1:
            return self._choose(values)
        token = self.signer.verify(values[0])
        if token is None:
            return Reason.FORGED
        return Reason.EXPIRED if self._has_lapsed(token) else token

    def due(self, state: SessionState, environ: WSGIEnvironment, *, offered: bool) -> str | None:
        """Return the `Set-Cookie` value that a response needs, if any.

        `offered`: a visitor without a session gets a cookie too.
        """
        if state.phase is GONE or state.failed:
            return None
        if state.destroyed:
            return self._deletion if read_cookie(environ.get("HTTP_COOKIE", ""), self.name) else None
        if (state.saved or state.touched) and state.is_cookie_stale():
            return self._header_value(state.fresh_token(), state.expires_at)
        token = state.token
        if token is not None:
            return self._header_value(token, self._lapses_at(token)) if token.outdated_key else None
        if offered and state.phase is NEW:
            return self._header_value(Token(state.secret, 0), state.expires_at)
        return None

    def _choose(self, values: list[str]) -> Token | Reason:
        """Return the one valid token among several cookies of our name, or why none is used.

        Another site under the same domain may have planted a session of its own ("cookie tossing"): neither
        the order of the cookies nor any number of forged ones decides which session is used.
        """
        values = [value for value in values if self.signer.is_well_formed(value)]
        if len(values) > MAX_CANDIDATES:
            return Reason.DUPLICATE_COOKIE
        signed = [token for value in values if (token := self.signer.verify(value))]
        if not signed:
            return Reason.FORGED
        tokens = [token for token in signed if not self._has_lapsed(token)]
        if not tokens:
            return Reason.EXPIRED
        if len({token.secret for token in tokens}) > 1:
            return Reason.DUPLICATE_COOKIE
        return max(tokens, key=lambda token: token.refreshed)

    def _has_lapsed(self, token: Token) -> bool:
        # To the second a refreshed cookie cannot tell; the stored expiry can.
        grace = 1000 if token.refreshed else 0
        return self._lapses_at(token) + grace <= self._repository.now()

    def _lapses_at(self, token: Token) -> int:
        """Return when a token's session will have been idle for its lifetime, in Unix ms."""
        ttl = (token.ttl or self._repository.ttl) * 1000
        if token.refreshed:
            return token.refreshed * 1000 + ttl
        issued = issued_at(token.secret)
        return self._repository.capped(issued + ttl, issued)

    def _header_value(self, token: Token, expires_at: int) -> str:
        """Return the `Set-Cookie` value that carries a token, to be kept until `expires_at` (Unix ms)."""
        value = self.signer.sign(token.secret, token.refreshed, token.ttl, token.persistent)
        max_age = ""
        if self._repository.persistent if token.persistent is None else token.persistent:
            max_age = f"; Max-Age={max(0, -(-(expires_at - self._repository.now()) // 1000))}"
        return f"{self.name}={value}{max_age}{self._attributes}"
