"""Pyramid: its session interface, its settings, and every way it makes a response."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from pyramid.authentication import SessionAuthenticationHelper, SessionAuthenticationPolicy
from pyramid.authorization import ACLAuthorizationPolicy
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.interfaces import ISession
from pyramid.paster import get_app
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import default_execution_policy
from pyramid_retry import RetryableException
from zope.interface.verify import verifyObject

from prism_wsgi import ConfigError, MemoryStore, SessionMiddleware, migrate
from tests.support.keys import SECRET
from tests.support.serving import Browse

View = Callable[[Any], Any]

pytest_plugins = ["tests.support.serving_fixtures"]


def make_app(
    configure: Callable[[Any], None] = lambda config: None, *, settings: dict[str, object], **views: View
) -> WSGIApplication:
    """Return an application with a route for each view, by its name."""
    with Configurator(settings=settings) as config:
        config.include("prism_wsgi.pyramid")
        configure(config)
        for name, view in views.items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)
        app: WSGIApplication = config.make_wsgi_app()
    return app


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def settings(store: MemoryStore) -> dict[str, object]:
    return {"prism.secret": SECRET, "prism.store": store}


def count(request: Any) -> Response:
    request.session["n"] = request.session.get("n", 0) + 1
    return Response(str(request.session["n"]))


def show(request: Any) -> Response:
    return Response(str(request.session.get("n", 0)))


def test_the_session_has_all_that_pyramid_asks_of_one(settings: dict[str, object], browse: Browse) -> None:
    def check(request: Any) -> Response:
        return Response(str(verifyObject(ISession, request.session)))

    assert browse(make_app(settings=settings, check=check)).get("/check").text == "True"


def test_settings_are_read_from_an_ini_file(tmp_path: Path, browse: Browse, sqlite_url: str) -> None:
    migrate.upgrade(sqlite_url)
    ini = tmp_path / "site.ini"
    ini.write_text(f"""
[app:main]
paste.app_factory = tests.frameworks.test_pyramid:app_of_ini
prism.secret =
    {SECRET}
    an older one, of 32 bytes or more, and random
prism.store = {sqlite_url}
prism.cookie_name = shop
prism.ttl = 7200
prism.secure = false
prism.samesite = strict
""")
    browser = browse(get_app(str(ini)))
    assert browser.get("/count").text == "1"
    assert browser.get("/count").text == "2"
    (cookie,) = browser.cookies
    assert cookie.name == "shop"
    assert not cookie.secure
    assert cookie.get_nonstandard_attr("SameSite") == "Strict"


def app_of_ini(global_conf: dict[str, str], **settings: object) -> WSGIApplication:
    return make_app(settings=settings, count=count)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("prism.cookie_nam", "prism.cookie_nam is not a setting; did you mean prism.cookie_name?"),
        ("prism.ttl", "ttl must be from 1 to"),
    ],
)
def test_a_wrong_setting_fails_when_the_application_is_configured(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_app(settings={"prism.secret": SECRET, name: "0"})


def test_settings_without_a_secret_are_refused_for_they_would_have_no_effect() -> None:
    with pytest.raises(ConfigError, match=r"prism\.secret is not set, and prism\.ttl has no effect without"):
        make_app(settings={"prism.ttl": "60"})


def test_without_settings_the_sessions_are_those_of_the_middleware_around(browse: Browse, store: MemoryStore) -> None:
    app = make_app(settings={"prism.environ_key": "shop.session"}, count=count)
    browser = browse(SessionMiddleware(app, store=store, secret=SECRET, environ_key="shop.session"))
    assert [browser.get("/count").text for _ in range(2)] == ["1", "2"]


def test_without_settings_and_middleware_the_first_use_says_what_is_missing() -> None:
    app = make_app(settings={}, count=count)
    with pytest.raises(ConfigError, match=r"Otherwise set prism\.secret, or put SessionMiddleware around"):
        Request.blank("/count").get_response(app)


def test_a_redirect_that_is_raised_keeps_changes(settings: dict[str, object], browse: Browse) -> None:
    def away(request: Any) -> Response:
        count(request)
        raise HTTPFound("/show")

    assert browse(make_app(settings=settings, away=away, show=show)).get("/away").text == "1"


@pytest.mark.parametrize(("status", "kept"), [(409, "1"), (500, "0")])
def test_changes_before_an_exception_view_are_kept_unless_it_answers_5xx(
    settings: dict[str, object], browse: Browse, status: int, kept: str
) -> None:
    def fail(request: Any) -> Response:
        count(request)
        raise LookupError

    def configure(config: Any) -> None:
        config.add_exception_view(lambda error, request: Response("no", status=status), context=LookupError)

    browser = browse(make_app(configure, settings=settings, fail=fail, show=show))
    assert browser.get("/fail").status == status
    assert browser.get("/show").text == kept


def test_changes_made_by_a_tween_after_the_view_are_saved(settings: dict[str, object], browse: Browse) -> None:
    def configure(config: Any) -> None:
        config.add_tween(f"{__name__}.counting_tween")

    browser = browse(make_app(configure, settings=settings, show=show))
    browser.get("/show")
    assert browser.get("/show").text == "1"


def counting_tween(handler: View, registry: object) -> View:
    def tween(request: Any) -> Any:
        response = handler(request)
        count(request)
        return response

    return tween


def test_changes_made_while_an_app_iter_is_sent_are_saved(settings: dict[str, object], browse: Browse) -> None:
    def stream(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            for _ in range(3):
                yield count(request).body

        request.session["began"] = True
        return Response(app_iter=body())

    browser = browse(make_app(settings=settings, stream=stream, show=show))
    assert browser.get("/stream").text == "123"
    assert browser.get("/show").text == "3"


def test_a_subrequest_has_the_session_it_is_given(settings: dict[str, object], browse: Browse) -> None:
    def outer(request: Any) -> Any:
        subrequest = Request.blank("/count")
        subrequest.session = request.session
        request.invoke_subrequest(subrequest)
        copied = request.copy()
        copied.path_info = "/count"
        return request.invoke_subrequest(copied, use_tweens=True)

    browser = browse(make_app(settings=settings, outer=outer, count=count))
    assert browser.get("/outer").text == "2"
    assert browser.get("/count").text == "3"


def test_a_subrequest_without_a_session_says_how_to_give_it_one(settings: dict[str, object], browse: Browse) -> None:
    def outer(request: Any) -> Response:
        with pytest.raises(ConfigError, match=r"subrequest\.session = request\.session"):
            request.invoke_subrequest(Request.blank("/count"))
        return Response("refused")

    assert browse(make_app(settings=settings, outer=outer, count=count)).get("/outer").text == "refused"


def test_an_attempt_that_is_retried_leaves_no_changes_behind(settings: dict[str, object], browse: Browse) -> None:
    def fragile(request: Any) -> Response:
        response = count(request)
        if request.environ["retry.attempt"] < 2:
            raise RetryableException
        return response

    def configure(config: Any) -> None:
        config.include("pyramid_retry")

    browser = browse(make_app(configure, settings={**settings, "retry.attempts": 3}, fragile=fragile))
    assert browser.get("/fragile").text == "1"
    assert browser.get("/fragile").text == "2"


def test_an_execution_policy_of_the_application_still_runs(settings: dict[str, object], browse: Browse) -> None:
    def policy(environ: Any, router: Any) -> Any:
        response = default_execution_policy(environ, router)
        response.headers["X-Policy"] = environ["prism.session_id"]
        return response

    def configure(config: Any) -> None:
        config.set_execution_policy(policy)

    page = browse(make_app(configure, settings=settings, count=count)).get("/count")
    assert len(page.headers["X-Policy"]) == 64


def test_two_applications_of_one_configuration_share_its_store(store: MemoryStore, browse: Browse) -> None:
    with Configurator(settings={"prism.secret": SECRET, "prism.store": store}) as config:
        config.include("prism_wsgi.pyramid")
        config.add_route("count", "/count")
        config.add_view(count, route_name="count")
        first, second = browse(config.make_wsgi_app()), browse(config.make_wsgi_app())
    assert first.get("/count").text == "1"
    (cookie,) = first.cookies
    assert second.get("/count", Cookie=f"{cookie.name}={cookie.value}").text == "2"


def authenticating(helper: Any) -> dict[str, View]:
    def remember(request: Any) -> Response:
        helper.remember(request, "ada")
        return Response("in")

    def forget(request: Any) -> Response:
        helper.forget(request)
        return Response("out")

    return {
        "in": remember,
        "out": forget,
        "token": lambda request: Response(request.session.get_csrf_token()),
        "who": lambda request: Response(f"{helper.authenticated_userid(request)} {request.session.user}"),
    }


class SessionPolicy:
    """A security policy around Pyramid's helper."""

    def __init__(self, helper: SessionAuthenticationHelper) -> None:
        self.helper = helper


AUTHENTICATIONS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a helper of the views": ("auth.", lambda config: None),
    "a security policy": (
        "shop.",
        lambda config: config.set_security_policy(SessionPolicy(SessionAuthenticationHelper("shop."))),
    ),
    "an authentication policy": (
        "old.",
        lambda config: (
            config.set_authorization_policy(ACLAuthorizationPolicy()),
            config.set_authentication_policy(SessionAuthenticationPolicy("old.")),
        ),
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("prefix", "configure"), AUTHENTICATIONS.values(), ids=AUTHENTICATIONS)
def test_pyramids_session_authentication_logs_in_and_out(
    settings: dict[str, object], store: MemoryStore, browse: Browse, prefix: str, configure: Callable[[Any], Any]
) -> None:
    app = make_app(configure, settings=settings, **authenticating(SessionAuthenticationHelper(prefix)))
    browser, attacker = browse(app), browse(app)
    token = attacker.get("/token").text
    for cookie in attacker.cookies:
        browser.cookies.set_cookie(cookie)
    browser.get("/in")
    assert (browser.get("/who").text, attacker.get("/who").text) == ("ada ada", "None None")
    assert browser.get("/token").text != token
    assert len(list(store.find(user="ada"))) == 1
    browser.get("/out")
    assert (browser.get("/who").text, list(store.find(user="ada"))) == ("None None", [])


def test_a_user_id_key_that_is_set_counts_more_than_pyramids(settings: dict[str, object], browse: Browse) -> None:
    helper = SessionAuthenticationHelper()
    browser = browse(make_app(settings={**settings, "prism.user_id_key": "me"}, **authenticating(helper)))
    browser.get("/in")
    assert browser.get("/who").text == "ada None"
