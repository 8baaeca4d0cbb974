"""Use sessions from many threads and processes while connections break and processes die; then look for losses.

Prints what was done, and exits 1 when something was lost. A run is repeated, as far as threads allow, by its seed.
"""

import argparse
import json
import random  # a run can be repeated from its seed
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, Self

import pytest
from sqlalchemy import make_url

from prism_wsgi import RedisStore, SessionMiddleware, migrate
from tests.losses import interrupts
from tests.losses.worker import COOKIE_CHARACTERS, ID_CHARACTERS, Plan, Store, clock, store_at
from tests.support import databases, logins
from tests.support.histories import FOREVER, Operation, Outcome, Row, counter_violations, violations
from tests.support.keys import SECRET
from tests.support.logins import Visit
from tests.support.own_redis import OwnCluster, OwnRedis, Watched, own_cluster, own_sentinel
from tests.support.proxy import CUTS, Fault, Proxy
from tests.support.visitors import Browser, application
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ENGINES = ("sqlite", "postgresql", "mariadb", "mysqlclient", "sentinel", "cluster")
SLOTS = 20
HOUSEHOLDS = 3
MARKERS = (b"", b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"COMMIT")
LONGEST_FAULT = 1.0  # seconds
CALM = 0.3  # seconds
KILL_CHANCE = 0.15  # at each fault
MOVED_SLOTS = 10  # at a time
SILENCE_MS = 30_000  # so that no server of a busy machine is given up; the soak itself has replicas promoted
REPLICA_BEHIND = 0.1  # seconds, where masters of Redis die suddenly


@dataclass
class Figures:
    """What a soak did, and found."""

    engine: str
    seed: int
    operations: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    kills: int = 0
    failovers: int = 0
    slowest: float = 0
    losses: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.operations.items()))
        return (
            f"{self.engine}: {self.operations.total()} operations ({kinds}); {self.outcomes['ok']} acknowledged, "
            f"{self.outcomes['refused']} lost a race, {self.outcomes['maybe']} unknown; {self.faults} faults met, "
            f"{self.failovers} failovers, {self.kills} processes killed; slowest call {self.slowest:.1f} s; "
            f"losses: {len(self.losses)} (seed {self.seed})"
        )


@contextmanager
def database(engine: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a migrated database of its own."""
    if engine == "sqlite":
        url = f"sqlite:///{folder / 'sessions.db'}"
        migrate.upgrade(url)
        yield url
    elif engine == "postgresql":
        with databases.postgresql_server() as server:
            url = server.fresh_schema()
            migrate.upgrade(url)
            yield url
    else:
        if engine == "mysqlclient":
            databases.need_mysqlclient()
        with databases.mariadb_server() as server:
            url = server.fresh_database()
            migrate.upgrade(url)
            yield url.replace("+pymysql:", "+mysqldb:") if engine == "mysqlclient" else url


def soak(
    engine: str, *, seconds: float, seed: int, processes: int = 2, threads: int = 4, is_sudden: bool = False
) -> Figures:
    """Run one engine's soak and return its figures; `is_sudden`: see `Failovers`."""
    figures = Figures(engine, seed)
    with (
        tempfile.TemporaryDirectory() as name,
        breakable(engine, Path(name), is_sudden) as (url, through, breaks),
    ):
        folder = Path(name)
        (folder / "board").write_text("0" * ID_CHARACTERS * SLOTS)
        (folder / "jar").write_text(" " * COOKIE_CHARACTERS * HOUSEHOLDS)
        store = store_at(url)
        browser = Browser(SessionMiddleware(application, store=store, secret=SECRET, secure=False, clock=clock))
        browser.do(lambda session: session.update(n=0))
        board, jar = str(folder / "board"), str(folder / "jar")
        plan = Plan(through, "", 0, threads, 1.0, board, jar, "", browser.cookies)
        work(figures, plan, folder, seconds, processes, breaks)
        judge(figures, folder, store, browser)
        store.close()
    return figures


@contextmanager
def breakable(engine: str, folder: Path, is_sudden: bool) -> Iterator[tuple[str, str, "Breaks"]]:
    """Yield the URL of a store of its own, the one that the workers use, and what breaks it."""
    if engine == "sentinel":
        with own_sentinel(SILENCE_MS) as watched:
            yield watched.url, watched.url, Failovers(watched, is_sudden)
    elif engine == "cluster":
        with own_cluster(silence_ms=SILENCE_MS) as cluster:
            yield cluster.url, cluster.url, Failovers(cluster, is_sudden)
    elif engine == "sqlite":
        with database(engine, folder) as url, WriteLock(folder / "sessions.db") as lock:
            yield url, url, lock
    else:
        with database(engine, folder) as url:
            parsed = make_url(url)
            with Proxy((parsed.host or "", parsed.port or 0)) as proxy:
                through = parsed.set(host="127.0.0.1", port=proxy.port)
                yield url, through.render_as_string(hide_password=False), Network(proxy)


class Breaks(Protocol):
    """A source of failures between the workers and their store; `faults` counts them."""

    @property
    def faults(self) -> int: ...

    def fail(self, chance: random.Random) -> None: ...


class Network:
    """Breaks the connections to a server, in each way there is."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def fail(self, chance: random.Random) -> None:
        fault = chance.choice([fault for fault in Fault if fault is not Fault.NONE])
        self._proxy.arm(fault, chance.choice(MARKERS))
        time.sleep(0.1 if fault in CUTS else chance.uniform(0, LONGEST_FAULT))
        self._proxy.heal()

    @property
    def faults(self) -> int:
        return self._proxy.faults


class WriteLock:
    """Holds the one lock by which SQLite lets anybody write, at times for longer than anybody waits."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.faults = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fail(self, chance: random.Random) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        time.sleep(chance.uniform(0, 1.5 * LONGEST_FAULT))
        self._connection.execute("ROLLBACK")
        self.faults += 1


class Failovers:
    """Kills masters of Redis, which replicas replace, cuts connections to them, and moves slots between them.

    A master dies when its replica has all that was acknowledged: nothing may be lost then. With `is_sudden` its
    replica is REPLICA_BEHIND, and what it lacks is lost.
    """

    def __init__(self, servers: Watched | OwnCluster, is_sudden: bool) -> None:
        self._servers = servers
        self._is_sudden = is_sudden
        kinds = [self._fail_over, self._cut]
        self._kinds = cycle([*kinds, self._move_slots] if isinstance(servers, OwnCluster) else kinds)
        self.faults = self.failovers = 0

    def fail(self, chance: random.Random) -> None:
        next(self._kinds)(chance)
        self.faults += 1

    def _fail_over(self, chance: random.Random) -> None:
        if isinstance(self._servers, Watched):
            master = self._servers.master
            self._stop(master, [one for one in self._servers.servers if one is not master])
            self._servers.fail_over(master)
        else:
            master = chance.choice(self._servers.masters())
            self._stop(master, self._servers.replicas_of(master))
            self._servers.fail_over(master)
        self.failovers += 1

    def _stop(self, master: OwnRedis, replicas: list[OwnRedis]) -> None:
        if self._is_sudden:
            for one in replicas:
                one.freeze()
            master.say("CLIENT", "KILL", "TYPE", "replica")  # what is in the buffers would arrive all the same
            time.sleep(REPLICA_BEHIND)
            master.kill()
            for one in replicas:
                one.thaw()
        else:
            master.kill_in_step()

    def _cut(self, chance: random.Random) -> None:
        for one in [self._servers.master] if isinstance(self._servers, Watched) else self._servers.masters():
            time.sleep(chance.uniform(0, 0.05))
            one.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _move_slots(self, chance: random.Random) -> None:
        assert isinstance(self._servers, OwnCluster)
        target = chance.choice(self._servers.masters())
        held = [slot for slot, owner in self._servers.slots_with_keys().items() if owner is not target]
        for slot in chance.sample(held, min(len(held), MOVED_SLOTS)):
            self._servers.move_slot(slot, target, between=lambda: time.sleep(chance.uniform(0, 0.02)))


def work(figures: Figures, plan: Plan, folder: Path, seconds: float, processes: int, breaks: Breaks) -> None:
    """Keep the workers working, and break what can be broken, until the time is over."""
    chance = random.Random(figures.seed)
    end = time.monotonic() + seconds
    started = 0

    def start() -> "subprocess.Popen[bytes]":
        nonlocal started
        started += 1
        own = replace(
            plan, seed=f"{figures.seed}-{started}", seconds=end - time.monotonic(), log=str(folder / f"{started}.log")
        )
        return subprocess.Popen([sys.executable, "-m", "tests.losses.worker", json.dumps(asdict(own))], cwd=ROOT)

    workers = [start() for _ in range(processes)]
    # Nothing is broken before somebody uses it.
    eventually(lambda: len(list(folder.glob("*.log"))) == processes, "the workers do not begin")
    end = time.monotonic() + seconds
    while time.monotonic() < end - LONGEST_FAULT:
        breaks.fail(chance)
        time.sleep(chance.uniform(0, CALM))
        if chance.random() < KILL_CHANCE:
            victim = chance.randrange(processes)
            workers[victim].kill()
            workers[victim].wait()
            figures.kills += 1
            workers[victim] = start()
    for worker in workers:
        # A worker that ends badly has found something too: a permit that did not come back, a cookie with a 503.
        if worker.wait(timeout=60):
            figures.losses.append(f"a worker ended with status {worker.returncode}")
    figures.faults, figures.failovers = breaks.faults, getattr(breaks, "failovers", 0)


def judge(figures: Figures, folder: Path, store: Store, browser: Browser) -> None:
    """Read every session once more, and hold what there is against what was done."""
    history: list[Operation] = []
    visits: list[Visit] = []
    for log in folder.glob("*.log"):
        for call in calls_in(log):
            figures.operations[call["kind"]] += 1
            figures.outcomes[call["outcome"].value] += 1
            if "cookie" in call:
                visits.append(Visit(**call))
            else:
                history.append(Operation(**call))
    figures.losses += shared_violations(history, browser) + logins.violations(visits)
    history = [operation for operation in history if operation.kind not in ("count", "key")]
    # Visits may wait for their turn inside atomic(): 30 seconds, whatever the store's timeout is.
    figures.slowest = max(one.ended - one.began for one in history if one.ended < FOREVER) / 1e9
    before = int(clock() * 1000)
    if not isinstance(store, RedisStore):
        while store.sweep(before, 1000):
            pass
        if left := store.count_expired(before):
            figures.losses.append(f"{left} expired sessions were left by a sweep")
    for session_id in {operation.id for operation in history} | {operation.new_id for operation in history} - {""}:
        began = time.monotonic_ns()
        stored = store.load(session_id)
        seen = None if stored is None else Row(stored.version, stored.data.decode(), stored.superseded)
        history.append(Operation("load", session_id, began, time.monotonic_ns(), seen=seen))
    figures.losses += violations(history, has_transactions=not isinstance(store, RedisStore))


def shared_violations(history: list[Operation], browser: Browser) -> list[str]:
    """Check the session that everybody shared: its exact counter, and a key for each client."""
    values = browser.read()
    counts = Counter(operation.outcome for operation in history if operation.kind == "count")
    found = counter_violations(counts[Outcome.OK], counts.total() - counts[Outcome.OK], values["n"])
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.kind == "key":
            keys.setdefault(operation.id, []).append(operation)
    for key, writes in keys.items():
        acknowledged = max((one.version for one in writes if one.outcome is Outcome.OK), default=0)
        possible = {one.version for one in writes if one.version > acknowledged} | {acknowledged}
        if values.get(key, 0) not in possible:
            found.append(f"a key of its own holds {values.get(key, 0)}, not one of {sorted(possible)}")
    return found


def calls_in(log: Path) -> Iterable[dict[str, Any]]:
    """Read what a worker wrote down; a call without an end is unknown, and a line cut short was never made."""
    calls: dict[str, dict[str, Any]] = {}
    for text in log.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        number = line.pop("call")
        if "outcome" in line:
            line["outcome"] = Outcome(line["outcome"])
        if line.get("seen") is not None:
            line["seen"] = Row(*line["seen"])
        calls.setdefault(number, {"outcome": Outcome.MAYBE}).update(line)
    return calls.values()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long for each engine (default: 5)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of an earlier run")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4, help="in each process (default: 4)")
    parser.add_argument(
        "--interrupts",
        action="store_true",
        help="interrupt requests in gunicorn's workers instead; Redis, PostgreSQL",
    )
    parser.add_argument(
        "--sudden", action="store_true", help="kill masters of Redis while replicas lag, and count what is lost"
    )
    chosen = parser.parse_args()
    if chosen.interrupts:
        return interrupts.run(seconds=chosen.minutes * 60, seed=chosen.seed)
    losses = 0
    for engine in chosen.engines:
        try:
            figures = soak(
                engine,
                seconds=chosen.minutes * 60,
                seed=chosen.seed,
                processes=chosen.processes,
                threads=chosen.threads,
                is_sudden=chosen.sudden,
            )
        except pytest.skip.Exception as left_out:
            print(f"{engine}: left out: {left_out}", flush=True)
            continue
        print(figures, *figures.losses, sep="\n  ", flush=True)
        losses += 0 if chosen.sudden else len(figures.losses)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
