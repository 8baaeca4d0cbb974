"""Bottle: the plugin gives the session to routes, hooks and error handlers."""

from collections.abc import Iterator
from typing import Any

import bottle
import pytest
from bottle import Bottle, HTTPResponse, request

from prism_wsgi import ConfigError, MemoryStore, SessionMiddleware, get_session
from prism_wsgi.bottle import SessionPlugin
from tests.support.keys import SECRET
from tests.support.serving import Browse

pytest_plugins = ["tests.support.serving_fixtures"]


def count() -> str:
    request.session["n"] = request.session.get("n", 0) + 1
    return str(request.session["n"])


def show() -> str:
    return str(request.session.get("n", 0))


@pytest.fixture
def app() -> Any:
    app = Bottle()
    app.install(SessionPlugin(secret=SECRET))
    app.route("/count", "GET", count)
    app.route("/show", "GET", show)
    return app


def test_the_session_is_in_the_environ_too(app: Any, browse: Browse) -> None:
    def same() -> str:
        return str(request.environ["prism.session"] is request.session is get_session(request))

    app.route("/same", "GET", same)
    assert browse(app).get("/same").text == "True"


def test_with_the_plain_middleware_the_session_is_in_the_environ(browse: Browse) -> None:
    def count_in_environ() -> str:
        session = request.environ["prism.session"]
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    app = Bottle()
    app.route("/", "GET", count_in_environ)
    browser = browse(SessionMiddleware(app, secret=SECRET))
    assert [browser.get("/").text for _ in range(2)] == ["1", "2"]


def test_hooks_and_error_handlers_see_the_session(app: Any, browse: Browse) -> None:
    def show_error(error: object) -> str:
        return f"visit {request.session['n']}"

    app.add_hook("before_request", count)
    app.error(404, callback=show_error)
    browser = browse(app)
    assert browser.get("/nowhere").text == "visit 1"
    assert browser.get("/nowhere").text == "visit 2"


def test_a_response_that_is_raised_keeps_changes_unless_it_is_5xx(app: Any, browse: Browse) -> None:
    def leave(status: str) -> None:
        count()
        raise HTTPResponse(status=int(status))

    app.route("/leave/<status>", "GET", leave)
    browser = browse(app)
    browser.get("/leave/409")
    browser.get("/leave/500")
    assert browser.get("/show").text == "1"


def test_changes_made_while_a_response_is_streamed_are_saved(app: Any, browse: Browse) -> None:
    def stream() -> Iterator[str]:
        for _ in range(3):
            yield count()

    app.route("/stream", "GET", stream)
    browser = browse(app)
    assert browser.get("/stream").text == "123"
    assert browser.get("/show").text == "3"


def test_an_application_mounted_in_another_has_its_session(app: Any, browse: Browse) -> None:
    blog = Bottle()
    blog.route("/count", "GET", count)
    app.mount("/blog/", blog)
    browser = browse(app)
    assert browser.get("/blog/count").text == "1"
    assert browser.get("/count").text == "2"


def test_the_module_level_application_takes_the_plugin(browse: Browse) -> None:
    with Bottle() as app:
        bottle.install(SessionPlugin(secret=SECRET))
        bottle.route("/count", "GET", count)
        assert browse(app).get("/count").text == "1"


def test_one_plugin_in_two_applications_shares_its_store(browse: Browse) -> None:
    plugin = SessionPlugin(secret=SECRET, store=MemoryStore())
    first, second = Bottle(), Bottle()
    for app in (first, second):
        app.install(plugin)
        app.route("/count", "GET", count)
    browser = browse(first)
    browser.get("/count")
    (cookie,) = browser.cookies
    assert browse(second).get("/count", Cookie=f"{cookie.name}={cookie.value}").text == "2"


def test_uninstalling_takes_the_sessions_away(app: Any, browse: Browse) -> None:
    app.uninstall("prism_wsgi")
    app.route("/has", "GET", lambda: str(hasattr(request, "session")))
    page = browse(app).get("/has")
    assert page.text == "False"
    assert "Set-Cookie" not in page.headers


def test_a_wrong_setting_fails_where_the_plugin_is_made() -> None:
    with pytest.raises(ConfigError, match="ttl must be"):
        SessionPlugin(secret=SECRET, ttl=0)
    with pytest.raises(TypeError, match="cookie_nam"):
        SessionPlugin(secret=SECRET, cookie_nam="shop")  # type: ignore[call-arg]
