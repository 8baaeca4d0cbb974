"""PostgreSQL and MariaDB servers of the tests' own: these may be killed and made read-only."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from tests.support.databases import unavailable
from tests.support.waiting import PATIENCE, eventually

POSTGRESQL_PROGRAMS = "/usr/lib/postgresql/*/bin"


class OwnServer:
    """A server on a port of its own; `url` is what its store uses, and `admin` may do anything."""

    def __init__(self, command: list[str], admin: str, url: str, user: str | None, log: Path) -> None:
        self._command = command
        self._user = user
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = admin
        self.url = url

    def start(self, *arguments: str) -> None:
        """Start the server and wait until it takes connections."""
        self.launch(*arguments)
        self.wait_until_ready()

    def launch(self, *arguments: str) -> None:
        """Start the server, with these arguments too, and do not wait for it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments], stdout=log, stderr=log, user=self._user, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        process = self._process
        assert process is not None

        def said() -> str:
            return self._log.read_text(errors="replace")[-2000:]

        def is_ready() -> bool:
            assert process.poll() is None, said()
            return self.is_ready()

        eventually(is_ready, said, pause=0.05)

    def is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Let the server end as it should."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Let the server do nothing until it is thawed: to its peers and clients it is as good as gone."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server and everything it started by SIGKILL."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait()
        while _of_session(self._process.pid):
            time.sleep(0.01)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run the statements and return what the last one answers."""
        rows: list[tuple[Any, ...]] = []
        engine = create_engine(self.admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
                rows = [tuple(row) for row in result] if result.returns_rows else []
        return rows

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        # PostgreSQL's processes have groups of their own, and share the server's session.
        for process in [self._process.pid, *_of_session(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, number)


@contextmanager
def own_postgresql() -> Iterator[OwnServer]:
    """Yield a fresh PostgreSQL; it refuses to run as root, so it runs as the user postgres then."""
    (install,) = programs("postgresql", "initdb", also=POSTGRESQL_PROGRAMS)
    user = user_for("postgresql", "postgres")
    with folder_for(user) as folder:
        run([install, "-D", str(folder / "data"), "-U", "root", "-A", "trust", "--no-sync"], user)
        with running(postgresql_at(folder, user)) as server:
            yield server


def postgresql_at(folder: Path, user: str | None) -> OwnServer:
    """Return a PostgreSQL of the data in this folder."""
    (program,) = programs("postgresql", "postgres", also=POSTGRESQL_PROGRAMS)
    port = free_port()
    command = [program, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    url = f"postgresql+psycopg://root@127.0.0.1:{port}/postgres"
    return OwnServer(command, url, url, user, folder / "log")


@contextmanager
def own_mariadb(*arguments: str) -> Iterator[OwnServer]:
    """Yield a fresh MariaDB, whose store is no administrator: an administrator may write on a read-only server."""
    user = user_for("mariadb", "mysql")
    with folder_for(user) as folder, running(mariadb_at(folder, user, *arguments)) as server:
        server.execute("CREATE DATABASE sessions")
        for host in ("127.0.0.1", "localhost"):
            server.execute(f"CREATE USER visitor@'{host}'", f"GRANT ALL ON sessions.* TO visitor@'{host}'")
        yield server


def mariadb_at(folder: Path, user: str | None, *arguments: str) -> OwnServer:
    """Return a MariaDB, to be started with these arguments, of new data in this folder."""
    install, program = programs("mariadb", "mariadb-install-db", "mariadbd", also="/usr/sbin")
    data = f"--datadir={folder / 'data'}"
    plain = "--auth-root-authentication-method=normal"
    run([install, "--no-defaults", data, plain, "--skip-test-db"], user)
    port = free_port()
    small = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"]
    place = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]
    command = [program, "--no-defaults", data, *place, *small, *arguments]
    url = f"mysql+pymysql://visitor@127.0.0.1:{port}/sessions"
    return OwnServer(command, f"mysql+pymysql://root@127.0.0.1:{port}/", url, user, folder / "log")


@contextmanager
def running(server: OwnServer, *arguments: str) -> Iterator[OwnServer]:
    """Start a server, with these arguments too, and kill it behind the block."""
    try:
        server.start(*arguments)
        yield server
    finally:
        server.kill()


def programs(engine: str, *names: str, also: str) -> list[str]:
    places = os.pathsep.join([os.environ.get("PATH", ""), *map(str, Path("/").glob(also.lstrip("/")))])
    found = [program for name in names if (program := shutil.which(name, path=places))]
    if len(found) < len(names):
        unavailable(engine, f"{', '.join(names)} are not installed, to start a server that may be killed")
    # A link's program looks for its files beside itself.
    return [os.path.realpath(program) for program in found]


def user_for(engine: str, name: str) -> str | None:
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        unavailable(engine, f"there is no user {name} to run a server as")
        raise


@contextmanager
def folder_for(user: str | None) -> Iterator[Path]:
    # Not pytest's: those are for its own user alone.
    with tempfile.TemporaryDirectory(prefix="prism-server-", ignore_cleanup_errors=True) as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


def run(command: list[str], user: str | None) -> None:
    done = subprocess.run(command, user=user, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _of_session(leader: int) -> list[int]:
    """Return the processes of a session, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found
