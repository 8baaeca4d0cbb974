"""Every verb of the SQL store, and every use of a session, while the network between us and the server breaks."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore, StoredSession, StoreError, migrate
from prism_wsgi.stores.kept import MAX_CONNECTIONS, KeptConnections
from prism_wsgi.testing import ManualClock, marker_of, new_session, race
from tests.support import databases
from tests.support.keys import SECRET
from tests.support.proxy import CUTS, Fault, Proxy
from tests.support.visitors import Action, Browser, application

HASTY = 1.0
"""The store's timeout (seconds) in tests that wait until it gives a silent server up."""
UNHURRIED = 20.0
"""The timeout in the others, which a busy machine must not use up."""
LASTING = (Fault.REFUSE, Fault.RESET)
SLOW = (Fault.LATENCY, Fault.SLICES)


@dataclass
class Rig:
    """A store behind a proxy, and one that reaches the same table directly."""

    proxy: Proxy
    store: SQLAlchemyStore
    direct: SQLAlchemyStore

    def in_use(self) -> int:
        connections = self.store._connections
        assert isinstance(connections, KeptConnections)
        return connections.in_use


@pytest.fixture(scope="module", params=["postgresql", "mariadb", "mysqlclient"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database on each driver in turn, shared by the tests of this module."""
    if request.param == "postgresql":
        address: str = request.getfixturevalue("postgresql_server").fresh_schema()
    else:
        if request.param == "mysqlclient":
            databases.need_mysqlclient()
        address = request.getfixturevalue("mariadb_server").fresh_database()
    migrate.upgrade(address)
    return address.replace("+pymysql:", "+mysqldb:", 1) if request.param == "mysqlclient" else address


@pytest.fixture(scope="module")
def direct(url: str) -> Iterator[SQLAlchemyStore]:
    store = SQLAlchemyStore(url)
    yield store
    store.close()


@contextmanager
def behind_a_proxy(direct: SQLAlchemyStore, timeout: float) -> Iterator[Rig]:
    behind = direct.engine.url
    with Proxy((behind.host or "", behind.port or 0)) as proxy:
        store = SQLAlchemyStore(behind.set(host="127.0.0.1", port=proxy.port), timeout=timeout)
        yield Rig(proxy, store, direct)
        store.close()


@pytest.fixture
def rig(direct: SQLAlchemyStore) -> Iterator[Rig]:
    with behind_a_proxy(direct, UNHURRIED) as rig:
        yield rig


@pytest.fixture
def hasty_rig(direct: SQLAlchemyStore) -> Iterator[Rig]:
    with behind_a_proxy(direct, HASTY) as rig:
        yield rig


class Attempt:
    """One call of a verb: what is stored before it, and what is afterwards if it takes effect."""

    def __init__(self, verb: str, direct: SQLAlchemyStore) -> None:
        self.verb = verb
        self.direct = direct
        self.session, self.new = new_session(), new_session()
        self.changed = replace(self.session, version=1, data=b"changed")
        self.later = self.session.expires_at + 60_000
        direct.save(self.session)
        if verb == "sweep":
            direct.save(new_session(expires_at=1))
        self.before = self.observe()

    def run(self, store: SQLAlchemyStore) -> Any:
        if self.verb == "load":
            return store.load(self.session.id)
        if self.verb == "create":
            return store.save(self.new)
        if self.verb == "save":
            return store.save(self.changed)
        if self.verb == "touch":
            return store.touch(replace(self.session, version=1, expires_at=self.later))
        if self.verb == "destroy":
            return store.destroy(self.session.id)
        if self.verb == "replace":
            return store.replace(marker_of(self.session), self.new)
        return store.sweep(1, 100)

    def observe(self) -> tuple[StoredSession | None, StoredSession | None, int]:
        expired = self.direct.count_expired(1) if self.verb == "sweep" else 0
        return self.direct.load(self.session.id), self.direct.load(self.new.id), expired

    @property
    def after(self) -> tuple[StoredSession | None, StoredSession | None, int]:
        old = self.before[0]
        assert old is not None
        return {
            "load": (old, None, 0),
            "create": (old, replace(self.new, version=1), 0),
            "save": (replace(self.changed, version=2), None, 0),
            "touch": (replace(old, expires_at=self.later), None, 0),
            "destroy": (None, None, 0),
            "replace": (replace(marker_of(self.session), version=2), replace(self.new, version=1), 0),
            "sweep": (old, None, 0),
        }[self.verb]


MARKERS = {
    "load": b"SELECT",
    "create": b"INSERT",
    "save": b"UPDATE",
    "touch": b"UPDATE",
    "destroy": b"DELETE",
    "replace": b"COMMIT",
    "sweep": b"DELETE",
}
"""What the message says by which each verb takes effect."""


def outcome_of(attempt: Attempt, store: SQLAlchemyStore) -> Any:
    """Return what the verb returned, or the StoreError it raised."""
    try:
        return attempt.run(store)
    except StoreError as error:
        return error


def check(attempt: Attempt, outcome: Any) -> None:
    """What was acknowledged holds; what was not has happened or has not, but not by half."""
    if isinstance(outcome, StoreError):
        assert attempt.observe() in (attempt.before, attempt.after)
    else:
        assert attempt.observe() == attempt.after
        assert attempt.verb != "load" or outcome == attempt.after[0]


@pytest.mark.parametrize("verb", MARKERS)
@pytest.mark.parametrize("fault", CUTS, ids=lambda fault: fault.name.lower())
def test_connection_cut_once_is_survived_with_one_effect(rig: Rig, fault: Fault, verb: str) -> None:
    attempt = Attempt(verb, rig.direct)
    rig.store.load(attempt.session.id)
    rig.store.oldest_expired(1)
    with rig.proxy.armed(fault, MARKERS[verb]):
        outcome = outcome_of(attempt, rig.store)
    assert rig.proxy.faults == 1
    assert not isinstance(outcome, StoreError), outcome
    check(attempt, outcome)
    assert rig.in_use() == 0


@pytest.mark.parametrize("statement", [b"BEGIN", b"UPDATE", b"INSERT"])
@pytest.mark.parametrize("fault", CUTS, ids=lambda fault: fault.name.lower())
def test_connection_cut_inside_a_transaction_is_survived_with_one_effect(
    rig: Rig, fault: Fault, statement: bytes
) -> None:
    attempt = Attempt("replace", rig.direct)
    rig.store.load(attempt.session.id)
    with rig.proxy.armed(fault, statement):
        outcome = outcome_of(attempt, rig.store)
    assert rig.proxy.faults == 1
    assert outcome is None
    check(attempt, outcome)
    assert rig.in_use() == 0


@pytest.mark.parametrize("verb", MARKERS)
@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault.name.lower())
def test_server_out_of_reach_is_reported_and_used_again_at_once(rig: Rig, fault: Fault, verb: str) -> None:
    attempt = Attempt(verb, rig.direct)
    rig.store.load(attempt.session.id)
    rig.store.oldest_expired(1)
    with rig.proxy.armed(fault):
        outcome = outcome_of(attempt, rig.store)
    assert isinstance(outcome, StoreError)
    check(attempt, outcome)
    assert rig.in_use() == 0
    outcome = outcome_of(attempt, rig.store)
    assert not isinstance(outcome, StoreError), outcome
    check(attempt, outcome)


@pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.name.lower())
def test_slow_network_only_takes_time(rig: Rig, fault: Fault) -> None:
    attempts = [Attempt(verb, rig.direct) for verb in MARKERS]
    rig.store.oldest_expired(1)  # SQLAlchemy asks an engine's first connection a dozen questions
    with rig.proxy.armed(fault):
        outcomes = race([partial(outcome_of, attempt, rig.store) for attempt in attempts])
    for attempt, outcome in zip(attempts, outcomes, strict=True):
        assert not isinstance(outcome, StoreError), (attempt.verb, outcome)
        check(attempt, outcome)
    assert rig.in_use() == 0


@pytest.mark.parametrize("state", ["warm", "cold"])
def test_server_that_says_nothing_is_given_up(hasty_rig: Rig, state: str) -> None:
    """The server may hang, or the network swallow everything: TCP alone never notices, so a store that waited for
    ever would hang here, and pytest-timeout end the test."""
    # More than there are connections, so that some wait for one in vain.
    attempts = [Attempt(verb, hasty_rig.direct) for verb in (*MARKERS, *["load", "save", "replace"] * 6)]
    if state == "warm":
        warm_up(hasty_rig)
    with hasty_rig.proxy.armed(Fault.BLACKHOLE):
        outcomes = race([partial(outcome_of, attempt, hasty_rig.store) for attempt in attempts])
    for attempt, outcome in zip(attempts, outcomes, strict=True):
        assert isinstance(outcome, StoreError), attempt.verb
        check(attempt, outcome)
    assert hasty_rig.in_use() == 0
    assert hasty_rig.store.load(attempts[0].session.id) is not None


def warm_up(rig: Rig) -> None:
    """Open as many connections as the store keeps."""
    for lease in [rig.store._connections.acquire() for _ in range(MAX_CONNECTIONS)]:
        with lease:
            pass
    rig.store.stats()


# What the browser sees


@dataclass
class LoggedIn:
    """A browser logged in as a user of its own, and what its site and session are."""

    rig: Rig
    clock: ManualClock

    def __post_init__(self) -> None:
        self.user = secrets.token_hex(8)
        self.browser = Browser(self.site_on(self.rig.store))
        self.browser.do(lambda session: session.update(kept=1))
        self.browser.do(lambda session: session.login(self.user))
        self.old = self.other(self.browser.cookies)

    def site_on(self, store: SQLAlchemyStore) -> SessionMiddleware:
        return SessionMiddleware(application, store=store, secret=SECRET, secure=False, clock=self.clock)

    def other(self, cookies: dict[str, str]) -> Browser:
        """A browser with these cookies, whose requests meet no fault."""
        browser = Browser(self.site_on(self.rig.direct))
        browser.cookies = dict(cookies)
        return browser

    def live_sessions(self) -> int:
        return len(self.rig.direct.find(user=self.user))


def read(session: Session) -> object:
    return session.get("kept")


def write(session: Session) -> None:
    session["written"] = True


USES: dict[str, tuple[Action, bytes]] = {
    "read": (read, b"SELECT"),
    "write": (write, b"UPDATE"),
    "touch": (read, b"UPDATE"),
    "logout": (lambda session: session.logout(), b"DELETE"),
    "regenerate": (lambda session: session.regenerate(), b"COMMIT"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fault", [*CUTS, *LASTING, Fault.SLICES], ids=lambda fault: fault.name.lower())
def test_request_is_answered_fully_or_with_a_503_that_leaves_the_cookies_alone(
    rig: Rig, fault: Fault, use: str
) -> None:
    visitor = LoggedIn(rig, ManualClock())
    before = dict(visitor.browser.cookies)
    action, marker = USES[use]
    if use == "touch":
        visitor.clock.advance(1000)
    with rig.proxy.armed(fault, marker):
        visit = visitor.browser.visit(action)
    assert rig.in_use() == 0
    if fault in LASTING:
        assert visit.status.startswith("503")
        assert not visit.set_cookies
        assert visitor.browser.cookies == before
        # It was not done, or nobody heard that it was: a session that moved on opens under no cookie we know.
        assert visitor.live_sessions() == 1
        assert visitor.browser.do(read) == 1
        return
    assert visit.status == "200 OK"
    after = visitor.other(visitor.browser.cookies)
    if use == "logout":
        assert visitor.browser.cookies == {}
        assert visitor.old.read() == {}
        assert visitor.live_sessions() == 0
        return
    assert visitor.live_sessions() == 1
    assert after.read() == ({"kept": 1, "written": True} if use == "write" else {"kept": 1})
    if use == "regenerate":
        assert visitor.browser.cookies != before
        assert visitor.old.read() == {}


def test_requests_to_a_server_that_says_nothing_are_refused_while_it_is_silent(hasty_rig: Rig) -> None:
    clock = ManualClock()
    visitors = [LoggedIn(hasty_rig, clock) for _ in USES]
    before = [dict(visitor.browser.cookies) for visitor in visitors]
    clock.advance(1000)  # so that reading touches
    with hasty_rig.proxy.armed(Fault.BLACKHOLE):
        uses = zip(visitors, USES.values(), strict=True)
        visits = race([partial(visitor.browser.visit, action) for visitor, (action, _) in uses])
    assert {visit.status[:3] for visit in visits} == {"503"}
    assert [visit.set_cookies for visit in visits] == [[]] * len(visits)
    assert [visitor.browser.cookies for visitor in visitors] == before
    assert [visitor.browser.do(read) for visitor in visitors] == [1] * len(visitors)
    assert hasty_rig.in_use() == 0


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.REFUSE], ids=lambda one: one.name.lower())
def test_first_write_gives_a_cookie_that_opens_it_or_none(rig: Rig, fault: Fault) -> None:
    visitor = LoggedIn(rig, ManualClock())
    stranger = Browser(visitor.site_on(rig.store))
    with rig.proxy.armed(fault, b"INSERT"):
        visit = stranger.visit(write)
    if fault is Fault.REFUSE:
        assert visit.status.startswith("503")
        assert not visit.set_cookies
    else:
        assert visit.status == "200 OK"
        assert visitor.other(stranger.cookies).read() == {"written": True}


def test_counting_through_cuts_is_exact_up_to_what_may_have_been_applied(rig: Rig) -> None:
    visitor = LoggedIn(rig, ManualClock())

    def count(session: Session) -> None:
        with session.atomic():
            session["n"] = session.get("n", 0) + 1

    acknowledged = unknown = 0
    faults: list[Callable[[], object]] = [
        *(partial(rig.proxy.arm, fault, b"UPDATE") for fault in CUTS),
        partial(rig.proxy.arm, Fault.REFUSE),
        rig.proxy.drop_all,
    ]
    for turn in range(20):
        faults[turn % len(faults)]()
        visit = visitor.browser.visit(count)
        rig.proxy.heal()
        if visit.status == "200 OK":
            acknowledged += 1
        else:
            unknown += 1
    assert acknowledged >= 16
    assert acknowledged <= visitor.browser.read()["n"] <= acknowledged + unknown
