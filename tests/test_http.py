"""Request, Response and get_session: WebOb's, with sessions and cookies."""

import io
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import webob

from prism_wsgi import ConfigError, Cookie, Request, Response, SameSite, Session, get_session
from tests.support.browsing import Site, new_environ, plain_page, write


def on_site(use: Any, **settings: Any) -> Any:
    """Return what `use` makes of the environ of a request that came through the middleware."""
    results = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        results.append(use(environ))
        return plain_page(environ, start_response)

    Site(**settings).browser().request(app)
    return results[0]


def test_the_session_is_on_the_request() -> None:
    request = on_site(Request)
    assert isinstance(request.session, Session)
    assert request.session is request.environ["prism.session"]


def test_any_request_of_webobs_has_the_session() -> None:
    assert isinstance(on_site(webob.Request).session, Session)


def test_a_request_finds_the_session_under_another_key_too() -> None:
    for kind in (Request, webob.Request):
        request = on_site(kind, environ_key="my.session")
        assert request.session is request.environ["my.session"]


def test_get_session_takes_the_environ_or_a_request() -> None:
    for use in (get_session, lambda environ: get_session(webob.Request(environ))):
        assert isinstance(on_site(use), Session)

    class OtherRequest:
        def __init__(self, environ: WSGIEnvironment) -> None:
            self.environ = environ

    assert isinstance(on_site(lambda environ: get_session(OtherRequest(environ))), Session)
    assert isinstance(
        on_site(lambda environ: get_session(environ, environ_key="my.session"), environ_key="my.session"), Session
    )


@pytest.mark.parametrize("given", [{}, None, object(), {"prism.session": {}}, webob.Request.blank("/")])
def test_get_session_without_the_middleware_names_the_middleware(given: Any) -> None:
    with pytest.raises(ConfigError, match="SessionMiddleware"):
        get_session(given)


def test_the_session_of_a_request_without_the_middleware_names_the_middleware() -> None:
    with pytest.raises(ConfigError, match="SessionMiddleware"):
        _ = Request(new_environ()).session


def test_two_requests_of_one_environ_share_the_session() -> None:
    first, second = on_site(lambda environ: (Request(environ), webob.Request(environ)))
    assert first.session is second.session


def test_cookies_are_a_mapping() -> None:
    request = Request(new_environ(HTTP_COOKIE="session=abc; theme=dark"))
    assert dict(request.cookies) == {"session": "abc", "theme": "dark"}
    assert request.cookies.get("lang", "en") == "en"
    assert dict(Request(new_environ()).cookies) == {}


def test_form_fields_are_a_mapping() -> None:
    body = b"theme=dark&lang=de"
    request = Request(
        new_environ(
            REQUEST_METHOD="POST",
            CONTENT_TYPE="application/x-www-form-urlencoded",
            CONTENT_LENGTH=str(len(body)),
            **{"wsgi.input": io.BytesIO(body)},
        )
    )
    assert request.POST.get("theme") == "dark"
    assert request.POST.get("missing", "light") == "light"


# Responses


def test_a_response_of_json() -> None:
    response = Response.json({"theme": "dark", "n": 1})
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.body == b'{"theme": "dark", "n": 1}'
    assert response.json == {"theme": "dark", "n": 1}
    assert Response.json([], status=404).status_code == 404
    assert Response.json({"name": "é"}).json == {"name": "é"}


def test_json_of_a_response_can_be_set() -> None:
    response = Response()
    response.json = {"a": 1}
    assert response.body == b'{"a":1}'


def test_a_response_sets_a_cookie_value() -> None:
    response = Response.json({})
    cookie = Cookie("theme", "dark", max_age=86400 * 365, httponly=False, samesite=SameSite.LAX)
    response.set_cookie(cookie)
    assert response.headers.getall("Set-Cookie") == [
        "theme=dark; Max-Age=31536000; Path=/; Secure; SameSite=Lax",
    ]


def test_a_response_can_set_several_cookies() -> None:
    response = Response()
    response.set_cookie(Cookie("a", "1"))
    response.set_cookie(Cookie("b", "2"))
    assert [line.partition("=")[0] for line in response.headers.getall("Set-Cookie")] == ["a", "b"]


def test_a_response_takes_webobs_own_parameters_too() -> None:
    response = Response()
    response.set_cookie("theme", "dark", max_age=60, secure=True)
    assert response.headers["Set-Cookie"].startswith("theme=dark; Max-Age=60; Path=/;")
    response.set_cookie(name="lang", value="de")
    assert len(response.headers.getall("Set-Cookie")) == 2
    response.delete_cookie("lang")
    assert "Max-Age=0" in response.headers.getall("Set-Cookie")[-1]


def test_a_response_deletes_a_cookie_value_with_its_attributes() -> None:
    browser = Site().browser()
    cookie = Cookie("__Host-theme", "dark", samesite="none", partitioned=True)
    kept, gone = Response(), Response()
    kept.set_cookie(cookie)
    gone.delete_cookie(cookie)
    browser.request(kept)
    assert "__Host-theme=dark" in browser.cookie_header
    browser.request(gone)
    assert "__Host-theme" not in browser.cookie_header


def test_a_response_is_an_application_and_its_cookie_stays_beside_ours() -> None:
    response = Response("hello", content_type="text/plain", charset="UTF-8")
    response.set_cookie(Cookie("theme", "dark"))
    browser = Site().browser()
    browser.visit(write(n=1))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        get_session(environ).login("ann")
        return response(environ, start_response)

    page = browser.request(app)
    assert sorted(page.cookies) == ["prism_session", "theme"]
    assert page.body == b"hello"
    assert response.headers.getall("Set-Cookie") == [Cookie("theme", "dark").header_value]
