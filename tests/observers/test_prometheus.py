"""The observer for Prometheus, with prometheus_client itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from prism_wsgi import MemoryStore, Session, StoreUnavailable
from prism_wsgi.observers.prometheus import PrometheusObserver, StoreCollector
from prism_wsgi.stores.base import KEPT_EXPIRED_MS
from tests.support.browsing import Clock, Site, ThreeVerbStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]

EVENTS = "prism_sessions_events_total"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def site(store: ThreeVerbStore, clock: Clock, registry: CollectorRegistry) -> Site:
    return Site(store, clock, observers=[PrometheusObserver(registry)])


def count(registry: CollectorRegistry, kind: str, reason: str = "") -> float | None:
    return registry.get_sample_value(EVENTS, {"kind": kind, "reason": reason})


def calls(registry: CollectorRegistry, operation: str, outcome: str = "ok") -> float | None:
    labels = {"operation": operation, "outcome": outcome}
    return registry.get_sample_value("prism_sessions_store_duration_seconds_count", labels)


def login(session: Session) -> None:
    session.login("ann-canary")


def test_events_are_counted_by_kind_and_reason(site: Site, registry: CollectorRegistry) -> None:
    for _ in range(3):
        browser = site.browser()
        browser.visit(login)
    browser.visit(Session.logout)
    assert count(registry, "logged_in") == 3
    assert count(registry, "ended", "logout") == 1
    assert count(registry, "logged_out") == 1


def test_each_of_100_forged_cookies_is_counted(site: Site, registry: CollectorRegistry) -> None:
    for _ in range(100):
        site.browser().visit(read("n"), HTTP_COOKIE="prism_session=junk", path="/canary")
    assert count(registry, "rejected", "forged") == 100
    assert b"canary" not in generate_latest(registry)


def test_calls_of_the_store_are_timed_by_operation_and_outcome(site: Site, registry: CollectorRegistry) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    browser.visit(read("n"))
    browser.visit(read("n"))
    assert (calls(registry, "save"), calls(registry, "load")) == (1, 2)
    assert isinstance(site.store, ThreeVerbStore)
    site.store.failing = {"load"}
    browser.visit(read("n"))
    assert calls(registry, "load", "failed") == 1
    assert count(registry, "store_failed") == 1


def test_no_label_comes_from_a_request(site: Site, registry: CollectorRegistry) -> None:
    site.browser().visit(login, REMOTE_ADDR="192.0.2.7", HTTP_USER_AGENT="canary")
    text = generate_latest(registry)
    assert b"canary" not in text
    assert b"192.0.2.7" not in text


class Holding(MemoryStore):
    """A store that says what a database would."""

    oldest: int | None = None

    def estimate(self) -> int:
        return 12_345

    def oldest_expired(self, before: int) -> int | None:
        return self.oldest if self.oldest is not None and self.oldest <= before else None

    def count_expired(self, before: int) -> int:
        raise AssertionError("that is not cheap")


def test_what_is_stored_is_asked_at_each_scrape(clock: Clock, registry: CollectorRegistry) -> None:
    store = Holding(clock=clock)
    registry.register(StoreCollector(store, clock=clock))
    assert registry.get_sample_value("prism_sessions_live") == 12_345
    assert registry.get_sample_value("prism_sessions_sweep_lag_seconds") == 0
    store.oldest = int(clock() * 1000) - KEPT_EXPIRED_MS - 90_000
    assert registry.get_sample_value("prism_sessions_sweep_lag_seconds") == 90


def test_an_observer_with_a_store_has_its_gauges(registry: CollectorRegistry) -> None:
    PrometheusObserver(registry, store=Holding())
    assert registry.get_sample_value("prism_sessions_live") == 12_345
    assert registry.get_sample_value("prism_sessions_sweep_lag_seconds") == 0


def test_a_store_that_cannot_tell_or_fails_has_no_gauges(clock: Clock, registry: CollectorRegistry) -> None:
    class Failing(Holding):
        def estimate(self) -> int:
            raise StoreUnavailable("down")

        def oldest_expired(self, before: int) -> int | None:
            raise StoreUnavailable("down")

    registry.register(StoreCollector(Failing(clock=clock)))
    registry.register(StoreCollector(object()))
    assert generate_latest(registry) == b""


PROGRAM = """
import os
from wsgiref.util import setup_testing_defaults
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prism_wsgi import SessionMiddleware
from prism_wsgi.observers.prometheus import PrometheusObserver

def app(environ, start_response):
    environ["prism.session"].login("ann")
    start_response("200 OK", [])
    return []

application = SessionMiddleware(app, secret="0123456789-abcdefghijklmnopqrstuvwxyz", observers=[PrometheusObserver()])

def visit():
    environ = {}
    setup_testing_defaults(environ)
    list(application(environ, lambda status, headers: None))

children = []
for _ in range(2):
    child = os.fork()
    if not child:
        visit()
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


@pytest.mark.whole
def test_workers_are_added_up_in_multi_process_mode(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True, timeout=120
    )
    assert f'{EVENTS}{{kind="logged_in",reason=""}} 2.0' in done.stdout
