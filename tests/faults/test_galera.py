"""A Galera cluster whose nodes all take writes: conflicts between them, reads behind them, and nodes that go."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from prism_wsgi import (
    Session,
    SessionConflict,
    SessionMiddleware,
    SQLAlchemyStore,
    StoredSession,
    StoreUnavailable,
    migrate,
)
from prism_wsgi.stores.sql import store as sql
from prism_wsgi.stores.sql.failures import Failure, classify
from prism_wsgi.testing import StoreContract, loaded, new_session
from tests.losses.soak import HOUSEHOLDS, SLOTS, Figures, Network, judge, work
from tests.losses.worker import COOKIE_CHARACTERS, ID_CHARACTERS, Plan, clock
from tests.support.keys import SECRET
from tests.support.own_galera import Node, own_galera
from tests.support.proxy import Proxy
from tests.support.visitors import Browser, application, count, put, run_at_once
from tests.support.waiting import PATIENCE, eventually

CAUSAL = "?init_command=SET SESSION wsrep_sync_wait=7, innodb_lock_wait_timeout=5"
ROUNDS = 500


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    with own_galera(3) as nodes:
        migrate.upgrade(nodes[0].url)
        yield nodes


@pytest.fixture(scope="module")
def stores(nodes: list[Node]) -> Iterator[list[SQLAlchemyStore]]:
    """A store on each node, which reads what the node has got so far."""
    stores = [SQLAlchemyStore(node.url) for node in nodes]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture(scope="module")
def causal(nodes: list[Node]) -> Iterator[list[SQLAlchemyStore]]:
    """A store on each node that waits until the node has got what the others had acknowledged."""
    stores = [SQLAlchemyStore(node.url + CAUSAL) for node in nodes]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the errors that the servers answered with."""
    numbers: list[int] = []

    def noted(dialect: Any, error: Exception, connection: Any) -> Failure:
        numbers.append(error.args[0])
        return classify(dialect, error, connection)

    monkeypatch.setattr(sql, "classify", noted)
    return numbers


class AnyNode:
    """A store whose calls go to the nodes in turn, as behind a balancer that knows nothing of sessions."""

    def __init__(self, stores: list[SQLAlchemyStore]) -> None:
        self._turns = cycle(stores)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turns), name)


def site(store: Any) -> SessionMiddleware:
    return SessionMiddleware(application, store=store, secret=SECRET, secure=False)


def empty(store: SQLAlchemyStore) -> None:
    with store.engine.begin() as connection:
        connection.execute(store.table.delete())


# The nodes enforce it themselves, too: wsrep_mode=REQUIRED_PRIMARY_KEY,STRICT_REPLICATION.
def test_every_table_has_a_primary_key_and_is_of_innodb(nodes: list[Node]) -> None:
    ours = "WHERE table_schema = 'sessions'"
    tables = nodes[2].execute(f"SELECT table_name, engine FROM information_schema.tables {ours} ORDER BY 1")
    keys = f"SELECT table_name FROM information_schema.table_constraints {ours} AND constraint_type = 'PRIMARY KEY'"
    names = ("prism_alembic_version", "prism_sessions", "prism_sessions_events", "prism_sessions_sweeps")
    assert tables == [(name, "InnoDB") for name in names]
    assert nodes[2].execute(f"{keys} ORDER BY 1") == [(name,) for name, _ in tables]


class TestOneNode(StoreContract):
    """The cluster as it is best used: one node takes everything."""

    @pytest.fixture
    def store(self, stores: list[SQLAlchemyStore]) -> SQLAlchemyStore:
        empty(stores[0])
        return stores[0]


class TestAnyNode(StoreContract):
    """With wsrep_sync_wait, calls may go to any node, and each keeps the contract for what the others did."""

    @pytest.fixture
    def store(self, causal: list[SQLAlchemyStore]) -> Any:
        empty(causal[0])
        return AnyNode(causal)


# Conflicts


def test_of_two_nodes_that_save_one_version_one_wins(causal: list[SQLAlchemyStore], errors: list[int]) -> None:
    session, outcomes = new_session(), dict[int, list[str]]()
    causal[0].save(session)
    together = threading.Barrier(2)

    def save_each_version(node: int) -> None:
        for version in range(1, ROUNDS + 1):
            together.wait(PATIENCE)
            mine = replace(session, version=version, data=b"%d by node %d" % (version, node))
            try:
                causal[node].save(mine)
            except SessionConflict:
                outcome = "conflict"
            else:
                outcome = f"saved by node {node}"
            outcomes.setdefault(version, []).append(outcome)

    run_at_once([partial(save_each_version, node) for node in range(2)])
    assert all(sorted(two)[0] == "conflict" and sorted(two)[1] != "conflict" for two in outcomes.values())
    assert loaded(causal[2], session).version == ROUNDS + 1
    # Both saved, and one failed the certification: it was repeated, and then found the version taken.
    assert errors.count(1213) > ROUNDS / 10


@pytest.mark.parametrize("waits", [False, True], ids=["stale reads", "wsrep_sync_wait"])
def test_counters_of_visits_to_different_nodes_are_exact(
    stores: list[SQLAlchemyStore], causal: list[SQLAlchemyStore], waits: bool
) -> None:
    browser = Browser(site(causal[0]))
    browser.do(put("n", 0))
    visitors = []
    for waiting, store in zip(causal, causal if waits else stores, strict=True):
        loads_on(waiting, browser)
        visitor = Browser(site(store))
        visitor.cookies = dict(browser.cookies)
        visitors += [visitor, visitor]

    def count_often(visitor: Browser) -> None:
        for _ in range(10):
            visitor.do(count)

    run_at_once([partial(count_often, visitor) for visitor in visitors])
    assert browser.read() == {"n": 10 * len(visitors)}


@pytest.mark.parametrize("waits", [False, True], ids=["stale reads", "wsrep_sync_wait"])
def test_changes_made_on_different_nodes_all_survive(
    stores: list[SQLAlchemyStore], causal: list[SQLAlchemyStore], waits: bool
) -> None:
    browser = Browser(site(causal[0]))
    browser.do(put("kept", 1))
    for waiting in causal:
        loads_on(waiting, browser)
    for turn in range(20):
        together = threading.Barrier(3)

        def visit(node: int, turn: int = turn, together: threading.Barrier = together) -> None:
            visitor = Browser(site((causal if waits else stores)[node]))
            visitor.cookies = dict(browser.cookies)

            def change(session: Session) -> None:
                session["kept"]
                together.wait(PATIENCE)
                session[f"{turn} on {node}"] = True

            visitor.do(change)

        run_at_once([partial(visit, node) for node in range(3)])
    assert len(browser.read()) == 1 + 20 * 3


def test_history_of_calls_to_any_node_is_one_that_a_single_server_can_have(nodes: list[Node], tmp_path: Path) -> None:
    """Threads and processes, each connected to some node, while connections break: with wsrep_sync_wait."""
    figures = Figures("galera", seed=1)
    (tmp_path / "board").write_text("0" * ID_CHARACTERS * SLOTS)
    (tmp_path / "jar").write_text(" " * COOKIE_CHARACTERS * HOUSEHOLDS)
    with Proxy(*map(address_of, nodes)) as proxy:
        url = make_url(nodes[0].url + CAUSAL).set(host="127.0.0.1", port=proxy.port)
        store = SQLAlchemyStore(url, clock=clock)
        empty(store)
        browser = Browser(SessionMiddleware(application, store=store, secret=SECRET, secure=False, clock=clock))
        browser.do(put("n", 0))
        text = url.render_as_string(hide_password=False)
        plan = Plan(text, "", 0, 4, 1.0, str(tmp_path / "board"), str(tmp_path / "jar"), "", browser.cookies)
        work(figures, plan, tmp_path, 5, 2, Network(proxy))
        judge(figures, tmp_path, store, browser)
        store.close()
    assert figures.losses == []
    assert figures.outcomes["ok"] > 20


def loads_on(waiting: SQLAlchemyStore, browser: Browser) -> None:
    """Wait, by a store that waits, until a node has got the browser's session."""
    other = Browser(site(waiting))
    other.cookies = dict(browser.cookies)
    assert other.read()


# Reads behind the writes


@contextmanager
def lagging(node: Node) -> Iterator[None]:
    """Let a node apply nothing of what the others write."""
    blocking = create_engine(node.admin)
    with blocking.connect() as connection:
        connection.exec_driver_sql("FLUSH TABLES WITH READ LOCK")
        yield
        connection.exec_driver_sql("UNLOCK TABLES")
    blocking.dispose()


@dataclass
class Call:
    """One call in a thread of its own."""

    what: Any
    answer: Any = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.answer = self.what()


def wait_for_statement(node: Node) -> None:
    running = "SELECT count(*) FROM information_schema.processlist WHERE user = 'visitor' AND command = 'Query'"
    eventually(lambda: node.execute(running) != [(0,)], "the node was not asked")


def test_load_waits_for_a_node_that_lags_only_with_wsrep_sync_wait(
    nodes: list[Node], stores: list[SQLAlchemyStore], causal: list[SQLAlchemyStore]
) -> None:
    session = new_session()
    with lagging(nodes[1]):
        stores[0].save(session)
        assert stores[1].load(session.id) is None
        load = Call(lambda: causal[1].load(session.id))
        wait_for_statement(nodes[1])
        assert load.answer is None
    load.thread.join()
    assert load.answer == replace(session, version=1)


@pytest.mark.parametrize("verb", ["touch", "destroy", "save"])
def test_write_on_a_node_that_lags_finds_what_the_others_wrote(
    nodes: list[Node], stores: list[SQLAlchemyStore], causal: list[SQLAlchemyStore], verb: str
) -> None:
    session = new_session()
    writes = {
        "touch": lambda: causal[1].touch(replace(session, version=1, expires_at=session.expires_at + 1000)),
        "destroy": lambda: causal[1].destroy(session.id),
        "save": lambda: causal[1].save(replace(session, version=1, data=b"saved")),
    }
    with lagging(nodes[1]):
        stores[0].save(session)
        write = Call(writes[verb])
        wait_for_statement(nodes[1])
    write.thread.join()
    expected: dict[str, StoredSession | None] = {
        "touch": replace(session, version=1, expires_at=session.expires_at + 1000),
        "destroy": None,
        "save": replace(session, version=2, data=b"saved"),
    }
    assert causal[0].load(session.id) == expected[verb]


# Nodes that are cut off, and nodes that die


@pytest.fixture
def proxy(nodes: list[Node]) -> Iterator[Proxy]:
    """What the sites connect to; it leads to the first node."""
    with Proxy(address_of(nodes[0])) as proxy:
        yield proxy


@pytest.fixture(params=["by URL", "on an engine"])
def store(request: pytest.FixtureRequest, nodes: list[Node], proxy: Proxy) -> Iterator[SQLAlchemyStore]:
    url = make_url(nodes[0].url).set(port=proxy.port)
    engine = create_engine(url, connect_args={"read_timeout": 2}) if request.param == "on an engine" else None
    store = SQLAlchemyStore(engine or url, timeout=2)
    yield store
    store.close()
    store.engine.dispose()


def address_of(node: Node) -> tuple[str, int]:
    url = make_url(node.url)
    return url.host or "", url.port or 0


def logged_in(store: SQLAlchemyStore) -> Browser:
    browser = Browser(site(store))
    browser.do(lambda session: session.login("alice"))
    browser.do(put("kept", 1))
    return browser


def recovers(browser: Browser, cookies: dict[str, str]) -> None:
    """The session is there again, and so is its user, who never got another cookie."""
    eventually(lambda: browser.visit(put("later", 1)).status == "200 OK", "the session does not come back")
    assert browser.do(lambda session: (session.user, dict(session))) == ("alice", {"kept": 1, "later": 1})
    assert browser.cookies == cookies


def test_connections_to_a_node_that_is_cut_off_are_left_for_another_node(
    nodes: list[Node], store: SQLAlchemyStore, proxy: Proxy, errors: list[int]
) -> None:
    """The node goes on answering (1047), its connections stay open: nothing but its answers says so."""
    browser = logged_in(store)
    nodes[0].isolate()
    try:
        proxy.lead_to(address_of(nodes[1]))
        assert browser.visit(put("later", 1)).status == "200 OK"
        assert 1047 in errors
        recovers(browser, dict(browser.cookies))
    finally:
        nodes[0].rejoin()


def test_node_without_quorum_is_reported_and_used_again_when_it_has_one(
    nodes: list[Node], store: SQLAlchemyStore, caplog: pytest.LogCaptureFixture
) -> None:
    browser = logged_in(store)
    cookies = dict(browser.cookies)
    nodes[0].isolate()
    try:
        caplog.clear()
        for _ in range(3):
            refused = browser.visit(put("late", 1))
            assert refused.status.startswith("503")
            assert refused.set_cookies == []
        # A ROLLBACK is refused like everything else, which SQLAlchemy would report at each return to its pool.
        assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["prism_wsgi"] * 3
    finally:
        nodes[0].rejoin()
    recovers(browser, cookies)


def test_increments_are_counted_once_while_a_node_comes_and_goes(nodes: list[Node]) -> None:
    """What was acknowledged is there; beyond that there is what may have been applied (1180), and nothing else."""
    stores = [SQLAlchemyStore(node.url + CAUSAL, timeout=2) for node in nodes]
    session, stop = new_session(data=b"0"), threading.Event()
    stores[0].save(session)
    acknowledged, unknown = [0] * 3, [0] * 3

    def count_on(node: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                seen = loaded(stores[node], session)
            except StoreUnavailable:
                continue
            number = int(seen.data.split()[0])
            try:
                stores[node].save(replace(seen, data=b"%d at turn %d of node %d" % (number + 1, turn, node)))
            except SessionConflict:
                continue
            except StoreUnavailable:
                unknown[node] += 1
            else:
                acknowledged[node] += 1

    threads = [threading.Thread(target=count_on, args=(node,)) for node in range(3)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: min(acknowledged) >= 10, lambda: f"acknowledged by each node: {acknowledged}")
        nodes[0].isolate()
        nodes[0].rejoin()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    counted = int(loaded(stores[1], session).data.split()[0])
    assert sum(acknowledged) <= counted <= sum(acknowledged) + sum(unknown)
    for store in stores:
        store.close()


@pytest.mark.parametrize("store", ["by URL"], indirect=True)
def test_last_node_of_three_waits_for_its_administrator_and_then_goes_on(
    nodes: list[Node], store: SQLAlchemyStore
) -> None:
    """The last test of all: the other nodes stay dead."""
    browser = logged_in(store)
    cookies = dict(browser.cookies)
    for node in nodes[1:]:
        node.kill()
    nodes[0].wait_for_status("wsrep_cluster_status", "non-Primary")
    refused = browser.visit(put("late", 1))
    assert refused.status.startswith("503")
    assert refused.set_cookies == []
    nodes[0].set_option("pc.bootstrap=1")
    recovers(browser, cookies)
