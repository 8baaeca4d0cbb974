"""The site that every framework serves here, what it must do over HTTP, and a server for it.

GET / shows who is logged in, the notes, and messages once; the forms post to /login, /notes, /logout and
/logout-everywhere, and are refused without their CSRF token.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

import pytest

from prism_wsgi import MemoryStore, StoredSession
from tests.support.served import Browser, Page

Visit = Callable[[], Browser]
Browse = Callable[[WSGIApplication], Browser]


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    # Browsers open connections ahead of need, and leave them open.
    daemon_threads = True


@contextmanager
def serving(application: WSGIApplication, *, has_threads: bool = False) -> Iterator[str]:
    """Serve an application on a socket, in a thread, or in one for each request; yield its address."""
    server_class = _ThreadingServer if has_threads else WSGIServer
    with make_server("localhost", 0, application, server_class, handler_class=_QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def post(browser: Browser, path: str, **form: str) -> Page:
    """Send one of the front page's forms, its CSRF token included."""
    return browser.post(path, csrf_token=browser.get("/").field("csrf_token"), **form)


class FragileStore(MemoryStore):
    """A store that can be switched off."""

    is_down = False

    def load(self, session_id: str) -> StoredSession | None:
        if self.is_down:
            raise OSError("nobody answers")
        return super().load(session_id)


class SiteContract:
    """What the site does, whatever framework serves it; a subclass provides `application`."""

    @pytest.fixture
    def store(self) -> FragileStore:
        return FragileStore()

    @pytest.fixture
    def visit(self, application: WSGIApplication) -> Iterator[Visit]:
        """Return a new visitor's browser."""
        with ExitStack() as running:
            address = running.enter_context(serving(application))
            yield lambda: Browser(address)

    def test_a_visitor_is_nobody_and_stores_nothing_by_looking(self, visit: Visit, store: MemoryStore) -> None:
        browser = visit()
        assert "user: None;" in browser.get("/about").text
        assert "user: None;" in browser.get("/about").text
        assert len(store) == 0
        assert len(browser.cookies) == 1

    def test_what_is_written_is_read_by_the_next_request_and_by_nobody_else(self, visit: Visit) -> None:
        browser = visit()
        post(browser, "/notes", note="milk")
        assert "notes: milk, Brötchen;" in post(browser, "/notes", note="Brötchen").text
        assert "notes: milk, Brötchen;" in browser.get("/").text
        assert "notes: ;" in visit().get("/").text

    def test_a_message_is_shown_once(self, visit: Visit) -> None:
        browser = visit()
        assert "messages: Welcome, ada;" in post(browser, "/login", user="ada").text
        assert "messages: ;" in browser.get("/").text

    def test_login_keeps_the_notes_and_the_cookie_from_before_opens_nothing(self, visit: Visit) -> None:
        browser = visit()
        post(browser, "/notes", note="milk")
        (before,) = browser.cookies
        page = post(browser, "/login", user="ada")
        assert "user: ada;" in page.text
        assert "notes: milk;" in page.text
        stolen = visit().get("/", Cookie=f"{before.name}={before.value}").text
        assert "user: None;" in stolen
        assert "notes: ;" in stolen

    def test_a_form_without_its_csrf_token_is_refused_and_changes_nothing(self, visit: Visit) -> None:
        browser = visit()
        browser.get("/")
        assert browser.post("/notes", note="spam").status in (400, 403)
        assert browser.post("/notes", note="spam", csrf_token="0" * 64).status in (400, 403)
        assert browser.post("/login", user="mallory").status in (400, 403)
        page = browser.get("/").text
        assert "user: None;" in page
        assert "notes: ;" in page

    def test_the_csrf_token_from_before_login_is_refused(self, visit: Visit) -> None:
        browser = visit()
        token = browser.get("/").field("csrf_token")
        assert browser.post("/login", user="ada", csrf_token=token).status == 200
        assert browser.post("/notes", note="spam", csrf_token=token).status in (400, 403)

    def test_logout_ends_the_session_and_what_its_cookie_opened(self, visit: Visit) -> None:
        browser = visit()
        post(browser, "/login", user="ada")
        post(browser, "/notes", note="milk")
        (before,) = browser.cookies
        page = post(browser, "/logout").text
        assert "user: None;" in page
        assert "notes: ;" in page
        assert "user: None;" in visit().get("/", Cookie=f"{before.name}={before.value}").text

    def test_logging_out_everywhere_ends_each_session_of_the_user_and_no_other(self, visit: Visit) -> None:
        laptop, phone, stranger = visit(), visit(), visit()
        for browser, user in ((laptop, "ada"), (phone, "ada"), (stranger, "grace")):
            post(browser, "/login", user=user)
        post(laptop, "/logout-everywhere")
        assert "user: None;" in laptop.get("/").text
        assert "user: None;" in phone.get("/").text
        assert "user: grace;" in stranger.get("/").text

    def test_a_page_that_fails_saves_nothing(self, visit: Visit) -> None:
        browser = visit()
        post(browser, "/notes", note="milk")
        assert post(browser, "/fail").status == 500
        assert "notes: milk;" in browser.get("/").text

    def test_a_store_that_is_down_is_a_503_and_logs_nobody_out(self, visit: Visit, store: FragileStore) -> None:
        browser = visit()
        post(browser, "/login", user="ada")
        store.is_down = True
        page = browser.get("/")
        assert page.status == 503
        assert page.headers["Retry-After"] == "5"
        assert "Set-Cookie" not in page.headers
        store.is_down = False
        assert "user: ada;" in browser.get("/").text
