"""HealthCheck over WSGI, on every store."""

import webob

from prism_wsgi import MemoryStore, SessionMiddleware, SessionStore
from prism_wsgi.pages import HealthCheck
from prism_wsgi.testing import ManualClock
from tests.support.browsing import ThreeVerbStore, WatchedStore
from tests.support.keys import SECRET


def ask(check: HealthCheck, method: str = "GET") -> webob.Response:
    return webob.Request.blank("/health", method=method).get_response(check)


def test_store_that_works_answers_200(store: SessionStore) -> None:
    answer = ask(HealthCheck(store))
    assert (answer.status_int, answer.json) == (200, {"status": "up", "checked": "read and write"})
    assert answer.headers["Cache-Control"] == "no-store"


def test_store_that_is_down_answers_503_and_does_not_say_why() -> None:
    answer = ask(HealthCheck("postgresql://nobody:password@127.0.0.1:9/none?timeout=1"))
    assert (answer.status_int, answer.json) == (503, {"status": "down"})


def test_store_that_cannot_prove_that_it_takes_writes_is_only_read() -> None:
    assert ask(HealthCheck(ThreeVerbStore(MemoryStore()))).json == {"status": "up", "checked": "read"}


def test_health_is_asked_by_get_or_head_only(store: SessionStore) -> None:
    assert ask(HealthCheck(store), "POST").status_int == 405
    head = ask(HealthCheck(store), "HEAD")
    assert (head.status_int, head.body) == (200, b"")


def test_health_needs_no_session_and_gives_no_cookie(clock: ManualClock) -> None:
    watched = WatchedStore(MemoryStore(clock=clock))
    site = SessionMiddleware(HealthCheck(MemoryStore()), store=watched, secret=SECRET, cookie_on="write", clock=clock)
    answer = webob.Request.blank("/health").get_response(site)
    assert "Set-Cookie" not in answer.headers
    assert watched.calls == []
