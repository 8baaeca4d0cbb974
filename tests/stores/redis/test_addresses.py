"""What the URL of a RedisStore says about its servers."""

import pytest

from prism_wsgi import ConfigError, RedisStore
from prism_wsgi.stores.redis.addresses import Kind, target_of


def test_sentinels_and_the_service_that_they_watch_are_read() -> None:
    target = target_of("redis+sentinel://shop:p%40s@a,b:26380,[::1]:26381/my%20shop/3?sentinel_password=q%26", 2)
    assert target.kind is Kind.SENTINEL
    assert target.addresses == (("a", 26379), ("b", 26380), ("::1", 26381))
    assert target.service == "my shop"
    assert target.sentinel_dial is not None
    settings, of_sentinels = target.dial.settings, target.sentinel_dial.settings
    assert (settings["username"], settings["password"], settings["db"]) == ("shop", "p@s", 3)
    assert (of_sentinels.get("username"), of_sentinels["password"]) == (None, "q&")
    assert "db" not in of_sentinels


def test_nodes_of_a_cluster_are_read() -> None:
    target = target_of("redis+cluster://shop:secret@a,b:7001?client_name=web", 2)
    assert target.kind is Kind.CLUSTER
    assert target.addresses == (("a", 6379), ("b", 7001))
    assert target.dial.settings["client_name"] == "web"
    assert "secret" not in target.place


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_second_s_means_tls_with_the_servers_and_with_the_sentinels(scheme: str, kind: str) -> None:
    path = "shop" if kind == "sentinel" else ""
    plain = target_of(f"{scheme}+{kind}://a/{path}", 2)
    secure = target_of(f"{scheme}s+{kind}://a/{path}?ssl_cert_reqs=none", 2)
    for dial in (secure.dial, secure.sentinel_dial):
        assert dial is None or dial.settings["ssl_cert_reqs"] == "none"
    assert "SSL" in str(secure.dial._connection_class)
    assert "SSL" not in str(plain.dial._connection_class)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://a,b", "must name the service that the sentinels watch"),
        ("redis+sentinel://a:x/shop", r"redis\+sentinel://host,host2/service"),
        ("redis+sentinel://a:99999/shop", "url_or_client must be a URL"),
        ("redis+sentinel://a/shop/main", "url_or_client must be a URL"),
        ("redis+sentinel:///shop", "url_or_client must be a URL"),
        ("redis+cluster://a,,b", "url_or_client must be a URL"),
        ("redis+cluster://a/shop", r"redis\+cluster://host"),
        ("redis+cluster://shop:hun/ter2@a", "percent-encode"),
        ("redis+other://shop:ter2@a", "url_or_client must be a URL"),
        ("unix+sentinel://a/shop", "url_or_client must be a URL"),
        ("redis+cluster://a?colour=red", "url_or_client must be a URL"),
        ("redis://shop:ter2@a?colour=red", "url_or_client must be a URL"),
    ],
)
def test_url_that_cannot_work_is_refused_at_once_without_the_password(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        RedisStore(url)
    assert "ter2" not in str(refused.value)
    assert refused.value.__cause__ is None
