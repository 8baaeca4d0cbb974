"""Authlib's Flask client: what it keeps in the session between a redirect to a provider and the way back.

Authlib publishes its tests in no source distribution, so what they assert of sessions is asserted here.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

import flask
import pytest
from authlib.integrations.base_client import FrameworkIntegration
from authlib.integrations.base_client.errors import MismatchingStateError, OAuthError
from authlib.integrations.flask_client import OAuth
from authlib.oauth2.rfc6749 import OAuth2Token
from authlib.oidc.core import UserInfo
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from prism_wsgi import MemoryStore
from prism_wsgi.flask import PrismSessions, session
from tests.support.keys import SECRET
from tests.support.serving import serving

pytestmark = pytest.mark.whole  # the site asks the provider over a socket

TOKEN = {"access_token": "opaque", "token_type": "Bearer", "expires_in": 3600}


class Provider:
    """A provider that gives everybody a token, and remembers what it was asked with."""

    def __init__(self) -> None:
        self.forms: list[dict[str, list[str]]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        self.forms.append(parse_qs(environ["wsgi.input"].read(length).decode()))
        if environ["PATH_INFO"] == "/token":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(TOKEN).encode()]
        start_response("200 OK", [("Content-Type", "application/x-www-form-urlencoded")])
        return [urlencode({"oauth_token": "temporary", "oauth_token_secret": "hidden"}).encode()]


class Cache:
    """The least that Authlib asks of a cache."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def set(self, key: str, value: Any, timeout: int) -> None:
        self.values[key] = value

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class Site:
    """A site whose visitors log in at the provider."""

    def __init__(self, address: str, cache: Cache | None = None) -> None:
        self.store = MemoryStore()
        self.app = Flask(__name__)
        self.app.config.update(SECRET_KEY=SECRET, PROPAGATE_EXCEPTIONS=True)
        PrismSessions(self.app, store=self.store)
        oauth = OAuth(self.app, cache=cache)
        known = {"client_id": "shop", "client_secret": "known to both", "authorize_url": f"{address}/authorize"}
        two = {**known, "access_token_url": f"{address}/token", "client_kwargs": {"code_challenge_method": "S256"}}
        one = {**known, "access_token_url": f"{address}/access", "request_token_url": f"{address}/request"}
        self.add_pages_of("two", oauth.register("two", **two))
        self.add_pages_of("one", oauth.register("one", **one))
        self.add_page("/keys", lambda: sorted(session))

    def add_pages_of(self, name: str, client: Any) -> None:
        self.add_page(f"/{name}/login", lambda: client.authorize_redirect("https://shop.test/back"))
        self.add_page(f"/{name}/back", lambda: dict(client.authorize_access_token()))

    def add_page(self, path: str, view: Callable[[], Any]) -> None:
        self.app.add_url_rule(path, path, view)

    def browser(self) -> FlaskClient:
        return self.app.test_client()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "true")
    return Provider()


@pytest.fixture
def address(provider: Provider) -> Iterator[str]:
    with serving(provider) as address:
        yield address


@pytest.fixture
def site(address: str) -> Site:
    return Site(address)


def state_of(redirect: TestResponse) -> str:
    (state,) = parse_qs(urlsplit(redirect.location).query)["state"]
    return state


def come_back(browser: FlaskClient, state: str) -> TestResponse:
    return browser.get(f"/two/back?{urlencode({'code': 'once', 'state': state})}")


def keys(browser: FlaskClient) -> Any:
    return browser.get("/keys").json


def test_a_visitor_who_comes_back_from_the_provider_has_a_token_and_no_state_left(site: Site) -> None:
    browser = site.browser()
    state = state_of(browser.get("/two/login"))
    assert keys(browser) == [f"_state_two_{state}"]
    assert come_back(browser, state).json["access_token"] == "opaque"  # type: ignore[index]
    assert keys(browser) == []


def test_the_secret_of_a_code_challenge_is_kept_until_the_visitor_comes_back(site: Site, provider: Provider) -> None:
    browser = site.browser()
    redirect = browser.get("/two/login")
    assert "code_challenge" in parse_qs(urlsplit(redirect.location).query)
    come_back(browser, state_of(redirect))
    assert len(provider.forms[0]["code_verifier"][0]) == 48
    assert provider.forms[0]["redirect_uri"] == ["https://shop.test/back"]


def test_a_state_is_good_once(site: Site) -> None:
    browser = site.browser()
    state = state_of(browser.get("/two/login"))
    come_back(browser, state)
    with pytest.raises(MismatchingStateError):
        come_back(browser, state)


def test_a_state_is_good_for_its_visitor_only(site: Site) -> None:
    browser, other = site.browser(), site.browser()
    state = state_of(browser.get("/two/login"))
    with pytest.raises(MismatchingStateError):
        come_back(other, state)
    assert come_back(browser, state).status_code == 200


def test_two_logins_in_two_tabs_both_come_back(site: Site) -> None:
    browser = site.browser()
    first, second = state_of(browser.get("/two/login")), state_of(browser.get("/two/login"))
    assert come_back(browser, second).status_code == 200
    assert come_back(browser, first).status_code == 200
    assert keys(browser) == []


def test_a_state_that_has_lapsed_is_removed_when_another_comes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = site.browser()
    with monkeypatch.context() as patch:
        patch.setattr(FrameworkIntegration, "expires_in", -1)
        lapsed = state_of(browser.get("/two/login"))
    state = state_of(browser.get("/two/login"))
    assert f"_state_two_{lapsed}" in keys(browser)
    come_back(browser, state)
    assert keys(browser) == []


def test_with_a_cache_the_session_names_the_state_and_the_cache_keeps_it(address: str) -> None:
    cache = Cache()
    site = Site(address, cache)
    browser = site.browser()
    state = state_of(browser.get("/two/login"))
    with browser.session_transaction() as opened:
        assert list(opened[f"_state_two_{state}"]) == ["exp"]
    assert list(cache.values) == [f"_state_two_{state}"]
    assert come_back(browser, state).status_code == 200
    assert (cache.values, keys(browser)) == ({}, [])


def test_a_visitor_who_refuses_keeps_their_other_data(site: Site) -> None:
    site.add_page("/choose", lambda: flask.session.update(basket=["milk"]) or "")
    browser = site.browser()
    browser.get("/choose")
    with pytest.raises(OAuthError, match="access_denied"):
        browser.get("/two/back?error=access_denied")
    assert keys(browser) == ["basket"]


def test_the_temporary_token_of_oauth_1_is_kept_until_the_visitor_comes_back(site: Site) -> None:
    browser = site.browser()
    assert "oauth_token=temporary" in browser.get("/one/login").location
    assert keys(browser) == ["_state_one_temporary"]
    back = browser.get("/one/back?oauth_token=temporary&oauth_verifier=proof")
    assert back.json["oauth_token_secret"] == "hidden"  # type: ignore[index]
    assert keys(browser) == []


def test_a_temporary_token_of_oauth_1_is_good_for_its_visitor_only(site: Site) -> None:
    site.browser().get("/one/login")
    with pytest.raises(OAuthError, match="request_token"):
        site.browser().get("/one/back?oauth_token=temporary&oauth_verifier=proof")


def test_tokens_and_what_is_known_of_a_user_come_back_as_dicts(site: Site) -> None:
    user = {"sub": "42", "name": "Ada", "address": {"locality": "London"}}

    def keep() -> str:
        flask.session.update(token=OAuth2Token.from_dict(TOKEN), user=UserInfo(user))
        return ""

    site.add_page("/keep", keep)
    site.add_page("/kept", lambda: [type(session["token"]).__name__, session["token"], session["user"]])
    browser = site.browser()
    browser.get("/keep")
    kept: Any = browser.get("/kept").json
    kind, token, known = kept
    assert (kind, known) == ("dict", user)
    assert token.items() >= TOKEN.items()
