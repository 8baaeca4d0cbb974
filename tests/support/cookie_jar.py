"""A cookie jar that follows RFC 6265bis to the letter, in a browser whose clock the test sets."""

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

LONGEST_PAIR = 4096
LONGEST_ATTRIBUTE = 1024
LONGEST_LIFE = 400 * 24 * 3600


@dataclass
class KeptCookie:
    """One cookie as a browser keeps it. `expires` is Unix seconds; None ends with the browser's session."""

    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    http_only: bool
    partitioned: bool
    expires: float | None

    @property
    def key(self) -> tuple[object, ...]:
        return self.name, self.domain, self.host_only, self.path, self.partitioned

    def is_sent_to(self, host: str, path: str, secure: bool) -> bool:
        at_host = host == self.domain if self.host_only else f".{host}".endswith(f".{self.domain}")
        below = path == self.path or path.startswith(self.path.rstrip("/") + "/")
        return at_host and below and (secure or not self.secure)


@dataclass
class CookieJar:
    """RFC 6265bis, sections 5.6 (parsing), 5.7 (storage) and 5.8 (retrieval)."""

    host: str
    secure: bool
    cookies: dict[tuple[object, ...], KeptCookie] = field(default_factory=dict)

    def receive(self, line: str, now: float, path: str = "/") -> bool:
        """Take in one Set-Cookie line; tell whether the browser accepted it."""
        cookie = self._parsed(line, now, path)
        if cookie is None or not self._is_allowed(cookie, line):
            return False
        if cookie.expires is not None and cookie.expires <= now:
            self.cookies.pop(cookie.key, None)
        else:
            self.cookies[cookie.key] = cookie
        return True

    def header(self, now: float, path: str = "/") -> str:
        """Return the Cookie header for a request, longest path first."""
        sent = [
            cookie
            for cookie in self.cookies.values()
            if cookie.is_sent_to(self.host, path, self.secure) and (cookie.expires is None or cookie.expires > now)
        ]
        sent.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in sent)

    def restart(self) -> None:
        """End the browser's session."""
        self.cookies = {key: cookie for key, cookie in self.cookies.items() if cookie.expires is not None}

    def _parsed(self, line: str, now: float, path: str) -> KeptCookie | None:
        pair, attributes = split(line)
        name, equals, value = (part.strip(" \t") for part in pair.partition("="))
        if not equals or len(name) + len(value) > LONGEST_PAIR:
            return None
        domain = attributes.get("domain", "").lstrip(".").lower()
        given_path = attributes.get("path", "")
        return KeptCookie(
            name=name,
            value=value,
            domain=domain or self.host,
            path=given_path if given_path.startswith("/") else path.rpartition("/")[0] or "/",
            host_only=not domain,
            secure="secure" in attributes,
            http_only="httponly" in attributes,
            partitioned="partitioned" in attributes,
            expires=_expires(attributes, now),
        )

    def _is_allowed(self, cookie: KeptCookie, line: str) -> bool:
        attributes = split(line)[1]
        lowered = cookie.name.lower()
        if not f".{self.host}".endswith(f".{cookie.domain}") or (cookie.secure and not self.secure):
            return False
        needs_secure = lowered.startswith(("__secure-", "__host-", "__http-")) or cookie.partitioned
        if (needs_secure or attributes.get("samesite", "").lower() == "none") and not cookie.secure:
            return False
        if lowered.startswith(("__http-", "__host-http-")) and not cookie.http_only:
            return False
        return not lowered.startswith("__host-") or (cookie.host_only and attributes.get("path") == "/")


def split(line: str) -> tuple[str, dict[str, str]]:
    """Split a Set-Cookie line into its pair and its attributes, the last of a name counting."""
    pair, *attributes = line.split(";")
    named = {}
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        if len(value) <= LONGEST_ATTRIBUTE:
            named[name.strip(" \t").lower()] = value.strip(" \t")
    return pair, named


def _expires(attributes: dict[str, str], now: float) -> float | None:
    if "max-age" in attributes:
        max_age = int(attributes["max-age"])
        return now + min(max_age, LONGEST_LIFE) if max_age > 0 else float("-inf")
    if "expires" in attributes:
        return parsedate_to_datetime(attributes["expires"]).timestamp()
    return None
