"""PEP 3333, from both sides: what the server and the application may rely on with the middleware in between."""

import gc
import io
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
import webob

from prism_wsgi import ConfigError, MemoryStore, ResponseStarted, Session, SessionMiddleware
from tests.support.browsing import Browser, Response, Site, new_environ, plain_page, read, write
from tests.support.keys import OTHER_SECRET, SECRET

pytest_plugins = ["tests.support.site_fixtures"]

TEXT = [("Content-Type", "text/plain")]


@pytest.fixture(params=["validated", "plain"])
def browser(request: pytest.FixtureRequest) -> Browser:
    """A known visitor of a site whose application returns its body through the validator, or as it is."""
    browser = Site(plain=request.param == "plain").browser()
    browser.visit(write(n=1))
    browser.site.calls.clear()
    return browser


def session_of(environ: WSGIEnvironment) -> Session:
    session = environ["prism.session"]
    assert isinstance(session, Session)
    return session


class Body:
    """A body that counts how often it was asked for items and closed."""

    def __init__(self, items: Iterable[bytes]) -> None:
        self._items = iter(items)
        self.pulled = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.pulled += 1
        return next(self._items)

    def close(self) -> None:
        self.closed += 1


def start(site: Site, app: WSGIApplication, **environ: Any) -> Response:
    """Begin a request as a server does, straight at the middleware."""
    site.serving = app
    return Response(site.middleware, new_environ(**environ))


# When the session is saved


def saving_list(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    session_of(environ)["n"] = 2
    return [b"hello"]


def saving_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session_of(environ)["n"] = 2
    start_response("200 OK", TEXT)
    session_of(environ)["n"] = 2
    yield b"hello"


def saving_empty_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    session_of(environ)["n"] = 2
    yield from ()


def saving_late_start(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        session_of(environ)["n"] = 2
        start_response("200 OK", TEXT)
        yield b"hello"

    return body()


def saving_in_between(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        session_of(environ)["n"] = 2
        yield b"hello"

    start_response("200 OK", TEXT)
    return body()


def saving_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session_of(environ)["n"] = 2
    start_response("200 OK", TEXT)(b"hello")
    return []


def saving_tuple(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session_of(environ)["n"] = 2
    start_response("200 OK", TEXT)
    return (b"he", b"llo")


APPS = [
    saving_list,
    saving_generator,
    saving_empty_generator,
    saving_late_start,
    saving_in_between,
    saving_write,
    saving_tuple,
]


@pytest.mark.parametrize("app", APPS)
def test_however_the_application_answers_its_changes_are_saved(browser: Browser, app: WSGIApplication) -> None:
    page = browser.request(app)
    assert page.body in (b"hello", b"")
    assert page.all("Vary") == ["Cookie"]
    assert browser.visit(read("n")).result == 2


@pytest.mark.parametrize("app", [app for app in APPS if app is not saving_in_between])
@pytest.mark.parametrize("plain", [False, True])
def test_a_new_visitor_gets_the_cookie_however_the_application_answers(app: WSGIApplication, plain: bool) -> None:
    browser = Site(plain=plain, cookie_on="write").browser()
    page = browser.request(app)
    assert list(page.cookies) == ["prism_session"]
    assert browser.visit(read("n")).result == 2


def test_a_generator_that_has_started_the_response_may_still_write_for_a_new_visitor() -> None:
    browser = Site(plain=True, cookie_on="write").browser()
    assert list(browser.request(saving_in_between).cookies) == ["prism_session"]
    assert browser.visit(read("n")).result == 2


def test_the_session_is_saved_before_the_server_hears_of_the_response() -> None:
    site = Site(plain=True)
    site.serving = saving_list
    calls: list[str] = []

    def start_response(*_: object) -> Any:
        calls.extend(site.calls)

    site.middleware(new_environ(), start_response)
    assert calls == ["save"]


# One item for one item


def test_nothing_is_pulled_before_the_server_asks(browser: Browser) -> None:
    bodies = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        bodies.append(Body([b"a", b"", b"b"]))
        return bodies[0]

    response = start(browser.site, app)
    assert bodies[0].pulled == 0
    items = iter(response.body)
    for count, expected in enumerate([b"a", b"", b"b"], 1):
        assert next(items) == expected
        assert bodies[0].pulled == count
    assert next(items, None) is None
    response.close()


def test_an_infinite_body_is_passed_through_in_lock_step(browser: Browser) -> None:
    produced = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        for number in itertools.count():
            produced.append(number)
            yield str(number).encode()

    response = start(browser.site, app)
    assert produced == []
    items = iter(response.body)
    for number in range(1000):
        assert next(items) == str(number).encode()
        assert produced == list(range(number + 1))
    response.close()
    assert len(produced) == 1000


def test_items_are_neither_joined_nor_split(browser: Browser) -> None:
    parts = [b"", b"a" * 100_000, b"", b"b", b""]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 2
        start_response("200 OK", TEXT)
        yield from parts

    response = start(browser.site, app)
    assert list(response.body) == parts
    response.close()


def test_what_was_written_comes_before_what_was_returned(browser: Browser) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        send = start_response("200 OK", TEXT)
        send(b"one ")
        send(b"two ")
        return [b"three"]

    assert browser.request(app).body == b"one two three"


def test_the_headers_are_final_before_the_first_byte_written() -> None:
    site = Site()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 1
        send = start_response("200 OK", TEXT)
        assert site.calls == []
        send(b"hello")
        assert site.calls == ["save"]
        return []

    assert list(site.browser().request(app).cookies) == ["prism_session"]


# close()


def run_to_the_end(response: Response) -> None:
    response.send()


def stop_in_the_middle(response: Response) -> None:
    next(iter(response.body))
    response.close()


def never_iterate(response: Response) -> None:
    response.close()


@pytest.mark.parametrize("server", [run_to_the_end, stop_in_the_middle, never_iterate])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("touched", [False, True])
def test_the_body_is_closed_once(server: Callable[[Response], None], method: str, touched: bool) -> None:
    site = Site(plain=True)
    body = Body([b"a", b"b"])

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if touched:
            session_of(environ)["n"] = 1
        start_response("200 OK", TEXT)
        return body

    server(start(site, app, REQUEST_METHOD=method))
    assert body.closed == 1


def test_the_body_is_closed_once_when_it_raises() -> None:
    def items() -> Iterator[bytes]:
        yield b"a"
        raise LookupError

    body = Body(items())

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return body

    response = start(Site(plain=True), app)
    with pytest.raises(LookupError):
        response.send()
    assert body.closed == 1


def test_the_body_is_closed_once_when_the_session_cannot_be_saved() -> None:
    site = Site(plain=True)
    site.store.failing = {"save"}  # type: ignore[attr-defined]
    body = Body([b"a"])

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 1
        start_response("200 OK", TEXT)
        return body

    response = start(site, app)
    response.send()
    assert response.status == "503 Service Unavailable"
    assert body.closed == 1


def test_a_body_whose_close_fails_does_not_keep_the_session_from_being_saved(browser: Browser) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)

        class Failing(Body):
            def __next__(self) -> bytes:
                session_of(environ)["n"] = 2
                return super().__next__()

            def close(self) -> None:
                raise LookupError

        return Failing([b"a"])

    with pytest.raises(LookupError):
        browser.request(app)
    assert browser.visit(read("n")).result == 2


def test_a_response_that_is_closed_twice_closes_the_body_once() -> None:
    body = Body([b"a"])

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ).get("n")
        start_response("200 OK", TEXT)
        return body

    response = start(Site(plain=True), app)
    response.close()
    response.close()
    assert body.closed == 1


# Changes after the headers


def late(change: Callable[[Session], object], *, first: Callable[[Session], object] = lambda session: None) -> Any:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        first(session_of(environ))
        start_response("200 OK", TEXT)
        yield b"one"
        change(session_of(environ))
        yield b"two"

    return app


def test_a_change_while_streaming_is_saved(browser: Browser) -> None:
    browser.request(late(write(n=2)))
    assert browser.visit(read("n")).result == 2


def test_a_change_while_streaming_is_saved_when_the_client_goes_away(browser: Browser) -> None:
    response = start(browser.site, late(write(n=2)), HTTP_COOKIE=browser.cookie_header)
    items = iter(response.body)
    assert [next(items), next(items)] == [b"one", b"two"]
    response.close()
    assert browser.visit(read("n")).result == 2


def test_a_change_inside_a_value_while_streaming_is_saved(browser: Browser) -> None:
    browser.visit(write(cart=[1]))
    browser.request(late(lambda session: session["cart"].append(2)))
    assert browser.visit(read("cart")).result == [1, 2]


def test_a_change_while_streaming_inside_a_value_read_before_is_saved(browser: Browser) -> None:
    browser.visit(write(cart=[1]))
    lent: list[Any] = []
    browser.request(late(lambda _: lent[0].append(2), first=lambda session: lent.append(session["cart"])))
    assert browser.visit(read("cart")).result == [1, 2]


def test_a_change_while_streaming_inside_a_value_assigned_before_is_saved(browser: Browser) -> None:
    cart = [1]
    browser.request(late(lambda _: cart.append(2), first=lambda session: session.update(cart=cart)))
    assert browser.visit(read("cart")).result == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.update(cart=[1, 2]),
        # The server has the iterator itself, so that nobody is there to notice when it is closed.
        lambda session: (session["cart"].append(2), session.changed()),
    ],
)
def test_a_change_made_by_an_iterator_that_is_the_first_to_look_is_saved(change: Callable[[Session], object]) -> None:
    browser = Site(plain=True).browser()
    browser.visit(write(cart=[1]))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        class Changing(Body):
            def __next__(self) -> bytes:
                item = super().__next__()
                change(session_of(environ))
                return item

        start_response("200 OK", TEXT)
        return Changing([b"one"])

    browser.request(app)
    assert browser.visit(read("cart")).result == [1, 2]


def test_a_change_between_write_and_return_is_saved(browser: Browser) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)(b"one")
        session_of(environ)["n"] = 2
        return [b"two"]

    browser.request(app)
    assert browser.visit(read("n")).result == 2


def test_a_change_after_the_application_returned_a_list_is_saved(browser: Browser) -> None:
    kept: list[Session] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(session_of(environ))
        start_response("200 OK", TEXT)
        return [b"one"]

    response = start(browser.site, app, HTTP_COOKIE=browser.cookie_header)
    kept[0]["n"] = 2
    response.send()
    assert browser.visit(read("n")).result == 2


def test_a_late_first_write_of_a_visitor_without_a_cookie_is_a_loud_error() -> None:
    site = Site(cookie_on="write")
    with pytest.raises(ResponseStarted, match="before the first part of the body"):
        site.browser().request(late(write(n=2)))
    assert site.calls == []


def test_a_late_first_write_of_a_visitor_who_was_given_a_cookie_is_saved() -> None:
    browser = Site().browser()
    browser.request(late(write(n=2)))
    assert browser.visit(read("n")).result == 2


@pytest.mark.parametrize("change", [lambda session: session.regenerate(), lambda session: session.login("ann")])
def test_a_late_new_id_is_a_loud_error(browser: Browser, change: Callable[[Session], object]) -> None:
    with pytest.raises(ResponseStarted):
        browser.request(late(change))
    assert browser.visit(lambda session: (session["n"], session.user)).result == (1, None)


def test_a_late_logout_ends_the_session(browser: Browser) -> None:
    header = browser.cookie_header
    browser.request(late(lambda session: session.logout()))
    assert browser.site.browser().visit(read("n"), HTTP_COOKIE=header).result is None


def test_a_late_change_after_a_logout_elsewhere_is_dropped(browser: Browser) -> None:
    header = browser.cookie_header

    def change(session: Session) -> None:
        browser.visit(lambda session: session.logout())
        session["n"] = 2

    browser.site.browser().request(late(change, first=read("n")), HTTP_COOKIE=header)
    assert browser.site.browser().visit(read("n"), HTTP_COOKIE=header).result is None


# exc_info


class PickyError(Exception):
    """An exception that cannot be made again from its text."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code} {reason}")


def failing(
    when: str, *, change: Callable[[Session], object] = lambda session: None, catches: bool = True
) -> WSGIApplication:
    """Return an application that fails in one of four phases and then answers 500, with exc_info."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        import sys

        try:
            change(session_of(environ))
            if when != "before start_response":
                send = start_response("200 OK", [*TEXT, ("X-Page", "fine")])
            if when == "after write":
                send(b"partly")
            if when == "after the first item":
                yield b"partly"
            raise PickyError(7, reason="picky")
        except PickyError:
            if not catches:
                raise
            start_response("500 Oops", [*TEXT, ("X-Page", "error")], sys.exc_info())
            yield b"sorry"

    return app


@pytest.mark.parametrize("when", ["before start_response", "after start_response"])
def test_headers_that_were_not_sent_are_replaced(browser: Browser, when: str) -> None:
    page = browser.request(failing(when, change=write(n=2)))
    assert (page.status, page.all("X-Page"), page.body) == (500, ["error"], b"sorry")
    assert browser.visit(read("n")).result == 1


@pytest.mark.parametrize("when", ["before start_response", "after start_response"])
def test_the_error_page_of_a_new_visitor_has_one_cookie(when: str) -> None:
    for save_on_error in (False, True):
        browser = Site(save_on_error=save_on_error).browser()
        page = browser.request(failing(when, change=write(n=2)))
        assert len(page.all("Set-Cookie")) == 1
        assert browser.visit(read("n")).result == (2 if save_on_error else None)


@pytest.mark.parametrize("when", ["after write", "after the first item"])
def test_once_bytes_are_out_the_original_error_is_raised(browser: Browser, when: str) -> None:
    with pytest.raises(PickyError, match="7 picky") as caught:
        browser.request(failing(when))
    assert caught.traceback[-1].name == "app" or any(entry.name == "app" for entry in caught.traceback)


@pytest.mark.parametrize(
    "when", ["before start_response", "after start_response", "after write", "after the first item"]
)
def test_an_error_the_application_does_not_catch_reaches_the_server_as_it_is(browser: Browser, when: str) -> None:
    with pytest.raises(PickyError, match="7 picky"):
        browser.request(failing(when, change=write(n=2), catches=False))


def test_headers_replaced_after_ours_went_to_the_server_carry_the_cookie_anew() -> None:
    """A server may hold headers back until the first byte that is not empty."""
    browser = Site().browser()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ).login("ann")
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise PickyError(1, reason="late")
        except PickyError as error:
            start_response("500 Oops", TEXT, (type(error), error, error.__traceback__))  # type: ignore[arg-type]
        yield b"sorry"

    page = browser.request(app)
    assert page.status == 500
    assert len(page.all("Set-Cookie")) == 1
    assert browser.visit(lambda session: session.user).result == "ann"


def test_a_second_start_response_without_exc_info_is_an_error() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        start_response("200 OK", TEXT)
        return [b""]

    with pytest.raises(AssertionError, match="second time"):
        Site(plain=True).browser().request(app)


def test_no_reference_to_an_error_is_kept(browser: Browser) -> None:
    class Local:
        pass

    references = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        local = Local()
        references.append(weakref.ref(local))
        start_response("200 OK", TEXT)
        try:
            raise PickyError(1, reason="early")
        except PickyError as error:
            start_response("500 Oops", TEXT, (type(error), error, error.__traceback__))  # type: ignore[arg-type]
        return [b"sorry"]

    browser.site.serving = app
    gc.collect()
    response = Response(browser.site.middleware, new_environ())
    response.send()
    gc.collect()
    assert references[0]() is None
    assert response.status == "500 Oops"


# What passes through untouched


@pytest.mark.parametrize("body", [[b"hello"], (b"hello",)], ids=["list", "tuple"])
def test_an_untouched_session_hands_the_applications_own_body_to_the_server(body: Iterable[bytes]) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return body

    assert start(Site(plain=True), app).body is body


@pytest.mark.parametrize("change", [lambda session: None, read("n"), write(n=2)])
def test_a_file_reaches_the_server_as_its_own_wrapper(change: Callable[[Session], object]) -> None:
    """Only so can it be sent with sendfile."""
    site = Site(plain=True)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        change(session_of(environ))
        start_response("200 OK", TEXT)
        wrapper = environ["wsgi.file_wrapper"]
        wrapped: Iterable[bytes] = wrapper(io.BytesIO(b"file" * 10_000))
        return wrapped

    response = start(site, app)
    assert type(response.body) is FileWrapper
    assert len(response.send()) == 40_000


def test_the_applications_header_list_is_not_changed_and_may_be_shared() -> None:
    """Beaker sends one visitor's cookie to the next when an application does this."""
    shared = [("Content-Type", "text/plain"), ("Vary", "Accept"), ("Cache-Control", "max-age=60")]
    before = list(shared)
    site = Site(plain=True)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/write":
            session_of(environ)["n"] = 1
        start_response("200 OK", shared)
        return [b""]

    first = site.browser().request(app, path="/write")
    assert list(first.cookies) == ["prism_session"]
    assert shared == before
    second = site.browser().request(app)
    assert second.all("Set-Cookie") == []
    assert second.headers == before


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "302 Found", "299 Odd Reason"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_status_and_the_applications_headers_stay(status: str, method: str) -> None:
    has_body = status[:3] not in ("204", "304")
    theirs = [("Location", "relative/path?a=b"), ("ETag", '"x"'), ("X-Odd", "caf\xe9"), ("Warning", "a, b")]
    theirs += [("Content-Type", "text/html"), ("Content-Length", "5")] if has_body else []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 1
        start_response(status, theirs)
        return [] if method == "HEAD" or not has_body else [b"hello"]

    site = Site()
    site.serving = app
    response = Response(validator(site.middleware), new_environ(REQUEST_METHOD=method))
    body = response.send()
    assert response.status == status
    assert response.headers[: len(theirs)] == theirs
    assert {name for name, _ in response.headers[len(theirs) :]} == {"Vary", "Set-Cookie", "Cache-Control"}
    assert body == (b"hello" if has_body and method != "HEAD" else b"")


def test_a_304_says_as_much_about_caching_as_its_200(browser: Browser) -> None:
    answers = []
    for status, headers in (("200 OK", TEXT), ("304 Not Modified", [])):

        def app(
            environ: WSGIEnvironment,
            start_response: StartResponse,
            status: str = status,
            headers: list[tuple[str, str]] = headers,
        ) -> Iterable[bytes]:
            session_of(environ)["n"] = status
            start_response(status, [*headers, ("Cache-Control", "max-age=60")])
            return []

        page = browser.request(app)
        answers.append((page.all("Vary"), page.all("Cache-Control")))
    assert answers[0] == answers[1] == (["Cookie"], ["max-age=60"])


def test_header_names_and_values_are_plain_text_in_pairs(browser: Browser) -> None:
    page = browser.visit(lambda session: session.login("ann"))
    assert all(type(pair) is tuple and [type(part) for part in pair] == [str, str] for pair in page.headers)
    hop_by_hop = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
    assert not hop_by_hop & {name.lower() for name, _ in page.headers}


def test_the_request_body_is_not_touched(browser: Browser) -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            if name in ("read", "readline", "readlines", "__iter__"):
                return self.fail
            raise AttributeError(name)

        def fail(self, *_: object) -> None:
            raise AssertionError("the body was read")

        __iter__ = None

    seen = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 2
        seen.append(environ["wsgi.input"])
        start_response("200 OK", TEXT)
        return [b""]

    given = Untouchable()
    start(Site(plain=True), app, REQUEST_METHOD="POST", **{"wsgi.input": given}).send()
    assert seen == [given]


# Mounted twice


def test_a_middleware_inside_a_middleware_leaves_the_session_to_the_outer_one() -> None:
    site = Site()
    inner = SessionMiddleware(saving_list, store=site.store, secret=[OTHER_SECRET, SECRET], clock=site.clock)
    browser = site.browser()
    page = browser.request(inner)
    assert len(page.all("Set-Cookie")) == 1
    assert site.calls == ["save"]
    site.calls.clear()
    browser.request(inner)
    assert site.calls == ["load"]
    assert browser.visit(read("n")).result == 2


def test_an_inner_middleware_of_another_cookie_has_a_session_of_its_own_and_the_outer_one_its_own_again() -> None:
    site, store, seen = Site(), MemoryStore(), []

    def inside(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        webob.Request(environ).session["inner"] = 1
        environ["prism.session"]["again"] = 2
        return plain_page(environ, start_response)

    inner = SessionMiddleware(inside, store=store, secret=OTHER_SECRET, cookie_name="inner", clock=site.clock)

    def outside(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = webob.Request(environ)
        request.session["outer"] = 1
        body = inner(environ, start_response)
        seen.extend([dict(request.session), dict(environ["prism.session"])])
        return body

    browser = site.browser()
    page = browser.request(outside)
    assert sorted(page.cookies) == ["inner", "prism_session"]
    assert seen == [{"outer": 1}, {"outer": 1}]
    assert len(store) == 1
    assert browser.visit(dict).result == {"outer": 1}


@pytest.mark.parametrize("settings", [{"secret": OTHER_SECRET}, {"secret": SECRET, "environ_key": "inner.session"}])
def test_an_inner_middleware_that_would_replace_the_outer_ones_cookie_is_refused(settings: dict[str, Any]) -> None:
    inner = SessionMiddleware(saving_list, store=MemoryStore(), **settings)
    with pytest.raises(ConfigError, match="another cookie_name"):
        Site(secret=SECRET).browser().request(inner)


def test_two_middlewares_with_keys_and_cookies_of_their_own_work_side_by_side() -> None:
    site = Site()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["prism.session"]["n"] = 1
        environ["admin.session"]["n"] = 2
        start_response("200 OK", TEXT)
        return [b""]

    inner = SessionMiddleware(
        app,
        secret="0123456789abcdefghijklmnopqrstuvwxyz",
        cookie_name="admin_session",
        environ_key="admin.session",
        clock=site.clock,
    )
    page = site.browser().request(inner)
    assert sorted(page.cookies) == ["admin_session", "prism_session"]


def test_a_request_within_a_request_shares_the_session(browser: Browser) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session_of(environ)["n"] = 2
        body = b"."
        if environ["PATH_INFO"] == "/":
            body = Response(browser.site.middleware, environ | {"PATH_INFO": "/within"}).send()
        start_response("200 OK", TEXT)
        return [body]

    page = browser.request(app)
    assert page.body == b"."
    assert page.all("Set-Cookie") == []
    assert browser.site.calls == ["load", "save"]


def test_each_request_gets_a_session_object_of_its_own(browser: Browser) -> None:
    assert browser.visit(lambda session: session).result is not browser.visit(lambda session: session).result


def test_an_exception_that_passes_through_leaves_no_garbage_that_has_to_be_collected() -> None:
    class Held:
        """What a frame of the application holds, a connection say."""

    references: list[weakref.ref[Held]] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        held = Held()
        references.append(weakref.ref(held))
        raise ValueError("in the middle")

    middleware = SessionMiddleware(app, store=MemoryStore(), secret=SECRET)
    gc.collect()
    gc.disable()
    try:
        with suppress(ValueError):
            list(middleware({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}, lambda *_: print))
        assert references[0]() is None
    finally:
        gc.enable()


def test_the_environ_is_not_needed_beyond_the_request(browser: Browser) -> None:
    references = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        references.append(weakref.ref(session_of(environ)))
        return plain_page(environ, start_response)

    browser.request(app)
    gc.collect()
    assert references[0]() is None
