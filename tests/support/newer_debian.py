"""Servers and Pythons of newer Debian releases, each release in a folder of its own beside this machine's.

`dev.py matrix` fills the folders. Their programs run with the folder as their root, on this machine's kernel and
network, with its /tmp and /dev. The mounts that this takes end with the program.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.databases import unavailable
from tests.support.own_servers import OwnServer, folder_for, free_port, running
from tests.support.waiting import PATIENCE, eventually

FOLDERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism_wsgi"

PACKAGES = {
    "trixie": "mariadb-server-core,mariadb-client-core,valkey-server,redis-server,pgbouncer,python3.13-venv",
    "sid": "mysql-server-core,postgresql-18,redis-server,pgbouncer,python3.14-venv",
}
"""What each release is wanted for."""

_INSIDE = """
mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && mount --bind /tmp "$0/tmp" &&
exec chroot "--userspec=$1" "$0" "${@:2}"
"""


def folder_of(suite: str) -> Path:
    return FOLDERS / f"debian-{suite}"


def fill(suite: str) -> str:
    """Install a release with what it is wanted for; return why that cannot be done here, empty when it is there."""
    folder = folder_of(suite)
    if (folder / "complete").exists():
        return ""
    if os.getuid() != 0 or shutil.which("mmdebstrap") is None:
        return "only root can install another Debian here, with the program mmdebstrap"
    sources = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    mirrors = subprocess.run(sources, capture_output=True, text=True, check=False).stdout.split()
    if not mirrors:
        return "apt on this machine has no source of Debian's packages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A mirror that is frozen in time has release files that have expired.
    options = ["--variant=apt", '--aptopt=Acquire::Check-Valid-Until "false"', f"--include={PACKAGES[suite]}"]
    made = subprocess.run(["mmdebstrap", "--quiet", *options, suite, folder, mirrors[0]], check=False)
    if made.returncode:
        return f"mmdebstrap could not install Debian {suite}; what it said is above"
    (folder / "complete").touch()
    return ""


def command(suite: str, user: str, program: str, *arguments: str) -> list[str]:
    """Return the command that runs a program of another release; skip the test where it is not installed."""
    folder = folder_of(suite)
    if os.getuid() != 0 or not (folder / "complete").exists():
        unavailable(f"debian-{suite}", "it has not been installed (dev.py matrix does that, as root)")
    return ["unshare", "--mount", "bash", "-c", _INSIDE, str(folder), user, program, *arguments]


@contextmanager
def newer_postgresql() -> Iterator[OwnServer]:
    """Yield a fresh PostgreSQL 18."""
    programs = "/usr/lib/postgresql/18/bin"
    with folder_for("postgres") as folder:
        shutil.chown(folder, *_owner("sid", "postgres"))
        data = str(folder / "data")
        _run(command("sid", "postgres", f"{programs}/initdb", "-D", data, "-U", "root", "-A", "trust", "--no-sync"))
        port = free_port()
        place = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
        start = command("sid", "postgres", f"{programs}/postgres", *place)
        url = f"postgresql+psycopg://root@127.0.0.1:{port}/postgres"
        with running(OwnServer(start, url, url, None, folder / "log")) as server:
            yield server


@contextmanager
def newer_mariadb() -> Iterator[OwnServer]:
    """Yield a fresh MariaDB 11."""
    with folder_for(None) as folder:
        data = f"--datadir={folder / 'data'}"
        plain = ["--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"]
        _run(command("trixie", "root", "mariadb-install-db", "--no-defaults", data, *plain))
        with _mysql_family("trixie", "mariadbd", folder) as server:
            yield server


@contextmanager
def own_mysql(*arguments: str) -> Iterator[OwnServer]:
    """Yield a fresh MySQL, whose store is no administrator: an administrator may write on a read-only server."""
    with folder_for(None) as folder:
        data = f"--datadir={folder / 'data'}"
        _run(command("sid", "root", "mysqld", "--no-defaults", "--initialize-insecure", "--user=root", data))
        with _mysql_family("sid", "mysqld", folder, "--mysqlx=OFF", "--secure-file-priv=NULL", *arguments) as server:
            yield server


@contextmanager
def newer_redis(suite: str, program: str) -> Iterator[str]:
    """Yield the URL of a fresh Redis or Valkey."""
    port = free_port()
    with folder_for(None) as folder:
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        with redis_running(command(suite, "root", program, *place), port) as url:
            yield url


@contextmanager
def redis_running(start: list[str], port: int) -> Iterator[str]:
    """Run a Redis or Valkey, and yield its URL."""

    def answers() -> bool:
        with redis.Redis(port=port) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    with subprocess.Popen(start, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(answers, "the server does not answer", pause=0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def _mysql_family(suite: str, program: str, folder: Path, *arguments: str) -> Iterator[OwnServer]:
    port = free_port()
    place = [f"--datadir={folder / 'data'}", f"--port={port}", "--bind-address=127.0.0.1"]
    place += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}", "--user=root"]
    small = ["--innodb-buffer-pool-size=64M"]
    start = command(suite, "root", program, "--no-defaults", *place, *small, *arguments)
    admin = f"mysql+pymysql://root@127.0.0.1:{port}/"
    url = f"mysql+pymysql://visitor@127.0.0.1:{port}/sessions"
    with running(OwnServer(start, admin, url, None, folder / "log")) as server:
        server.execute("CREATE DATABASE sessions")
        for host in ("127.0.0.1", "localhost"):
            server.execute(f"CREATE USER visitor@'{host}'", f"GRANT ALL ON sessions.* TO visitor@'{host}'")
        yield server


def _owner(suite: str, user: str) -> tuple[int, int]:
    """Return the numbers that a user and its group have in another release."""
    lines = (folder_of(suite) / "etc/passwd").read_text().splitlines()
    fields = next(line.split(":") for line in lines if line.startswith(f"{user}:"))
    return int(fields[2]), int(fields[3])


def _run(start: list[str]) -> None:
    done = subprocess.run(start, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
