"""Flask: `flask.session` behaves as Flask's documentation says, and is kept on the server."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.cookiejar import Cookie, CookieJar
from wsgiref.types import WSGIEnvironment

import flask
import pytest
from flask import Flask, flash, get_flashed_messages, render_template_string, stream_with_context
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from markupsafe import Markup
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from prism_wsgi import ConfigError, MemoryStore, Session, SessionMiddleware
from prism_wsgi.flask import PrismSessions, session
from tests.support.keys import OTHER_SECRET, SECRET
from tests.support.serving import Browse

pytest_plugins = ["tests.support.serving_fixtures"]

DAY = 24 * 3600  # seconds


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(ttl=400 * DAY)


@pytest.fixture
def app(store: MemoryStore) -> Flask:
    return make_app(store)


def make_app(store: MemoryStore, **config: object) -> Flask:
    app = Flask(__name__)
    app.config.update({"SECRET_KEY": SECRET, **config})
    PrismSessions(app, store=store)
    add_pages(app)
    return app


def add_pages(app: Flask) -> None:
    @app.get("/count")
    def count() -> str:
        flask.session["n"] = flask.session.get("n", 0) + 1
        return str(flask.session["n"])

    @app.get("/show")
    def show() -> str:
        return str(flask.session.get("n", 0))

    @app.get("/untouched")
    def untouched() -> str:
        return "untouched"


def show(app: Flask, path: str, view: Callable[[], object]) -> None:
    """Add a page that shows what `view` returns."""
    app.add_url_rule(path, path, lambda: str(view()))


def test_the_session_is_a_prism_session_with_flasks_attributes(app: Flask, browse: Browse) -> None:
    def check() -> bool:
        opened = flask.session._get_current_object()  # type: ignore[attr-defined]
        return isinstance(opened, Session) and isinstance(opened, SessionMixin)

    show(app, "/check", check)
    assert browse(app).get("/check").text == "True"


def test_a_session_is_new_until_it_was_stored(app: Flask, browse: Browse) -> None:
    show(app, "/new", lambda: session.new)
    browser = browse(app)
    assert browser.get("/new").text == "True"
    browser.get("/count")
    assert browser.get("/new").text == "False"


def cookie_header(cookies: CookieJar) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)}


def only_cookie(cookies: CookieJar) -> Cookie:
    (cookie,) = cookies
    return cookie


def test_a_session_ends_with_the_browser_unless_it_is_permanent(app: Flask, browse: Browse) -> None:
    def make_permanent() -> bool:
        before = session.permanent
        session.permanent = True
        return before

    show(app, "/permanent", make_permanent)
    browser = browse(app)
    browser.get("/count")
    assert only_cookie(browser.cookies).expires is None
    assert browser.get("/permanent").text == "False"
    assert only_cookie(browser.cookies).expires is not None
    assert browser.get("/permanent").text == "True"


def test_a_permanent_session_lasts_for_permanent_session_lifetime(store: MemoryStore) -> None:
    app = make_app(store, PERMANENT_SESSION_LIFETIME=timedelta(days=7))

    def make_permanent() -> int:
        session.permanent = True
        session["n"] = 1
        return session.ttl

    show(app, "/permanent", make_permanent)
    response = app.test_client().get("/permanent")
    assert response.text == str(7 * DAY)
    assert f"Max-Age={7 * DAY}" in response.headers["Set-Cookie"]


def test_sessions_can_be_permanent_from_the_start_without_storing_empty_ones(store: MemoryStore) -> None:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    PrismSessions(app, store=store, persistent=True)

    def make_permanent() -> bool:
        session.permanent = True
        return session.permanent

    show(app, "/permanent", make_permanent)
    response = app.test_client().get("/permanent")
    assert response.text == "True"
    assert "Max-Age=" in response.headers["Set-Cookie"]
    assert len(store) == 0


def test_the_cookie_has_flasks_defaults(app: Flask) -> None:
    attributes = app.test_client().get("/count").headers["Set-Cookie"].split("; ")
    assert attributes[0].startswith("session=")
    assert attributes[1:] == ["Path=/", "HttpOnly", "SameSite=Lax"]


def test_the_cookie_has_the_configured_attributes(store: MemoryStore) -> None:
    app = make_app(
        store,
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_DOMAIN="shop.example",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="None",
        SESSION_COOKIE_PARTITIONED=True,
    )
    attributes = app.test_client().get("/count").headers["Set-Cookie"].split("; ")
    assert attributes[0].startswith("shop=")
    assert attributes[1:] == ["Path=/", "Domain=shop.example", "Secure", "SameSite=None", "Partitioned"]


def test_the_cookies_path_is_the_application_root_unless_set(store: MemoryStore) -> None:
    cookie = make_app(store, APPLICATION_ROOT="/shop").test_client().get("/count").headers["Set-Cookie"]
    assert "; Path=/shop;" in cookie


def test_a_fallback_secret_key_still_opens_sessions(store: MemoryStore, browse: Browse) -> None:
    before = browse(make_app(store, SECRET_KEY=OTHER_SECRET))
    before.get("/count")
    cookie = only_cookie(before.cookies)
    after = browse(make_app(store, SECRET_KEY_FALLBACKS=[OTHER_SECRET]))
    assert after.get("/count", Cookie=f"{cookie.name}={cookie.value}").text == "2"
    assert only_cookie(after.cookies).value != cookie.value


def test_a_change_inside_a_value_is_saved_without_setting_modified(app: Flask, browse: Browse) -> None:
    def add() -> list[int]:
        flask.session.setdefault("list", []).append(1)
        return [len(flask.session["list"]), flask.session.modified]

    show(app, "/add", add)
    browser = browse(app)
    assert [browser.get("/add").text for _ in range(2)] == ["[1, True]", "[2, True]"]


def test_setting_modified_to_false_keeps_the_changes_of_this_request_from_being_saved(
    app: Flask, browse: Browse
) -> None:
    def keep() -> bool:
        flask.session["n"] = 5
        flask.session.modified = True
        return flask.session.modified

    def forget() -> bool:
        flask.session["n"] = 99
        flask.session.modified = False
        return flask.session.modified

    show(app, "/keep", keep)
    show(app, "/forget", forget)
    browser = browse(app)
    assert browser.get("/keep").text == "True"
    assert browser.get("/forget").text == "False"
    assert browser.get("/show").text == "5"


def test_setting_modified_saves_what_a_stream_changes_inside_a_value(app: Flask, browse: Browse) -> None:
    @app.get("/stream")
    def stream() -> Response:
        numbers = flask.session["numbers"] = [1]

        def body() -> Iterator[str]:
            yield "begun"
            numbers.append(2)
            flask.session.modified = True

        return flask.Response(stream_with_context(body()))

    show(app, "/numbers", lambda: flask.session["numbers"])
    browser = browse(app)
    browser.get("/stream")
    assert browser.get("/numbers").text == "[1, 2]"


def test_using_the_session_varies_the_response_and_leaving_it_does_not(app: Flask) -> None:
    show(app, "/accessed", lambda: flask.session.accessed)
    client = app.test_client()
    assert client.get("/accessed").text == "True"
    assert "Vary" not in client.get("/untouched").headers
    assert client.get("/show").headers["Vary"] == "Cookie"


def test_a_template_that_leaves_the_session_alone_does_not_vary(app: Flask) -> None:
    show(app, "/plain", lambda: render_template_string("hello"))
    show(app, "/named", lambda: render_template_string("hello {{ session.name }}"))
    client = app.test_client()
    assert "Vary" not in client.get("/plain").headers
    assert client.get("/named").headers["Vary"] == "Cookie"


def test_a_message_that_is_html_is_shown_as_html(app: Flask, browse: Browse) -> None:
    def say() -> None:
        flash(Markup("<b>saved</b>"))
        flash("<b>from a visitor</b>")

    show(app, "/say", say)
    template = "{% for message in get_flashed_messages() %}{{ message }}{% endfor %}"
    show(app, "/hear", lambda: render_template_string(template))
    browser = browse(app)
    browser.get("/say")
    assert browser.get("/hear").text == "<b>saved</b>&lt;b&gt;from a visitor&lt;/b&gt;"


def test_messages_are_flashed_once_with_their_categories(app: Flask, browse: Browse) -> None:
    def say() -> None:
        flash("saved")
        flash("careful", "warning")

    show(app, "/say", say)
    show(app, "/hear", lambda: get_flashed_messages(with_categories=True))
    browser = browse(app)
    browser.get("/say")
    assert browser.get("/hear").text == "[('message', 'saved'), ('warning', 'careful')]"
    assert browser.get("/hear").text == "[]"


def test_clearing_the_session_logs_out_and_deletes_the_cookie(app: Flask, browse: Browse, store: MemoryStore) -> None:
    show(app, "/clear", lambda: session.clear())
    browser = browse(app)
    browser.get("/count")
    assert "Max-Age=0" in browser.get("/clear").headers["Set-Cookie"]
    assert len(store) == 0
    assert len(browser.cookies) == 0


def test_clearing_the_session_at_login_takes_a_new_id(app: Flask, browse: Browse, store: MemoryStore) -> None:
    def log_in() -> str:  # as Flask's tutorial does
        flask.session.clear()
        flask.session["user_id"] = 7
        return session.id

    show(app, "/login", log_in)
    show(app, "/id", lambda: session.id)
    browser = browse(app)
    browser.get("/count")
    before = browser.get("/id").text
    after = browser.get("/login").text
    assert after not in (before, "")
    assert browser.get("/id").text == after
    assert store.load(before) is None


def test_a_session_whose_last_key_is_removed_stays_for_what_other_requests_write(
    app: Flask, browse: Browse, store: MemoryStore
) -> None:
    show(app, "/pop", lambda: flask.session.pop("n"))
    browser = browse(app)
    browser.get("/count")
    cookie = only_cookie(browser.cookies).value
    assert browser.get("/pop").text == "1"
    assert only_cookie(browser.cookies).value == cookie
    assert len(store) == 1


def test_emptying_the_session_keeps_what_another_request_writes_meanwhile(app: Flask, browse: Browse) -> None:
    flashed, added = threading.Event(), threading.Event()

    def show_flashes() -> None:
        get_flashed_messages()
        flashed.set()
        assert added.wait(10)

    show(app, "/flash", lambda: flash("Welcome"))
    show(app, "/flashes", show_flashes)
    browser = browse(app)
    browser.get("/flash")
    slow = threading.Thread(target=lambda: app.test_client().get("/flashes", headers=cookie_header(browser.cookies)))
    slow.start()
    assert flashed.wait(10)
    browser.get("/count")
    added.set()
    slow.join(10)
    assert browser.get("/show").text == "1"


def test_a_page_that_fails_after_removing_the_last_key_ends_nothing(app: Flask, browse: Browse) -> None:
    def fail() -> None:
        del flask.session["n"]
        raise LookupError

    show(app, "/fail", fail)
    browser = browse(app)
    browser.get("/count")
    assert browser.get("/fail").status == 500
    assert browser.get("/show").text == "1"


def test_an_empty_session_of_somebody_logged_in_stays(app: Flask, browse: Browse) -> None:
    show(app, "/login", lambda: session.login("ada"))
    show(app, "/user", lambda: session.user)
    browser = browse(app)
    browser.get("/login")
    assert browser.get("/user").text == "ada"


def test_the_session_lives_on_while_a_response_is_streamed(app: Flask, browse: Browse) -> None:
    @app.get("/stream")
    def stream() -> Response:
        flask.session["n"] = 0

        def body() -> Iterator[str]:
            for _ in range(3):
                flask.session["n"] += 1
                yield str(flask.session["n"])

        return flask.Response(stream_with_context(body()))

    browser = browse(app)
    assert browser.get("/stream").text == "123"
    assert browser.get("/show").text == "3"


def test_after_request_functions_and_error_handlers_may_write(app: Flask, browse: Browse) -> None:
    @app.after_request
    def remember(response: flask.Response) -> flask.Response:
        flask.session["n"] = response.status_code
        return response

    browser = browse(app)
    assert browser.get("/nowhere").status == 404
    assert browser.get("/show").text == "404"


def test_a_test_prepares_and_reads_the_session_with_session_transaction(app: Flask) -> None:
    client = app.test_client()
    with client.session_transaction() as prepared:
        prepared["n"] = 41
    assert client.get("/count").text == "42"
    with client.session_transaction() as found:
        assert found["n"] == 42
        found.clear()
    assert client.get("/show").text == "0"


def test_a_request_context_without_a_server_has_a_session_too(app: Flask) -> None:
    with app.test_request_context():
        flask.session["n"] = 1
        assert flask.session["n"] == 1


def test_the_session_is_there_after_the_response_in_a_clients_block(app: Flask) -> None:
    with app.test_client() as client:
        client.get("/count")
        assert flask.session["n"] == 1


def test_a_middleware_of_the_same_cookie_around_the_application_wins(
    app: Flask, store: MemoryStore, browse: Browse
) -> None:
    outer = MemoryStore()
    browser = browse(SessionMiddleware(app, store=outer, secret=SECRET, cookie_name="session", secure=False))
    assert [browser.get("/count").text for _ in range(2)] == ["1", "2"]
    assert only_cookie(browser.cookies).name == "session"
    assert (len(outer), len(store)) == (1, 0)


def test_a_mounted_application_has_the_sessions_of_its_own_settings(browse: Browse) -> None:
    stores = [MemoryStore(), MemoryStore()]
    shop, admin = make_app(stores[0]), make_app(stores[1], SECRET_KEY=OTHER_SECRET, SESSION_COOKIE_NAME="admin")
    shop.wsgi_app = DispatcherMiddleware(shop.wsgi_app, {"/admin": admin})  # type: ignore[method-assign]
    PrismSessions(shop, store=stores[0])
    browser = browse(shop)
    assert [browser.get(path).text for path in ("/count", "/count", "/admin/count", "/count")] == ["1", "2", "1", "3"]
    assert sorted(cookie.name for cookie in browser.cookies) == ["admin", "session"]
    assert [len(store) for store in stores] == [1, 1]


def test_a_mounted_application_with_the_same_cookie_and_another_key_is_refused() -> None:
    shop, admin = make_app(MemoryStore()), make_app(MemoryStore(), SECRET_KEY=OTHER_SECRET)
    shop.wsgi_app = DispatcherMiddleware(shop.wsgi_app, {"/admin": admin})  # type: ignore[method-assign]
    PrismSessions(shop, store=MemoryStore())
    with pytest.raises(ConfigError, match="another cookie_name"):
        shop.test_client().get("/admin/count")


def test_another_session_interface_set_afterwards_takes_over(app: Flask, browse: Browse, store: MemoryStore) -> None:
    app.session_interface = SecureCookieSessionInterface()
    browser = browse(app)
    assert [browser.get("/count").text for _ in range(2)] == ["1", "2"]
    assert len(store) == 0


@pytest.mark.parametrize("path", ["/api/count", "/api/stream"])
def test_a_save_session_that_does_nothing_saves_nothing_and_sets_no_cookie(
    browse: Browse, store: MemoryStore, path: str
) -> None:
    class NotForTheApi(PrismSessions):
        def save_session(self, app: Flask, session: SessionMixin, response: flask.Response) -> None:
            if not flask.request.path.startswith("/api"):
                super().save_session(app, session, response)

    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    NotForTheApi(app, store=store)
    add_pages(app)
    app.add_url_rule("/api/count", view_func=app.view_functions["count"])

    @app.get("/api/stream")
    def stream() -> Response:
        flask.session["n"] = 7

        def parts() -> Iterator[str]:
            yield str(flask.session["n"])

        return Response(stream_with_context(parts()))

    browser = browse(app)
    browser.get("/show")
    browser.cookies.clear()
    browser.get(path)
    assert (len(store), len(browser.cookies)) == (0, 0)
    assert browser.get("/count").text == "1"
    browser.get(path)
    assert browser.get("/show").text == "1"


def test_the_secret_key_of_a_subclass_signs_the_cookie() -> None:
    class Shop(Flask):
        secret_key = SECRET

    app = Shop(__name__)
    PrismSessions(app, store=MemoryStore())
    add_pages(app)
    assert app.test_client().get("/count").text == "1"


def test_an_environ_kept_after_its_response_sees_a_logout_and_what_other_requests_write(
    app: Flask, browse: Browse
) -> None:
    kept: list[WSGIEnvironment] = []
    show(app, "/in", lambda: session.login("ada"))
    show(app, "/out", lambda: session.logout())
    show(app, "/connect", lambda: kept.append(flask.request.environ))
    browser = browse(app)
    for path in ("/in", "/connect", "/count"):
        browser.get(path)
    with app.request_context(kept[0]):  # as Flask-SocketIO does for each event
        assert (session.user, session["n"]) == ("ada", 1)
        session["n"] = 5
    assert browser.get("/show").text == "5"
    browser.get("/out")
    with app.request_context(kept[0]):
        assert (session.user, dict(session)) == (None, {})


def test_one_extension_serves_several_applications(browse: Browse, store: MemoryStore) -> None:
    sessions = PrismSessions(store=store)
    apps = [Flask(name) for name in ("shop", "blog")]
    for app in apps:
        app.config.update(SECRET_KEY=SECRET, SESSION_COOKIE_NAME=app.name)
        sessions.init_app(app)
        add_pages(app)
        assert browse(app).get("/count").text == "1"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY must be set before PrismSessions"),
        ({"SESSION_COOKIE_SAMESITE": "Off"}, "samesite must be"),
        ({"SESSION_COOKIE_NAME": "__Host-shop"}, "needs secure=True"),
        ({"PERMANENT_SESSION_LIFETIME": timedelta(days=500)}, "ttl must be from 1"),
        ({"SESSION_REFRESH_EACH_REQUEST": False}, "SESSION_REFRESH_EACH_REQUEST must not be False"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_app(MemoryStore(), **config)


def test_a_secret_of_its_own_needs_no_secret_key() -> None:
    app = Flask(__name__)
    PrismSessions(app, secret=SECRET)
    add_pages(app)
    assert app.test_client().get("/count").text == "1"
