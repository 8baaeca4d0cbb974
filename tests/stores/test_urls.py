"""The store that a URL names, and its settings in the URL's query."""

from pathlib import Path

import pytest

from prism_wsgi import (
    ConfigError,
    MemoryStore,
    RedisStore,
    SessionMiddleware,
    SQLAlchemyStore,
    StoredSession,
    migrate,
)
from prism_wsgi.stores.url_settings import split_settings, takes_settings_in_url
from prism_wsgi.stores.urls import is_redis, open_store

ROW = StoredSession("a" * 64, b"x", 0, 0, 2**42)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory", MemoryStore),
        ("memory://?max_sessions=5", MemoryStore),
        ("sqlite:///sessions.db", SQLAlchemyStore),
        ("postgresql://user:password@host/database", SQLAlchemyStore),
        ("redis://host/0", RedisStore),
        ("rediss://host/0", RedisStore),
        ("valkey://host/0", RedisStore),
        ("unix:///run/redis.sock", RedisStore),
        ("redis+sentinel://host,host2/service", RedisStore),
        ("redis+cluster://host", RedisStore),
        ("valkeys+cluster://host", RedisStore),
    ],
)
def test_a_url_names_a_store(url: str, kind: type) -> None:
    assert type(open_store(url)) is kind


@pytest.mark.parametrize("url", ["redis+sentinel://a,b/service", "redis+cluster://a", "REDIS://a"])
def test_every_kind_of_redis_is_known_by_its_scheme(url: str) -> None:
    assert is_redis(url)


def test_a_setting_in_the_url_is_the_stores(tmp_path: Path) -> None:
    store = SQLAlchemyStore(f"sqlite:///{tmp_path}/sessions.db?table_name=web&timeout=0.5&sqlite_synchronous=FULL")
    assert store.table.name == "web"
    assert store.engine.url.query == {}


def test_a_setting_in_the_url_is_one_of_redis_too() -> None:
    assert "5.0" not in repr(RedisStore("redis://host/0?prefix=shop:&timeout=2"))
    with pytest.raises(ConfigError, match="timeout must be a positive number"):
        RedisStore("redis://host/0?timeout=-1")


def test_a_setting_given_by_name_counts_more_than_the_urls(tmp_path: Path) -> None:
    assert SQLAlchemyStore(f"sqlite:///{tmp_path}/a.db?table_name=web", table_name="shop").table.name == "shop"


def test_migrations_go_to_the_table_that_the_url_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db?table_name=web&timeout=2"
    migrate.upgrade(url)
    store = open_store(url)
    store.save(ROW)
    assert SQLAlchemyStore(f"sqlite:///{tmp_path}/sessions.db", table_name="web").load(ROW.id) is not None


def test_what_is_no_setting_stays_in_the_url_as_it_is() -> None:
    url = "postgresql://u:p%40@h/db?options=-csearch_path%3Dx&table_name=web&sslmode=require"
    rest, own = split_settings(url, SQLAlchemyStore.__init__)
    assert rest == "postgresql://u:p%40@h/db?options=-csearch_path%3Dx&sslmode=require"
    assert own == {"table_name": "web"}


def test_a_question_mark_in_a_password_begins_no_query() -> None:
    assert split_settings("postgresql://u:p?timeout@h/db", SQLAlchemyStore.__init__)[0].endswith("p?timeout@h/db")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("timeout=soon", "timeout in the URL must be a number, not 'soon'"),
        ("timeout=0", "timeout must be a positive number of seconds"),
        ("table_name=a-b", "table_name must be a plain name"),
        ("timeout=1&timeout=2", "timeout may stand only once in the URL"),
    ],
)
def test_a_setting_in_the_url_is_checked_and_the_password_not_shown(query: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        SQLAlchemyStore(f"postgresql://user:hunter2@127.0.0.1:1/db?{query}")
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


class Store:
    @takes_settings_in_url
    def __init__(self, url: str, *, flag: bool = False, count: int | None = None, name: str = "") -> None:
        self.given = (url, flag, count, name)


def test_a_setting_is_read_as_its_type_says() -> None:
    assert Store("x://h?flag=true&count=3&name=a%20b+c&other=1").given == ("x://h?other=1", True, 3, "a b c")
    assert Store("x://h").given == ("x://h", False, None, "")


def test_sessions_in_memory_live_as_long_as_they_are_meant_to() -> None:
    store = open_store("memory")
    SessionMiddleware(lambda environ, start_response: [], store=store, secret="x" * 16 + "0123456789abcdefghij")
    now = 10**12
    store = open_store("memory", clock=lambda: now / 1000)
    store.save(StoredSession("a" * 64, b"x", 0, now, now + 30 * 24 * 3600 * 1000))
    now += 29 * 24 * 3600 * 1000
    assert store.load("a" * 64) is not None
