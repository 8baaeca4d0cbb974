"""A Galera cluster of the tests' own, on this machine: its nodes may be frozen and killed."""

import glob
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy import make_url

from tests.support.databases import unavailable
from tests.support.own_servers import (
    OwnServer,
    folder_for,
    free_port,
    programs,
    run,
    running,
    user_for,
)
from tests.support.waiting import eventually

LIBRARIES = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib*/galera*/libgalera_smm.so")
OPTIONS = {
    "gcache.size": "8M",
    # Learn within two seconds that a peer is gone; five and fifteen are made for real networks.
    "evs.keepalive_period": "PT0.2S",
    "evs.inactive_check_period": "PT0.2S",
    "evs.suspect_timeout": "PT1S",
    "evs.inactive_timeout": "PT2S",
    "evs.install_timeout": "PT2S",
    "pc.announce_timeout": "PT1S",
}


class Node(OwnServer):
    """A node, ready when it has caught up with the others."""

    def is_ready(self) -> bool:
        try:
            return self.status("wsrep_local_state_comment") == "Synced" and self.status("wsrep_ready") == "ON"
        except pymysql.OperationalError:
            return False

    def status(self, name: str) -> str:
        # SHOW is answered even where nothing else is.
        return str(self.execute(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        # SQLAlchemy rolls back its first connection, which a node without quorum refuses.
        rows: list[tuple[Any, ...]] = []
        port = make_url(self.admin).port or 0
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    def set_option(self, option: str) -> None:
        self.execute(f"SET GLOBAL wsrep_provider_options = '{option}'")

    def isolate(self) -> None:
        """Let the node hear nothing of the others, until it knows that it is alone; its clients stay."""
        self.set_option("gmcast.isolate=1")
        self.wait_for_status("wsrep_cluster_status", "non-Primary")

    def rejoin(self) -> None:
        """Let the node hear the others again, and catch up."""
        self.set_option("gmcast.isolate=0")
        self.wait_until_ready()

    def wait_for_status(self, name: str, value: str) -> None:
        eventually(lambda: self.status(name) == value, lambda: f"{name} is {self.status(name)}", pause=0.05)


@contextmanager
def own_galera(count: int) -> Iterator[list[Node]]:
    """Yield the nodes of a fresh cluster, of which each takes writes; the store's user is no administrator."""
    install, server_program, _ = programs("galera", "mariadb-install-db", "mariadbd", "rsync", also="/usr/sbin")
    libraries = [library for pattern in LIBRARIES for library in glob.glob(pattern)]
    if not libraries:
        unavailable("galera", "its library (Debian's galera-4) is not installed")
    user = user_for("galera", "mysql")
    peers = [free_port() for _ in range(count)]
    with folder_for(user) as folder, ExitStack() as at_end:
        first, *others = [_node(server_program, libraries[0], folder, number, peers, user) for number in range(count)]
        plain = "--auth-root-authentication-method=normal"
        run([install, "--no-defaults", f"--datadir={folder / '0'}", plain, "--skip-test-db"], user)
        with running(first, "--wsrep-new-cluster"):
            first.execute("CREATE DATABASE sessions")
            for host in ("127.0.0.1", "localhost"):
                first.execute(f"CREATE USER visitor@'{host}'", f"GRANT ALL ON sessions.* TO visitor@'{host}'")
            first.stop()
        # From a copy, a node needs only what happened since: a second instead of several.
        for number in range(1, count):
            run(["cp", "-a", str(folder / "0"), str(folder / str(number))], user)
        at_end.enter_context(running(first, "--wsrep-new-cluster"))
        for node in others:
            node.launch()
            at_end.callback(node.kill)
        for node in others:
            _join(node)
        yield [first, *others]


def _join(node: Node) -> None:
    """Wait until a node has caught up. On a busy machine it may give up before the others answer: start it again."""
    for _ in range(2):
        try:
            node.wait_until_ready()
        except AssertionError:
            node.kill()
            node.launch()
        else:
            return
    node.wait_until_ready()


def _node(program: str, library: str, folder: Path, number: int, peers: list[int], user: str | None) -> Node:
    port = free_port()
    options = OPTIONS | {
        "gmcast.listen_addr": f"tcp://127.0.0.1:{peers[number]}",
        "ist.recv_addr": f"127.0.0.1:{free_port()}",
    }
    command = [
        program,
        "--no-defaults",
        f"--datadir={folder / str(number)}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / f'{number}.socket'}",
        "--innodb-buffer-pool-size=16M",
        "--innodb-log-file-size=8M",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-on=ON",
        "--wsrep-retry-autocommit=0",  # let every failed certification be seen
        f"--wsrep-provider={library}",
        "--wsrep-mode=REQUIRED_PRIMARY_KEY,STRICT_REPLICATION",
        "--wsrep-cluster-address=gcomm://" + ",".join(f"127.0.0.1:{peer}" for peer in peers),
        f"--wsrep-node-name=node{number}",
        f"--wsrep-node-address=127.0.0.1:{peers[number]}",
        "--wsrep-sst-method=rsync",
        f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
        "--wsrep-provider-options=" + ";".join(f"{name}={value}" for name, value in options.items()),
    ]
    admin = f"mysql+pymysql://root@127.0.0.1:{port}/"
    return Node(command, admin, f"mysql+pymysql://visitor@127.0.0.1:{port}/sessions", user, folder / f"log{number}")
