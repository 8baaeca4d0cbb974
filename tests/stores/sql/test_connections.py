"""What a request holds of the database while it lasts: nothing but during the store's own calls."""

import threading
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from sqlalchemy import Engine, create_engine

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application, put, run_at_once

VISITORS = 20


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """An engine of the application's with one connection."""
    engine = create_engine(empty_url, pool_size=1, max_overflow=0, pool_timeout=20)
    yield engine
    engine.dispose()


def test_one_connection_serves_twenty_visitors_whose_pages_take_long(engine: Engine) -> None:
    site = SessionMiddleware(application, store=SQLAlchemyStore(engine), secret=SECRET, secure=False)
    browsers = [Browser(site) for _ in range(VISITORS)]
    for browser in browsers:
        browser.do(put("n", 0))
    everybody_is_inside = threading.Barrier(VISITORS)

    def take_long(session: Session) -> None:
        session["n"] += 1
        everybody_is_inside.wait(30)

    run_at_once([lambda browser=browser: browser.do(take_long) for browser in browsers])  # type: ignore[misc]
    assert [browser.read() for browser in browsers] == [{"n": 1}] * VISITORS


def test_no_connection_is_held_while_the_body_is_sent(engine: Engine) -> None:
    held: list[int] = []

    def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session: Session = environ["prism.session"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        for number in range(3):
            session["n"] = number
            yield b"x"
            held.append(engine.pool.checkedout())  # type: ignore[attr-defined]

    site = SessionMiddleware(stream, store=SQLAlchemyStore(engine), secret=SECRET, secure=False)
    browser = Browser(site)
    browser.visit(lambda session: None)
    assert held == [0, 0, 0]
    browser._site = SessionMiddleware(application, store=SQLAlchemyStore(engine), secret=SECRET, secure=False)
    assert browser.read() == {"n": 2}
