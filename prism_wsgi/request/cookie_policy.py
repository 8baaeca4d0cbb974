"""The cookie policy: which cookie is trusted, which is sent, and when a new visitor is offered one."""

from collections.abc import Sequence
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

from prism_wsgi.clock import Clock, milliseconds
from prism_wsgi.cookies import MAX_CANDIDATES, Cookie, SameSite, naming, read_cookie
from prism_wsgi.events import Reason
from prism_wsgi.persistence.lifetimes import Lifetimes
from prism_wsgi.request.peer_fallbacks import Earlier, PeerFallback, earlier_session
from prism_wsgi.tokens import Signer, Token, holds_token, is_token_shaped, issued_at

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 9.2.1
_PAGES = frozenset({"document", "iframe", "frame"})


class Fallback:
    """An earlier form of the session cookie: its name, what verifies it, and the header that deletes it."""

    __slots__ = ("deletion", "name", "signer")

    def __init__(self, cookie: Cookie, signer: Signer) -> None:
        self.name = cookie.name
        self.signer = signer
        self.deletion = cookie.deletion().header_value


class CookiePolicy:
    """The rules by which a token is read from a request and written into a response, without a store call.

    `fallbacks` are earlier forms of the cookie, read if the request has no valid present one. `peers` are the cookies
    of other packages, read if it has neither.
    """

    def __init__(
        self,
        cookie: Cookie,
        signer: Signer,
        lifetimes: Lifetimes,
        clock: Clock,
        *,
        persistent: bool,
        fallbacks: Sequence[Fallback] = (),
        peers: Sequence[PeerFallback] = (),
        keep_fallbacks: bool = False,
    ) -> None:
        self.cookie = cookie
        self.name = cookie.name
        self.signer = signer
        self._attributes = cookie.attributes
        self._lifetimes = lifetimes
        self._clock = clock
        self._persistent = persistent
        self._fallbacks = tuple(fallbacks)
        self._peers = tuple(peers)
        names = [cookie.name, *(one.name for one in fallbacks), *(one.name for one in peers)]
        self._names = tuple(dict.fromkeys(names))
        self._naming = naming(self._names)
        self._is_kept_from_other_sites = cookie.samesite is not SameSite.NONE
        self.deletion = cookie.deletion().header_value
        # Our cookie replaces a peer's cookie of the same name, domain and path, which needs no deletion.
        replaced = (cookie.name, cookie.domain, cookie.path)
        earlier_forms: list[Fallback | PeerFallback] = [*fallbacks, *(one for one in peers if one.place != replaced)]
        self._deletions = [one.deletion for one in earlier_forms]
        # A browser keeps a cookie of the same name for another domain or path beside ours, and sends both.
        self._twin_deletions = [one.deletion for one in earlier_forms if one.name == cookie.name]
        self._earlier_deletions = self._twin_deletions if keep_fallbacks else self._deletions

    def received(self, environ: WSGIEnvironment) -> Token | Reason | None:
        """Return the one valid token among a request's cookies, or why there is none.

        A token from an earlier form of the cookie has `outdated_key` set, so that the response sends it again.
        """
        header = environ.get("HTTP_COOKIE", "")
        found = self._chosen(read_cookie(header, self.name), self.signer)
        if isinstance(found, Token) or not self._fallbacks:
            return found
        for name, signer in {one.name: one.signer for one in self._fallbacks if one.name != self.name}.items():
            earlier = self._chosen(read_cookie(header, name), signer)
            if isinstance(earlier, Token):
                return earlier._replace(outdated_key=True)
            found = found or earlier
        return found

    def earlier(self, environ: WSGIEnvironment, token: Token | Reason | None) -> Earlier | None:
        """Return the session that another package's cookie leads to, None if `token` already names a session.

        A token that was only offered, and under which nothing is stored, names no session yet.
        """
        if not self._peers or (isinstance(token, Token) and token.refreshed):
            return None
        return earlier_session(self._peers, environ.get("HTTP_COOKIE", ""), self._now())

    def may_offer(self, environ: WSGIEnvironment) -> bool:
        """Tell whether a cookie may be offered to a visitor who has written nothing.

        No cookie may be offered if it could replace a good one that the browser did not send, or that another
        application on this host has set. Otherwise any website could log the visitor out with one form.
        """
        return (
            environ.get("REQUEST_METHOD") in _SAFE_METHODS
            and environ.get("HTTP_SEC_FETCH_DEST", "document") in _PAGES
            and not _is_cross_site(environ)
            and not self._holds_token(environ.get("HTTP_COOKIE", ""))
            and self.earlier(environ, None) is None
        )

    def withholds(self, environ: WSGIEnvironment) -> bool:
        """Tell whether SameSite kept our cookie out of the request, so that a new one would replace it.

        A cookie of our name that is no token proves nothing: another site under the same domain may have set it.
        """
        return (
            environ.get("REQUEST_METHOD") not in _SAFE_METHODS
            and self._is_kept_from_other_sites
            and _is_cross_site(environ)
            and not self._holds_token(environ.get("HTTP_COOKIE", ""))
        )

    def is_sent_by(self, environ: WSGIEnvironment) -> bool:
        """Tell whether a request brought a session cookie in any form, valid or not."""
        header = environ.get("HTTP_COOKIE", "")
        return any(read_cookie(header, name) for name in self._names)

    def header_value(self, token: Token, expires_at: int) -> str:
        """Return the `Set-Cookie` value that carries a token, to be kept until `expires_at` (Unix ms)."""
        value = self.signer.sign(token.secret, token.refreshed, token.ttl, token.persistent)
        max_age = ""
        if self._persistent if token.persistent is None else token.persistent:
            max_age = f"; Max-Age={max(0, -(-(expires_at - self._now()) // 1000))}"
        return f"{self.name}={value}{max_age}{self._attributes}"

    def deletions(self, *, is_logout: bool, replaces_all: bool) -> list[str]:
        """Return the `Set-Cookie` values that delete earlier forms, beside one that sets or deletes ours.

        `is_logout`: the session has ended, or its user has left it. `replaces_all`: the request brought cookies that
        contradict each other.
        """
        if replaces_all and self.cookie.domain is not None:
            # Browsers treat a cookie that this site set before it had a domain as another one, and send both.
            return [*self._deletions, _host_only(self.cookie).deletion().header_value]
        return self._deletions if is_logout or replaces_all else self._earlier_deletions

    def lapses_at(self, token: Token) -> int:
        """Return when a token's session will have been idle for its lifetime, in Unix ms."""
        ttl = (token.ttl or self._lifetimes.ttl) * 1000
        if token.refreshed:
            return token.refreshed * 1000 + ttl
        issued = issued_at(token.secret)
        return self._lifetimes.capped(issued + ttl, issued)

    def _chosen(self, values: list[str], signer: Signer) -> Token | Reason | None:
        if not values:
            return None
        if len(values) > 1:
            return self._choose(values, signer)
        token = signer.verify(values[0])
        if token is None:
            return Reason.FORGED
        return Reason.EXPIRED if self._has_lapsed(token) else token

    def _choose(self, values: list[str], signer: Signer) -> Token | Reason:
        """Return the one valid token among several cookies of one name, or why none is used.

        Another site under the same domain may have planted its own session ("cookie tossing"): neither
        the order of the cookies nor any number of forged ones decides which session is used.
        """
        values = [value for value in values if is_token_shaped(value)]
        if len(values) > MAX_CANDIDATES:
            return Reason.DUPLICATE_COOKIE
        signed = [token for value in values if (token := signer.verify(value))]
        if not signed:
            return Reason.FORGED
        tokens = [token for token in signed if not self._has_lapsed(token)]
        if not tokens:
            return Reason.EXPIRED
        if len({token.secret for token in tokens}) > 1:
            return Reason.DUPLICATE_COOKIE
        return max(tokens, key=lambda token: token.refreshed)

    def _has_lapsed(self, token: Token) -> bool:
        # A renewed cookie holds whole seconds only; the stored expiry is exact.
        grace = 1000 if token.refreshed else 0
        return self.lapses_at(token) + grace <= self._now()

    def _holds_token(self, header: str) -> bool:
        """Tell whether anything in a Cookie header that has one of our names has the form of a token.

        Quoted and comma-joined tokens count too, although we do not read them as cookies.
        """
        for pair in header.split(";"):
            named = self._naming.search(pair)
            if named is not None and holds_token(pair[named.end() :]):
                return True
        return False

    def _now(self) -> int:
        return milliseconds(self._clock)


def _is_cross_site(environ: WSGIEnvironment) -> bool:
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return bool(site == "cross-site")
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return False
    try:
        # Another port is the same site. "null", which a sandboxed page sends, has no host and is another site.
        return urlsplit(origin).hostname != urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname
    except ValueError:
        return True


def _host_only(cookie: Cookie) -> Cookie:
    return Cookie(
        cookie.name,
        "",
        path=cookie.path,
        secure=cookie.secure,
        httponly=cookie.httponly,
        samesite=cookie.samesite,
        partitioned=cookie.partitioned,
    )
