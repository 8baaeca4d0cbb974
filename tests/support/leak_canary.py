"""The canary: in every test, what must stay hidden is noted as it is made, and all that is said is searched for it.

Hidden are the keys that sign, the secrets that cookies carry, whole cookies, and the texts that sessions store.
Said are the log at DEBUG, the library's errors with all that caused them, its warnings, how its objects print
themselves, and what went to stderr.
"""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prism_wsgi import middleware, tokens
from prism_wsgi.errors import InsecureSecretWarning, PrismError
from prism_wsgi.persistence import identity
from prism_wsgi.persistence.document import Codec, Document
from prism_wsgi.request import exchange
from prism_wsgi.session import Session
from prism_wsgi.tokens import Signer

SHORTEST = 16  # characters: shorter texts are found by chance
REMEMBERED = 100  # of each kind: tests that make ten thousand requests would search for minutes


@dataclass
class Canary:
    """What is hidden and what was said, in one test."""

    hidden: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    said: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def hide(self, value: object) -> None:
        """Note every text inside a value."""
        if isinstance(value, dict):
            value = [*value.values()]
        if isinstance(value, list | tuple | set | frozenset):
            for one in value:
                self.hide(one)
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if isinstance(text, str) and len(text) >= SHORTEST and len(set(text)) > 8:
            self.hidden.append(text)

    def hear(self, text: str) -> None:
        if text:
            self.said.append(text)

    def hear_error(self, error: BaseException | None) -> None:
        """Note an error and what caused it: the server prints all of it."""
        while error is not None:
            self.hear(f"{error} {error!r}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def leaks(self) -> list[str]:
        """Return what was said and shows what is hidden."""
        return [text for text in self.said if any(one in text for one in self.hidden)]


class _Listener(logging.Handler):
    def __init__(self, canary: Canary) -> None:
        super().__init__(logging.DEBUG)
        self._canary = canary

    def emit(self, record: logging.LogRecord) -> None:
        self._canary.hear(f"{self.format(record)} {record.__dict__}")
        if record.exc_info:
            self._canary.hear_error(record.exc_info[1])


def listening(monkeypatch: Any) -> Iterator[Canary]:
    """Yield the canary of one test, which listens until the end."""
    canary = Canary()
    _hide_all(canary, monkeypatch.setattr)
    _hear_all(canary, monkeypatch.setattr)
    listener, logger = _Listener(canary), logging.getLogger("prism_wsgi")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        yield canary
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def _hide_all(canary: Canary, replace: Callable[..., None]) -> None:
    draw, sign, begin, encode = tokens.new_secret, Signer.sign, Signer.__init__, Codec.encode

    def new_secret(now: int) -> str:
        secret = draw(now)
        canary.hide(secret)
        return secret

    def sign_and_hide(self: Signer, secret: str, *claims: Any, **more: Any) -> str:
        token = sign(self, secret, *claims, **more)
        canary.hide([secret, token])
        return token

    def begin_and_hide(self: Signer, secrets: Iterable[bytes], cookie_name: str) -> None:
        canary.hide(secrets)
        begin(self, [*secrets], cookie_name)

    def encode_and_hide(self: Codec, document: Document, **checked: bool) -> bytes:
        canary.hide(document.values)
        return encode(self, document, **checked)

    replace(identity, "new_secret", new_secret)
    replace(Signer, "sign", sign_and_hide)
    replace(Signer, "__init__", begin_and_hide)
    replace(Codec, "encode", encode_and_hide)


def _hear_all(canary: Canary, replace: Callable[..., None]) -> None:
    answer, call, warn = exchange.Exchange._settle, middleware.SessionMiddleware.__call__, warnings.warn

    def hear_objects(self: Any, status: str, headers: Any) -> Any:
        held = self._state
        accessed = held.accessed
        shown = (
            held,
            held.identity,
            held.identity.moved_from,
            getattr(held, "document", None),
            held.site,
            Session(held),
        )
        canary.hear(" ".join(f"{one!r} {one}" for one in shown))
        held.accessed = accessed  # to print a session is to use it
        return answer(self, status, headers)

    def hear_errors(self: Any, environ: Any, start_response: Any) -> Any:
        try:
            return call(self, environ, start_response)
        except PrismError as error:
            canary.hear_error(error)
            raise

    def hear_warning(
        message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **more: Any
    ) -> None:
        if isinstance(message, InsecureSecretWarning) or category is InsecureSecretWarning:
            canary.hear(str(message))
        warn(message, category, stacklevel + 1, source, **more)  # this function is one level more

    replace(exchange.Exchange, "_settle", hear_objects)
    replace(middleware.SessionMiddleware, "__call__", hear_errors)
    replace(warnings, "warn", hear_warning)
