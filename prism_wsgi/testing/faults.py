"""A store that fails when it is told to."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import wraps
from typing import Any

from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.stores.base import SessionStore, StoredSession

VERBS = (
    *("load", "save", "destroy", "touch", "replace", "revoke"),
    *("find", "find_all", "destroy_all", "count", "estimate", "stats", "ping"),
    *("sweep", "oldest_expired", "count_expired"),
)
"""Every verb of a store."""


class When(Enum):
    """The moment at which a call fails: before its effect or after it."""

    BEFORE = auto()
    AFTER = auto()


@dataclass
class _Failure:
    at: int
    verb: str | None
    when: When
    error: BaseException
    times: int


class FlakyStore:
    """A store that passes calls on to `store`, except those that `fail` was told of, and lists them in `calls`.

    It has the verbs that `store` has. A failure counts calls from the moment when `fail` was called.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._failures: list[_Failure] = []
        self.calls: list[str] = []
        for name in VERBS:
            verb = getattr(store, name, None)
            if callable(verb):
                setattr(self, name, self._flaky(verb))

    # For type checkers; every instance replaces them.
    load: Callable[[str], StoredSession | None]
    save: Callable[[StoredSession], None]
    destroy: Callable[[str], None]

    def fail(
        self,
        at: int = 1,
        *,
        verb: str | None = None,
        when: When = When.BEFORE,
        error: BaseException | None = None,
        times: int = 1,
    ) -> None:
        """Fail at the call number `at` from now, counting only `verb` if given, and at `times` calls in all.

        The call raises `error`, StoreUnavailable unless given: after its effect, or before it and without it.
        """
        with self._lock:
            self._failures.append(_Failure(at, verb, when, error or StoreUnavailable("injected"), times))

    def heal(self) -> None:
        """Forget the failures to come and the calls so far."""
        with self._lock:
            self._failures.clear()
            self.calls.clear()

    def _flaky(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(verb)
        def call(*arguments: Any, **named: Any) -> Any:
            failure = self._failure_of(verb.__name__)
            if failure is None:
                return verb(*arguments, **named)
            if failure.when is When.AFTER:
                verb(*arguments, **named)
            raise failure.error

        return call

    def _failure_of(self, name: str) -> _Failure | None:
        due = None
        with self._lock:
            self.calls.append(name)
            for failure in self._failures:
                if failure.verb in (None, name):
                    failure.at -= 1
                    if failure.at <= 0 < failure.times + failure.at:
                        due = due or failure
        return due
