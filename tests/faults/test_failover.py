"""A primary that dies and a standby that takes its place, under the same URL and with nothing restarted."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest
from sqlalchemy import make_url

from prism_wsgi import SessionMiddleware, SQLAlchemyStore, migrate
from prism_wsgi.stores.sql import store as sql
from prism_wsgi.stores.sql.failures import Failure, classify
from tests.support.keys import SECRET
from tests.support.own_pairs import Pair, own_mariadb_pair, own_postgresql_pair
from tests.support.proxy import Proxy
from tests.support.visitors import Browser, application, put
from tests.support.waiting import eventually

REFUSALS = {"postgresql": "25006", "mysql": 1290}
"""How a standby refuses to write."""


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, Failure]]:
    """What the servers answered with, and what the store made of it."""
    failures: list[tuple[object, Failure]] = []

    def noted(dialect: object, error: Exception, connection: object) -> Failure:
        failure = classify(dialect, error, connection)  # type: ignore[arg-type]
        failures.append((error.sqlstate if isinstance(error, psycopg.Error) else error.args[0], failure))
        return failure

    monkeypatch.setattr(sql, "classify", noted)
    return failures


@pytest.fixture(params=[own_postgresql_pair, own_mariadb_pair], ids=["postgresql", "mariadb"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    start: Callable[[], AbstractContextManager[Pair]] = request.param
    with start() as pair:
        migrate.upgrade(pair.primary.url)
        yield pair


def address_of(url: str) -> tuple[str, int]:
    parsed = make_url(url)
    return parsed.host or "", parsed.port or 0


def logged_in(store: SQLAlchemyStore) -> Browser:
    browser = Browser(SessionMiddleware(application, store=store, secret=SECRET, secure=False))
    browser.do(lambda session: session.login("alice"))
    browser.do(put("kept", 1))
    return browser


def recovers(browser: Browser, cookies: dict[str, str]) -> None:
    """The session is there again, and so is its user, who never got another cookie."""

    def is_back() -> bool:
        visit = browser.visit(put("later", 1))
        assert visit.set_cookies == []
        return visit.status == "200 OK"

    eventually(is_back, "the session does not come back")
    assert browser.do(lambda session: (session.user, dict(session))) == ("alice", {"kept": 1, "later": 1})
    assert browser.cookies == cookies


def test_promoted_standby_takes_over_behind_the_address_of_its_primary(
    pair: Pair, failures: list[tuple[object, Failure]]
) -> None:
    with Proxy(address_of(pair.primary.url)) as proxy:
        host, port = "127.0.0.1", proxy.port
        store = SQLAlchemyStore(make_url(pair.primary.url).set(host=host, port=port), timeout=2)
        browser = logged_in(store)
        cookies = dict(browser.cookies)
        pair.primary.kill()
        proxy.lead_to(address_of(pair.standby.url))
        # The standby reads already, and refuses to write.
        assert browser.read() == {"kept": 1}
        refused = browser.visit(put("late", 1))
        assert refused.status.startswith("503")
        assert refused.set_cookies == []
        assert (REFUSALS[store.engine.dialect.name], Failure.READ_ONLY) in failures
        pair.promote()
        recovers(browser, cookies)
        store.close()


@pytest.mark.parametrize("pair", [own_postgresql_pair], ids=["postgresql"], indirect=True)
def test_promoted_standby_takes_over_under_a_url_of_both_hosts(pair: Pair) -> None:
    hosts = [":".join(map(str, address_of(server.url))) for server in (pair.standby, pair.primary)]
    query = {"host": hosts, "target_session_attrs": "read-write"}
    store = SQLAlchemyStore(make_url(pair.primary.url).set(host=None, port=None, query=query), timeout=2)
    browser = logged_in(store)
    cookies = dict(browser.cookies)
    pair.primary.kill()
    refused = browser.visit(put("late", 1))
    assert refused.status.startswith("503")
    assert refused.set_cookies == []
    pair.promote()
    recovers(browser, cookies)
    store.close()
