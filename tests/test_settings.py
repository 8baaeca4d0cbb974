"""Every setting: its default, what it takes, and the sentence when it is wrong."""

import inspect
import warnings
from datetime import timedelta
from typing import Any

import pytest

from prism_wsgi import ConfigError, InsecureSecretWarning, MemoryStore, SameSite, Session, SessionMiddleware
from prism_wsgi.settings import MIN_SECRET_BYTES
from tests.support.browsing import Clock, Site, ThreeVerbStore, plain_page, read, write
from tests.support.keys import OTHER_SECRET, SECRET

DEFAULTS = {
    "store": None,
    "secret": None,
    "cookie_name": "prism_session",
    "ttl": 3600,
    "max_lifetime": None,
    "touch_interval": None,
    "path": "/",
    "domain": None,
    "secure": True,
    "httponly": True,
    "samesite": "Lax",
    "partitioned": False,
    "persistent": True,
    "cookie_on": "request",
    "max_size": 65536,
    "on_store_error": "503",
    "save_on_error": False,
    "serializer": None,
    "encryption_key": None,
    "encryption": "server",
    "read_unencrypted": False,
    "record_client": False,
    "client_address": None,
    "is_passive": None,
    "user_id_key": None,
    "max_sessions_per_user": None,
    "cookie_fallbacks": (),
    "keep_fallbacks": False,
    "observers": (),
    "environ_key": "prism.session",
}


def test_the_settings_and_their_defaults_are_the_documented_ones() -> None:
    parameters = dict(inspect.signature(SessionMiddleware).parameters)
    parameters.pop("app")
    parameters.pop("clock")
    assert {name: parameter.default for name, parameter in parameters.items()} == DEFAULTS
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_setting_is_described() -> None:
    text = SessionMiddleware.__doc__ or ""
    assert [name for name in DEFAULTS if f"`{name}`" not in text] == []


def test_a_setting_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="coockie_name"):
        SessionMiddleware(plain_page, secret=SECRET, coockie_name="sid")  # type: ignore[call-arg]


VALID: list[dict[str, Any]] = [
    {"store": MemoryStore()},
    {"secret": SECRET},
    {"secret": SECRET.encode()},
    {"secret": [SECRET, OTHER_SECRET.encode()]},
    {"secret": (SECRET,)},
    {"cookie_name": "__Host-sid"},
    {"cookie_name": "__Secure-sid", "domain": "example.com"},
    {"cookie_name": "!#$%&'*+.^_`|~-09azAZ"},
    {"ttl": 1},
    {"ttl": 3600.0},
    {"ttl": timedelta(days=400)},
    {"max_lifetime": 60},
    {"max_lifetime": timedelta(days=1)},
    {"touch_interval": 0},
    {"touch_interval": 0.5},
    {"touch_interval": timedelta(seconds=30)},
    {"path": "/shop"},
    {"domain": "example.com"},
    {"secure": False},
    {"httponly": False},
    {"samesite": "strict"},
    {"samesite": "NONE"},
    {"samesite": SameSite.STRICT},
    {"partitioned": True},
    {"persistent": False},
    {"cookie_on": "write"},
    {"max_size": 1},
    {"on_store_error": "raise"},
    {"save_on_error": True},
    {"environ_key": "my.session"},
    {"observers": []},
]


@pytest.mark.parametrize("settings", VALID, ids=lambda settings: str(settings).partition(" object at")[0])
def test_each_setting_takes_what_its_documentation_says(settings: dict[str, Any]) -> None:
    SessionMiddleware(plain_page, **{"secret": SECRET, **settings})


class Watcher:
    def on_event(self, event: object) -> None: ...

    def on_store_call(self, call: object) -> None: ...


class OnlyLoad:
    def load(self, session_id: str) -> None: ...


INFINITE = [float("inf"), float("nan"), -float("inf")]
INVALID: list[tuple[str, list[Any]]] = [
    ("store", [OnlyLoad(), MemoryStore, 5, {}]),
    ("secret", ["", b"", "  ", [], (), ["", SECRET], [SECRET, ""], 5, [5], {}, object(), "\ud800" * 40]),
    ("ttl", [0, -1, 1.5, "60", True, None, 400 * 24 * 3600 + 1, timedelta(0), timedelta(seconds=0.5), *INFINITE]),
    ("max_lifetime", [0, 1.5, "1", True, timedelta(days=-1), 10**12, *INFINITE]),
    ("touch_interval", [-1, 3600, 10_000, "1", True, timedelta(hours=2), *INFINITE]),
    ("path", ["shop", "", None, 5, "/a;b", "/\n", "/é", "/" * 1025]),
    (
        "domain",
        ["", "..example.com", "example.com:80", "https://example.com", "é.example", 5, "a b", "-a", "a" * 1025],
    ),
    ("secure", [1, "yes", None]),
    ("httponly", [0, "no", None]),
    ("samesite", ["", "sometimes", None, True, 5]),
    ("partitioned", [1, "yes", None]),
    ("persistent", [1, "yes", None]),
    ("cookie_on", ["", "never", None, True, []]),
    ("max_size", [0, -1, 1.5, "1", True, None]),
    ("on_store_error", ["", 503, None, "ignore"]),
    ("save_on_error", [1, "yes", None]),
    ("serializer", [5, "json", object()]),
    ("clock", [None, 5, 1700000000.0]),
    ("observers", [None, 5, "trail", object(), [5], [object()], [Watcher]]),
    ("environ_key", ["", "session", None, 5, "prism.\n"]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in INVALID
        for number, value in enumerate(values)
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        SessionMiddleware(plain_page, **{"secret": SECRET, name: value})


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "é", "a\n", 5, None, b"sid", "n" * 4096])
def test_a_cookie_name_that_no_browser_takes_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"[Cc]ookie"):
        SessionMiddleware(plain_page, secret=SECRET, cookie_name=name)


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


def test_nothing_is_asked_of_the_store_when_the_middleware_is_made() -> None:
    store = ThreeVerbStore(MemoryStore())
    SessionMiddleware(plain_page, store=store, secret=SECRET)
    assert store.calls == []


# Secrets


def made_with(secret: Any) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SessionMiddleware(plain_page, secret=secret)
    return caught


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (None, "not set"),
        ("short", "fewer than 32"),
        ("x1y2z3" * 5, "fewer than 32"),
        (b"b" * 31, "fewer than 32"),
        ("a" * 64, "repeats"),
        ("abc" * 30, "repeats"),
        ("change-me", "placeholder"),
        ("CHANGE_ME_please_0123456789abcdefghijk", "placeholder"),
        ("changeme-0123456789-abcdefghijklmnop", "placeholder"),
        ("your-secret-key-here-0123456789-abcdef", "placeholder"),
        ("replace this with a long random string!", "placeholder"),
        ([SECRET, "short"], "fewer than 32"),
    ],
)
def test_a_weak_secret_works_with_a_warning_that_says_what_is_weak(secret: Any, said: str) -> None:
    (caught,) = made_with(secret)
    assert caught.category is InsecureSecretWarning
    assert said in str(caught.message)
    assert "prism-wsgi secret" in str(caught.message)
    assert caught.filename.endswith("test_settings.py")


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), [SECRET, OTHER_SECRET], SECRET[:MIN_SECRET_BYTES]])
def test_a_good_secret_is_taken_in_silence(secret: Any) -> None:
    assert made_with(secret) == []


def test_without_a_secret_no_two_processes_agree() -> None:
    clock = Clock()
    with pytest.warns(InsecureSecretWarning):
        first = Site(clock=clock, secret=None)
    with pytest.warns(InsecureSecretWarning):
        second = Site(first.store, clock, secret=None)
    browser = first.browser()
    browser.visit(write(n=1))
    assert browser.visit(read("n")).result == 1
    browser.site = second
    assert browser.visit(read("n")).result is None


def test_a_short_secret_still_signs() -> None:
    with pytest.warns(InsecureSecretWarning):
        browser = Site(secret="change-me").browser()
    browser.visit(write(n=1))
    assert browser.visit(read("n")).result == 1


# What the rest of them do


def test_the_session_is_under_the_key_of_ones_choice() -> None:
    site = Site(environ_key="my.session")
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> Any:
        seen.update(environ)
        return plain_page(environ, start_response)

    site.browser().request(app)
    assert isinstance(seen["my.session"], Session)
    assert seen["my.session_id"] == seen["my.session"].id
    assert "prism.session" not in seen


def test_the_default_store_keeps_a_session_as_long_as_it_asks() -> None:
    clock = Clock()
    site = Site(clock=clock)
    site.middleware = SessionMiddleware(site.middleware.app, secret=SECRET, clock=clock)
    browser = site.browser()

    def remember(session: Session) -> None:
        session.ttl = timedelta(days=30)
        session["n"] = 1

    browser.visit(remember)
    assert browser.visit(read("n")).result == 1
    assert int(browser.visit(lambda session: session.ttl).result) == 30 * 24 * 3600


def test_the_middleware_prints_as_what_it_is() -> None:
    assert repr(SessionMiddleware(plain_page, secret=SECRET)).startswith("<SessionMiddleware prism_session around")
