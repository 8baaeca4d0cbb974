"""Plugin that puts prism_wsgi.compat.beaker where Beaker's tests find Beaker's SessionMiddleware and Session.

Beaker's tests make sessions without a request, and open one again by its id. Here each is a request with the cookie
that was sent to the visitor whose session has that id; `save()` outside a request ends it and begins the next.
"""

import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import beaker.middleware
import beaker.session
import pytest
from beaker.container import MemoryNamespaceManager
from opening import OpenRequest

from prism_wsgi import MemoryStore
from prism_wsgi.compat.beaker import SessionMiddleware
from prism_wsgi.compat.beaker.session import BeakerSession

SECRET = "Kx7mWq2nTz5vRb9cYd4hLf8jPs3gNe6a"
NOT_OURS = frozenset({"data_dir", "type"})
"""Where Beaker keeps what ours keep in STORE."""

_cookies: dict[str, str] = {}
_latest = 0.0


def clock() -> float:
    """Return a time that is a millisecond later each time: Beaker's tests expect microseconds."""
    global _latest
    _latest = max(time.time(), _latest + 0.001)
    return _latest


STORE = MemoryStore(ttl=400 * 24 * 3600, clock=clock)


class Visits(MutableMapping[str, Any]):
    """Requests of one visitor, one after the other, under the names of Beaker's Session."""

    namespace_class = MemoryNamespaceManager  # a test looks whether sessions are kept in memory

    def __init__(self, request: dict[str, Any], id: str | None = None, **options: Any) -> None:  # noqa: A002
        self.request = request
        if "data_dir" in options:
            Path(options["data_dir"]).mkdir(exist_ok=True)  # tests remove it
        self._options = {name: value for name, value in options.items() if name not in NOT_OURS}
        self._cookie = _cookies.get(id or request.get("prism.visitor", ""), "")
        self._visit()

    def _visit(self) -> None:
        self._opened = OpenRequest(
            # Beaker records every use.
            lambda app: SessionMiddleware(
                app, store=STORE, secret=SECRET, clock=clock, touch_interval=0, **self._options
            ),
            self._cookie,
        )
        self._session: BeakerSession = self._opened.environ["beaker.session"]
        self._session.load()  # as Beaker's does

    @property
    def id(self) -> str:
        return self._session.id

    def persist(self) -> None:
        """Send the response, and come back."""
        sent = self._opened.finish()
        if sent:
            self._cookie = sent[-1].partition(";")[0]
        _cookies[self._session.id] = self._cookie
        if self.request:  # two sessions of one request are two requests of one visitor
            self.request["prism.visitor"] = self._session.id
        self._visit()

    def save(self, accessed_only: bool = False) -> None:
        """Save and send the response."""
        if not accessed_only:
            self._session.save()
        self.persist()

    def delete(self) -> None:
        """End the session and send the response."""
        self._session.delete()
        self.persist()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __getitem__(self, key: str) -> Any:
        return self._session[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session)

    def __len__(self) -> int:
        return len(self._session)


class VisitsSavedLate(Visits):
    """A visit under the names of Beaker's SessionObject, which is saved by `persist()`."""

    def save(self, accessed_only: bool = False) -> None:
        """Have the session saved by `persist()`."""
        self._session.save()

    def delete(self) -> None:
        """End the session."""
        self._session.delete()


@pytest.fixture
def session_getter(request: pytest.FixtureRequest) -> Any:
    """Give Beaker's `check_...` functions, which one test calls in a row, the session of the server."""
    return request.module.get_session


beaker.middleware.SessionMiddleware = SessionMiddleware
beaker.session.Session = Visits
beaker.session.SessionObject = VisitsSavedLate
