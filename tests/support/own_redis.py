"""Redis servers of the tests' own, alone, behind sentinels, and as a cluster: these may be killed."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from prism_wsgi import RedisStore, StoreUnavailable
from tests.support.databases import unavailable
from tests.support.own_servers import free_port
from tests.support.waiting import PATIENCE, eventually

NODE_TIMEOUT_MS = 500
"""How long a node of a cluster, or the master behind sentinels, is silent before it is given up."""
PROMPT_REPLICA = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class OwnRedis:
    """A Redis on a port of its own, or a sentinel; `client` may do anything."""

    def __init__(self, folder: Path, *arguments: str, is_sentinel: bool = False) -> None:
        self.port = _free_port()
        self.address = ("127.0.0.1", self.port)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder / str(self.port)
        self._folder.mkdir()
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        program = _program()
        if is_sentinel:
            config = self._folder / "sentinel.conf"
            config.touch()
            self._command = [*program, str(config), "--sentinel", *place, *arguments]
        else:
            self._command = [*program, "--save", "", *place, *arguments]
        self.client = redis.Redis(port=self.port, protocol=2, socket_timeout=PATIENCE)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The folder in which the server keeps its files."""
        return self._folder

    def start(self, *arguments: str) -> None:
        """Start the server, with these arguments too, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*self._command, *arguments], stdout=log, stderr=log)
        eventually(self._answers, lambda: (self._folder / "log").read_text(errors="replace")[-2000:])
        self.client.close()  # tests count connections

    def kill(self) -> None:
        """End the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_in_step(self) -> None:
        """End the server by SIGKILL when a replica has all that it has acknowledged, and take no writes meanwhile."""
        self.say("CLIENT", "PAUSE", PATIENCE * 1000, "WRITE")
        written: Any = self.client.info("replication")["master_repl_offset"]

        def has_followed() -> bool:
            replica: Any = self.client.info("replication").get("slave0", {})
            return bool(replica.get("offset", -1) >= written)

        eventually(has_followed, "the replica does not follow")
        self.kill()

    def freeze(self) -> None:
        """Let the server do nothing until it is thawed: to its peers and clients it is as good as gone."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def replicate(self) -> None:
        """Wait until a replica has everything that was written so far."""
        # WAIT is about the writes of its own connection.
        with self.client.client() as connection:  # type: ignore[no-untyped-call]
            connection.set("replicated", 1)
            assert connection.wait(1, PATIENCE * 1000) >= 1
            connection.delete("replicated")

    def say(self, *words: object) -> Any:
        """Return the answer to a command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def role(self) -> str:
        """Return `master` or `slave`."""
        answer = self.say("ROLE")
        return str(answer[0].decode())

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def own_redis(*arguments: str, is_sentinel: bool = False) -> Iterator[OwnRedis]:
    """Yield a Redis, or a sentinel, for the time of a `with` block."""
    with _several() as make:
        server = make(*arguments, is_sentinel=is_sentinel)
        server.start()
        yield server


@dataclass
class Watched:
    """A master and a replica, and the sentinels that promote it; `url` is what their store uses."""

    servers: list[OwnRedis]
    sentinels: list[OwnRedis]
    url: str

    @property
    def master(self) -> OwnRedis:
        """The server that the sentinels agree on, and which says that it is the master."""

        def agreed() -> OwnRedis | None:
            named = self.named()
            (port,) = named if len(named) == 1 else (0,)
            return next((one for one in self.servers if one.port == port and _is_master(one)), None)

        found = eventually(agreed, "the sentinels do not agree")
        assert found is not None
        return found

    def named(self) -> set[int]:
        """Return the ports of those servers that the sentinels take for the master."""
        return {_master_of(one) for one in self.sentinels}

    def fail_over(self, old: OwnRedis) -> None:
        """Kill the master, wait for another, and let the old one come back as a replica of it."""
        old.kill()
        self._promote()
        self.bring_back(old)

    def bring_back(self, old: OwnRedis, *, is_alive: bool = False) -> None:
        """Let an earlier master follow the present one."""
        eventually(lambda: old.port not in self.named(), "nothing was promoted")
        new = self.master
        # The sentinels would take ten seconds to tell it.
        if is_alive:
            old.say("REPLICAOF", *new.address)
        else:
            old.start("--replicaof", "127.0.0.1", str(new.port))
        self.wait_until_whole()

    def hand_over(self) -> None:
        """Let the replica take over from a master that lives."""
        old = self.master
        self._promote()
        self.bring_back(old, is_alive=True)

    def _promote(self) -> None:
        """Let a sentinel promote the replica, whatever it thinks of the master."""

        def begun() -> bool:
            with suppress(redis.ResponseError):  # it is too soon after the last time
                return bool(self.sentinels[0].say("SENTINEL FAILOVER", "shop"))
            return False

        eventually(begun, "the sentinel does not begin", pause=0.1)

    def wait_until_whole(self) -> None:
        """Wait until every sentinel knows the others, and a replica that it could promote."""
        master = self.master
        (replica,) = (one for one in self.servers if one is not master)
        eventually(lambda: _is_replica_of(replica, master), "the replica does not follow")

        def settled() -> bool:
            for one in self.sentinels:
                masters: Any = one.client.sentinel_masters()
                replicas: Any = one.client.sentinel_slaves("shop")
                if masters["shop"]["num-other-sentinels"] < len(self.sentinels) - 1 or not replicas:
                    return False
                if any(each["is_sdown"] for each in replicas):
                    return False
            return True

        eventually(settled, "the sentinels do not see the replica", pause=0.05)


@contextmanager
def own_sentinel(silence_ms: int = NODE_TIMEOUT_MS) -> Iterator[Watched]:
    """Yield a master with a replica that three sentinels watch, under the name `shop`."""
    with _several() as make:
        master, replica = make(*PROMPT_REPLICA), make(*PROMPT_REPLICA)
        master.start()
        replica.start("--replicaof", "127.0.0.1", str(master.port))
        watch = (
            *("--sentinel", "monitor", "shop", "127.0.0.1", str(master.port), "2"),
            *("--sentinel", "down-after-milliseconds", "shop", str(silence_ms)),
            *("--sentinel", "failover-timeout", "shop", "1000"),
        )
        sentinels = [make(is_sentinel=True) for _ in range(3)]
        for one in sentinels:
            one.start(*watch)
        places = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        watched = Watched([master, replica], sentinels, f"redis+sentinel://{places}/shop")
        watched.wait_until_whole()
        yield watched


@dataclass
class OwnCluster:
    """Three masters, each with a replica; `url` is what its store uses."""

    nodes: list[OwnRedis]
    url: str

    def masters(self) -> list[OwnRedis]:
        """Return the masters that serve slots."""
        ports = {port for _, _, port, _ in self._owners()}
        return [one for one in self.nodes if one.port in ports]

    def replicas_of(self, master: OwnRedis) -> list[OwnRedis]:
        """Return the replicas of a master."""
        others = [one for one in self.nodes if one is not master]
        return [one for one in others if one.role() == "slave" and one.say("ROLE")[2] == master.port]

    def slots_with_keys(self) -> dict[int, OwnRedis]:
        """Return the slots of all keys, and the master of each."""
        return {key_slot(name): one for one in self.masters() for name in one.client.scan_iter(count=1000)}

    def owner_of(self, slot: int) -> OwnRedis:
        (port,) = (port for start, end, port, _ in self._owners() if start <= slot <= end)
        return self._at(port)

    def fail_over(self, master: OwnRedis) -> None:
        """Kill a master, let its replica take its place, and let it come back as a replica."""
        (replica,) = self.replicas_of(master)
        master.kill()
        replica.say("CLUSTER", "FAILOVER", "TAKEOVER")
        eventually(lambda: master not in self.masters(), "nothing was promoted")
        master.start()
        self.wait_until_whole()

    def move_slot(self, slot: int, to: OwnRedis, *, between: Callable[[], object] = lambda: None) -> None:
        """Move a slot with its keys; `between` is called when half of the keys have moved."""
        source, target_id = self.owner_of(slot), _id(to)
        to.say("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.say("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        keys = source.say("CLUSTER", "GETKEYSINSLOT", slot, 100_000)
        for number, key in enumerate(keys):
            if number == len(keys) // 2:
                between()
            source.say("MIGRATE", "127.0.0.1", to.port, key, 0, 5000)
        if not keys:
            between()
        # Keys may have come meanwhile, on either side; those on this side must not stay.
        while rest := source.say("CLUSTER", "GETKEYSINSLOT", slot, 100):
            for key in rest:
                source.say("MIGRATE", "127.0.0.1", to.port, key, 0, 5000)
        for node in (to, source, *self.masters()):
            node.say("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def wait_until_whole(self) -> None:
        """Wait until every node knows a master with a replica for every slot."""
        eventually(self._is_whole, "the cluster does not become whole", pause=0.05)

    def _is_whole(self) -> bool:
        for node in self.nodes:
            info = node.say("CLUSTER", "INFO")
            slots = node.say("CLUSTER", "SLOTS")
            covered = sum(end - start + 1 for start, end, *servers in slots if len(servers) > 1)
            if b"cluster_state:ok" not in info or covered < REDIS_CLUSTER_HASH_SLOTS:
                return False
            if node.role() == "slave" and node.say("ROLE")[3] != b"connected":
                return False
        return True

    def _owners(self) -> list[tuple[int, int, int, str]]:
        """Return what a node that lives says of the slots: first, last, the master's port and id."""
        for node in self.nodes:
            with suppress(redis.RedisError):
                answer = node.say("CLUSTER", "SLOTS")
                return [(start, end, master[1], master[2].decode()) for start, end, master, *_ in answer]
        raise AssertionError("no node of the cluster answers")

    def _at(self, port: int) -> OwnRedis:
        return next(one for one in self.nodes if one.port == port)


@contextmanager
def own_cluster(masters: int = 3, silence_ms: int = NODE_TIMEOUT_MS) -> Iterator[OwnCluster]:
    """Yield a cluster of so many masters, each with a replica."""
    quick = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(silence_ms), *PROMPT_REPLICA)
    with _several() as make:
        nodes = [make(*quick) for _ in range(2 * masters)]
        # To let them meet, and agree, takes ten seconds: they are told beforehand.
        for node in nodes:
            (node.folder / "nodes.conf").write_text(_known_to(node, nodes, masters))
            node.start()
        cluster = OwnCluster(nodes, "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in nodes[:2]))
        cluster.wait_until_whole()
        yield cluster


def _known_to(myself: OwnRedis, nodes: list[OwnRedis], masters: int) -> str:
    """Return what a node has written down about a cluster: https://redis.io/docs/latest/commands/cluster-nodes/."""
    lines = []
    for number, node in enumerate(nodes):
        first, last = (one * REDIS_CLUSTER_HASH_SLOTS // masters for one in (number, number + 1))
        role, master, slots = "master", "-", f" {first}-{last - 1}"
        if number >= masters:
            role, master, slots = "slave", _first_id(nodes[number - masters]), ""
        flags = f"myself,{role}" if node is myself else role
        place = f"127.0.0.1:{node.port}@{node.port + 10_000}"
        lines.append(f"{_first_id(node)} {place} {flags} {master} 0 0 {number % masters + 1} connected{slots}")
    return "\n".join([*lines, f"vars currentEpoch {len(nodes)} lastVoteEpoch 0", ""])


def _first_id(node: OwnRedis) -> str:
    return f"{node.port:040x}"


@contextmanager
def _several() -> Iterator[Callable[..., OwnRedis]]:
    """Yield a function that returns a server to be started, which is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="prism-redis-", ignore_cleanup_errors=True) as name, ExitStack() as stack:

        def make(*arguments: str, is_sentinel: bool = False) -> OwnRedis:
            server = OwnRedis(Path(name), *arguments, is_sentinel=is_sentinel)
            stack.callback(server.client.close)
            stack.callback(server.kill)
            return server

        yield make


def wait_until_it_says(sentence: str, store: RedisStore) -> None:
    """Wait until a store of a short timeout says why it is unavailable, and not that a server was slow."""

    def says() -> bool:
        try:
            store.load("0" * 64)
        except StoreUnavailable as error:
            return sentence in str(error)
        raise AssertionError("the store is available")

    eventually(says, f"it does not say: {sentence}")


def _program() -> list[str]:
    """Return the command that starts a server: PRISM_TEST_REDIS_PROGRAM, or the one that is installed."""
    if named := os.environ.get("PRISM_TEST_REDIS_PROGRAM"):
        return shlex.split(named)
    program = shutil.which("redis-server")
    if program is None:
        unavailable("redis-server", "the program is not installed")
    return [str(program)]


def _id(node: OwnRedis) -> str:
    answer = node.say("CLUSTER", "MYID")
    return str(answer.decode())


def _master_of(sentinel: OwnRedis) -> int:
    answer = sentinel.say("SENTINEL GET-MASTER-ADDR-BY-NAME", "shop")
    return int(answer[1])


def _is_master(server: OwnRedis) -> bool:
    with suppress(redis.RedisError):
        return server.role() == "master"
    return False


def _is_replica_of(server: OwnRedis, master: OwnRedis) -> bool:
    with suppress(redis.RedisError):
        role = server.say("ROLE")
        return bool(role[0] == b"slave" and role[2] == master.port and role[3] == b"connected")
    return False


def _free_port() -> int:
    # A node of a cluster listens 10,000 ports higher as well.
    while (port := free_port()) > 50_000:
        pass
    return port
