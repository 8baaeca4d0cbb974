"""Settings written as text."""

import inspect
import posixpath
from typing import get_type_hints

import pytest

from prism_wsgi import ConfigError, MemoryStore, RedisStore, SessionMiddleware, SQLAlchemyStore
from prism_wsgi.clock import system_clock
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.setting_types import MiddlewareOptions
from prism_wsgi.text_settings import READERS, read_settings

named_store = MemoryStore()


class ExampleSerializer(TypedSerializer):
    pass


def test_every_setting_of_the_middleware_is_known_with_its_type() -> None:
    parameters = inspect.signature(SessionMiddleware).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    types = get_type_hints(SessionMiddleware.__init__)
    assert get_type_hints(MiddlewareOptions) == {name: types[name] for name in names}
    assert READERS.keys() == names


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("secret", "one of 32 bytes or more, and random", ["one of 32 bytes or more, and random"]),
        ("secret", "\n  new secret\n  old secret\n", ["new secret", "old secret"]),
        ("cookie_name", "__Host-shop", "__Host-shop"),
        ("ttl", "7200", 7200),
        ("max_lifetime", " 86400 ", 86400),
        ("touch_interval", "0.5", 0.5),
        ("path", "/shop", "/shop"),
        ("domain", "shop.example", "shop.example"),
        ("secure", "false", False),
        ("httponly", "Yes", True),
        ("samesite", "strict", "strict"),
        ("partitioned", "on", True),
        ("persistent", "0", False),
        ("cookie_on", "write", "write"),
        ("max_size", "1000000", 1000000),
        ("record_client", "readable", "readable"),
        ("record_client", "true", True),
        ("client_address", "posixpath:basename", posixpath.basename),
        ("user_id_key", "user_id", "user_id"),
        ("max_sessions_per_user", "3", 3),
        ("cookie_fallbacks", "\nold_session\n__Host-older\n", ["old_session", "__Host-older"]),
        ("cookie_fallbacks", "posixpath:basename", [posixpath.basename]),
        ("keep_fallbacks", "true", True),
        ("observers", "posixpath:basename\nposixpath:dirname", [posixpath.basename, posixpath.dirname]),
        ("on_store_error", "raise", "raise"),
        ("save_on_error", "1", True),
        ("encryption_key", "new key\nold key", ["new key", "old key"]),
        ("encryption", "cookie", "cookie"),
        ("read_unencrypted", "true", True),
        ("environ_key", "shop.session", "shop.session"),
        ("store", f"{__name__}:named_store", named_store),
    ],
)
def test_a_text_is_read_as_the_type_of_its_setting(name: str, text: str, value: object) -> None:
    assert read_settings({name: text}) == {name: value}
    assert type(dict(read_settings({name: text}))[name]) is type(value)


def test_a_database_url_is_a_store_in_that_database(sqlite_url: str) -> None:
    store = read_settings({"store": sqlite_url})["store"]
    assert isinstance(store, SQLAlchemyStore)
    assert str(store.engine.url) == sqlite_url


@pytest.mark.parametrize(
    "url", ["redis://localhost:6379/0", "rediss://localhost", "valkey://localhost", "unix:///redis"]
)
def test_a_redis_url_in_an_ini_file_is_a_store(url: str) -> None:
    assert isinstance(read_settings({"store": url})["store"], RedisStore)


def test_a_function_is_named() -> None:
    assert read_settings({"clock": "prism_wsgi.clock:system_clock"}) == {"clock": system_clock}


def test_of_a_named_class_an_instance_is_made() -> None:
    assert isinstance(
        read_settings({"serializer": f"{__name__}:ExampleSerializer"})["serializer"],
        ExampleSerializer,
    )
    assert isinstance(read_settings({"store": "prism_wsgi:MemoryStore"})["store"], MemoryStore)


def test_values_that_are_no_text_are_taken_as_they_are() -> None:
    assert read_settings({"store": named_store, "ttl": 60}) == {"store": named_store, "ttl": 60}


def test_only_names_with_the_prefix_are_read() -> None:
    assert read_settings({"prism.ttl": "60", "sqlalchemy.url": "sqlite://"}, prefix="prism.") == {"ttl": 60}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("prism.secrets", "prism.secret"),
        ("prism.cookie.name", "prism.cookie_name"),
        ("prism.same_site", "prism.samesite"),
        ("prism.xyz", "prism."),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest_that_is(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is not a setting; did you mean {nearest}"):
        read_settings({name: "1"}, prefix="prism.")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("prism.secure", "ture", "prism.secure must be true or false, not 'ture'"),
        ("prism.secure", "", "prism.secure must be true or false, not ''"),
        ("prism.ttl", "an hour", "prism.ttl must be a number, not 'an hour'"),
        ("prism.secret", " \n ", "prism.secret must not be empty"),
        (
            "prism.store",
            "sqlite",
            "prism.store must be a URL of a database or of Redis, the word memory, or the name",
        ),
        ("prism.store", "no_such_module:store", "prism.store must name an object as package.module:name"),
        (
            "prism.store",
            f"{__name__}:no_such_name",
            "prism.store must name an object as package.module:name",
        ),
        ("prism.serializer", "json", "prism.serializer must name an object as package.module:name"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_by_name(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_settings({name: text}, prefix="prism.")
