"""What is written to a session after its response is over: by several threads, and beside other requests."""

from collections.abc import Callable, Iterable
from threading import Thread
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware, StoredSession, get_session
from prism_wsgi.session import _late_writes
from tests.support.browsing import Clock, Site, write
from tests.support.keys import SECRET

pytest_plugins = ["tests.support.site_fixtures"]


def kept_environ(site: Site, browser: object) -> WSGIEnvironment:
    """Return the environ of a request whose response is over."""
    kept: list[WSGIEnvironment] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ)
        len(environ["prism.session"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    browser.request(app)  # type: ignore[attr-defined]
    return kept[0]


def test_threads_that_write_to_one_session_after_its_response_lose_nothing() -> None:
    site = Site()
    browser = site.browser()
    browser.visit(write(n=1))
    session: Session = kept_environ(site, browser)["prism.session"]

    def write_some(thread: int) -> None:
        for number in range(20):
            session[f"{thread}.{number}"] = number

    threads = [Thread(target=write_some, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(browser.visit(dict).result) == 1 + 8 * 20


class LockWatcher(MemoryStore):
    """A store that notes of each call whether its thread alone may write late."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.calls: list[tuple[str, bool]] = []

    def _note(self, verb: str) -> None:
        self.calls.append((verb, _late_writes()._is_owned()))  # type: ignore[attr-defined]

    def load(self, session_id: str) -> StoredSession | None:
        self._note("load")
        return super().load(session_id)

    def save(self, session: StoredSession) -> None:
        self._note("save")
        super().save(session)

    def destroy(self, session_id: str) -> None:
        self._note("destroy")
        super().destroy(session_id)


def append_and_say_so(session: Session) -> None:
    session["cart"].append("pear")
    session.changed()


LATE_CHANGES: dict[str, Callable[[Session], object]] = {
    "a key": lambda session: session.update(n=2),
    "a key deleted": lambda session: session.pop("n"),
    "all keys deleted": lambda session: session.clear(),
    "a message": lambda session: session.flash("saved"),
    "ttl": lambda session: setattr(session, "ttl", 60),
    "persistent": lambda session: setattr(session, "persistent", True),
    "max_lifetime": lambda session: setattr(session, "max_lifetime", 60),
    "a value that the application holds": append_and_say_so,
    "logout": lambda session: session.logout(),
}


@pytest.mark.parametrize("change", LATE_CHANGES)
def test_each_change_after_the_response_is_made_by_one_thread_at_a_time(change: str, clock: Clock) -> None:
    store = LockWatcher(clock)
    site = Site(store, clock, persistent=False)
    browser = site.browser()
    browser.visit(write(n=1, cart=["apple"]))
    session: Session = kept_environ(site, browser)["prism.session"]
    store.calls.clear()
    LATE_CHANGES[change](session)
    assert store.calls == [("destroy" if change == "logout" else "save", True)]


def test_a_session_is_read_after_its_response_by_one_thread_at_a_time(clock: Clock) -> None:
    store = LockWatcher(clock)
    site = Site(store, clock)
    browser = site.browser()
    browser.visit(write(n=1))
    session = get_session(kept_environ(site, browser))
    store.calls.clear()
    assert session["n"] == 1
    assert store.calls == [("load", True)]


def test_a_session_opened_after_its_response_knows_of_a_logout_since() -> None:
    site = Site()
    browser = site.browser()
    browser.visit(lambda session: session.login("ann"))
    environ = kept_environ(site, browser)
    assert get_session(environ).user == "ann"
    browser.visit(lambda session: session.logout())
    assert get_session(environ).user is None


def test_a_session_opened_after_its_response_sees_what_other_requests_have_written_since() -> None:
    site = Site()
    browser = site.browser()
    browser.visit(write(n=1))
    environ = kept_environ(site, browser)
    browser.visit(write(n=2))
    assert get_session(environ)["n"] == 2


def test_a_value_that_the_application_holds_is_saved_after_a_merge_too() -> None:
    site = Site()
    browser = site.browser()
    browser.visit(write(cart=["apple"]))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = environ["prism.session"]
        cart = session["cart"]
        session["n"] = 1
        site.browser().visit(write(theirs=1), HTTP_COOKIE=environ["HTTP_COOKIE"])
        site.serving = app
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        cart.append("pear")
        yield b"two"

    browser.request(app)
    assert browser.visit(dict).result == {"cart": ["apple", "pear"], "n": 1, "theirs": 1}


def test_a_block_inside_atomic_that_raises_after_the_response_leaves_nothing() -> None:
    site = Site()
    browser = site.browser()
    browser.visit(write(n=1))
    session: Session = kept_environ(site, browser)["prism.session"]

    def half_a_block() -> None:
        with session.atomic():
            session["half"] = 1
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="middle"):
        half_a_block()
    assert browser.visit(dict).result == {"n": 1}


def test_hostile_text_is_no_csrf_token() -> None:
    session = Session()
    session.new_csrf_token()
    assert not session.is_csrf_token("\ud800")


def test_a_middleware_is_given_the_url_of_its_store() -> None:
    middleware = SessionMiddleware(lambda environ, start_response: [], store="memory", secret=SECRET)
    assert isinstance(middleware.site.adapter.store, MemoryStore)
