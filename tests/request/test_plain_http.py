"""A Secure cookie that is sent over plain HTTP, which browsers drop: said once."""

import logging
from typing import Any

import pytest

from tests.support.browsing import Site, write


def visit(site: Site, **environ: Any) -> None:
    site.browser().visit(write(n=1), **{"wsgi.url_scheme": "http", **environ})


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno == logging.WARNING and "plain HTTP" in record.getMessage() for record in caplog.records)


def test_a_secure_cookie_over_plain_http_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    for _ in range(3):
        visit(site, HTTP_HOST="shop.example")
    assert warnings(caplog) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_HOST": "localhost:8000"},
        {"HTTP_HOST": "127.0.0.2"},
        {"HTTP_HOST": "[::1]:8000"},
        {"HTTP_HOST": "shop.example", "HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_HOST": "shop.example", "HTTP_FORWARDED": "for=192.0.2.7;proto=https"},
        {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https"},
    ],
    ids=str,
)
def test_a_cookie_that_browsers_keep_is_not_warned_of(
    environ: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    visit(Site(), **environ)
    assert warnings(caplog) == 0


def test_a_cookie_that_is_not_secure_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    visit(Site(secure=False), HTTP_HOST="shop.example")
    assert warnings(caplog) == 0
