"""Each of Beaker's settings is understood, or refused with what to do instead."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from prism_wsgi import ConfigError, MemoryStore, RedisStore, SQLAlchemyStore, get_session
from prism_wsgi.compat.beaker import SessionMiddleware, filter_app
from prism_wsgi.compat.beaker.settings import read_beaker_settings
from tests.support.keys import SECRET
from tests.support.visitors import Browser

DAY = 24 * 3600


def options_of(**settings: Any) -> dict[str, Any]:
    return {**read_beaker_settings({f"session.{name}": value for name, value in settings.items()}, {}).options}


def refusal_of(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        options_of(**settings)
    return str(caught.value)


def count(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session = environ["beaker.session"]
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["n"]).encode()]


def shop_at(now: list[float], **settings: Any) -> SessionMiddleware:
    """Return the application with a clock that stands at `now`."""

    def clock() -> float:
        return now[0]

    return SessionMiddleware(count, secret=SECRET, store=MemoryStore(ttl=DAY, clock=clock), clock=clock, **settings)


def test_an_unchanged_configuration_makes_the_cookie_that_beaker_makes() -> None:
    assert options_of() == {
        "cookie_name": "beaker.session.id",
        "cookie_on": "write",
        "secure": False,
        "persistent": False,
        "ttl": 400 * DAY,
    }


def test_the_cookie_follows_beakers_names() -> None:
    options = options_of(
        key="shop", cookie_path="/shop", cookie_domain=".example.com", secure="true", httponly="no", samesite="Strict"
    )
    assert options["cookie_name"] == "shop"
    assert (options["path"], options["domain"]) == ("/shop", ".example.com")  # SessionMiddleware strips the dot
    assert (options["secure"], options["httponly"], options["samesite"]) == (True, False, "Strict")


@pytest.mark.parametrize(
    ("settings", "ttl", "max_lifetime", "persistent"),
    [
        ({"timeout": "600"}, 600, None, False),
        ({"timeout": 600, "cookie_expires": False}, 600, None, True),
        ({"timeout": "600", "cookie_expires": "3600"}, 600, 3600, True),
        ({"cookie_expires": timedelta(days=30)}, 30 * DAY, 30 * DAY, True),
        ({"timeout": 7200, "cookie_expires": 3600}, 3600, 3600, True),
        ({"cookie_expires": "false", "timeout": 10**9}, 400 * DAY, None, True),
    ],
)
def test_lifetimes_follow_timeout_and_cookie_expires(
    settings: dict[str, Any], ttl: int, max_lifetime: int | None, persistent: bool
) -> None:
    options = options_of(**settings)
    assert (options["ttl"], options.get("max_lifetime"), options["persistent"]) == (ttl, max_lifetime, persistent)


def test_a_database_and_redis_are_stores_of_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    assert isinstance(options_of(type="ext:database", url=url)["store"], SQLAlchemyStore)
    assert isinstance(options_of(type="ext:redis", url="redis://localhost/0")["store"], RedisStore)
    assert "store" not in options_of(type="memory")


def test_what_only_matters_to_beakers_files_is_ignored() -> None:
    assert options_of(type="memory", data_dir="/tmp/d", lock_dir="/tmp/l", log_file="x", crypto_type="default") == (
        options_of()
    )


def test_settings_of_ours_are_taken_too() -> None:
    assert options_of(max_size="1000")["max_size"] == 1000
    assert read_beaker_settings({}, {"max_size": 1000}).options["max_size"] == 1000


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"type": "cookie"}, "session.type = ext:database"),
        ({"type": "file", "data_dir": "data"}, "prism-wsgi db upgrade"),
        ({"type": "ext:memcached", "url": "localhost"}, "session.type = ext:database"),
        ({"type": "ext:database"}, "session.url must be set"),
        ({"url": "sqlite://"}, "session.type = ext:database"),
        ({"encrypt_key": "x"}, "session.encryption_key"),
        ({"data_serializer": "pickle"}, "leave the setting out"),
        ({"table_name": "sessions"}, "pass store="),
        ({"sa.pool_recycle": "10"}, "pass store="),
        ({"invalidate_corrupt": "false"}, "must be true"),
        ({"cookie_expires": datetime(2030, 1, 1, tzinfo=UTC)}, "not a date"),
        ({"timeout": "soon"}, "session.timeout"),
        ({"ttl": 60}, "session.timeout"),
        ({"auto": "ture"}, "session.auto"),
        ({"timeuot": 60}, "did you mean session.timeout?"),
        ({"cookie_expire": 60}, "did you mean session.cookie_expires?"),
        ({"sekret": "x"}, "did you mean session.secret?"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_do(settings: dict[str, Any], told: str) -> None:
    refusal = refusal_of(**settings)
    assert told in refusal
    assert refusal.startswith("session.")


def test_settings_of_other_middlewares_are_left_alone() -> None:
    config = {"session.key": "shop", "cache.type": "memory", "debug": "true"}
    assert read_beaker_settings(config, {"cache.lock_dir": "x"}).options["cookie_name"] == "shop"


def test_a_paste_section_gives_settings_with_and_without_prefix() -> None:
    app = filter_app(count, {"debug": "true"}, **{"session.key": "shop", "secret": SECRET})
    browser = Browser(app)
    assert [browser.page(), browser.page()] == ["1", "2"]
    assert "shop" in browser.cookies


@pytest.mark.parametrize("package", ["beaker", "prism_wsgi"])
def test_a_session_ends_a_timeout_after_its_last_use(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]
    if package == "beaker":
        middleware = pytest.importorskip("beaker.middleware")
        monkeypatch.setattr("beaker.session.time", SimpleNamespace(time=lambda: now[0], strftime=time.strftime))
        browser = Browser(middleware.SessionMiddleware(count, type="memory", timeout=600, secret=SECRET))
    else:
        browser = Browser(shop_at(now, timeout=600))
    browser.page()
    now[0] += 590
    assert browser.page() == "2"
    now[0] += 590
    assert browser.page() == "3"
    now[0] += 601
    assert browser.page() == "1"


def test_cookie_expires_ends_a_session_in_the_middle_of_use() -> None:
    now = [1_700_000_000.0]
    browser = Browser(shop_at(now, cookie_expires=1000))
    for number in ("1", "2", "3", "4"):
        assert browser.page() == number
        now[0] += 300
    assert browser.page() == "1"


def test_last_accessed_is_the_last_use_of_a_session_that_cookie_expires_ends_soon() -> None:
    now = [1_700_000_000.0]
    last_uses = []

    def visit(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        last_uses.append(environ["beaker.session"].last_accessed)
        return count(environ, start_response)

    shop = shop_at(now, cookie_expires=1000)
    shop.wrap_app = visit
    browser = Browser(shop)
    for _ in range(3):
        browser.page()
        now[0] += 400
    assert last_uses == [None, 1_700_000_000.0, 1_700_000_400.0]


def test_a_lock_makes_counting_exact(empty_sqlite_url: str) -> None:

    def count_locked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = environ["beaker.session"]
        session.lock()
        try:
            session.load()
            session["n"] = session.get("n", 0) + 1
            session.save()
        finally:
            session.unlock()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(session["n"]).encode()]

    browser = Browser(SessionMiddleware(count_locked, type="ext:database", url=empty_sqlite_url, secret=SECRET))
    assert [browser.page() for _ in range(3)] == ["1", "2", "3"]


def test_the_session_is_also_ours_under_its_own_name() -> None:
    def login(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ).login("ada")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    def who(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(get_session(environ).user).encode()]

    app = SessionMiddleware(login, secret=SECRET)
    browser = Browser(app)
    browser.page()
    app.wrap_app = who
    assert browser.page() == "ada"
