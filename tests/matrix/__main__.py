"""`dev.py matrix`: the tests of the store, the migrations, the sweeper and the command line, on each server.

The servers that this machine has are started anew. Newer ones come with newer releases of Debian, installed into
folders below ~/.cache/prism_wsgi on the first run (root, mmdebstrap, 1 GB, ten minutes).
"""

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.newer_debian import command as in_newer_debian
from tests.support.newer_debian import (
    fill,
    newer_mariadb,
    newer_postgresql,
    newer_redis,
    own_mysql,
    redis_running,
)
from tests.support.own_servers import OwnServer, free_port, own_mariadb, own_postgresql

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- dev.py matrix --write begins here -->", "<!-- and ends here -->"

GROUPS = {
    "contract": ("tests.testing.",),
    "store": ("tests.stores.",),
    "migrations": ("tests.migrations.",),
    "sweeper": ("tests.test_sweeper",),
    "command line": ("tests.cli.",),
}
"""The columns of the table, and the test modules of each."""

PATHS = ("tests/testing", "tests/stores", "tests/migrations", "tests/test_sweeper.py", "tests/cli")


@dataclass(frozen=True)
class Row:
    """A server of the table: where it comes from (None: from nowhere that is known), and how its tests reach it."""

    name: str
    engine: str
    start: Callable[[], AbstractContextManager[str]] | None
    suite: str = ""  # the release of Debian that has it; empty for this machine's own
    program: str = ""  # the one that tests start as a cluster and behind Sentinel


HURRY = {
    "postgresql": ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"),
    "mariadb": ("SET GLOBAL innodb_flush_log_at_trx_commit = 0",),
}
"""Statements after which a server does not wait for the disk: these tests do not cut the power."""


@contextmanager
def address(engine: str, start: Callable[[], AbstractContextManager[OwnServer]]) -> Iterator[str]:
    with start() as server:
        server.execute(*HURRY[engine])
        yield server.admin


@contextmanager
def installed_redis() -> Iterator[str]:
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    with redis_running([program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], port) as url:
        yield url


ROWS = (
    Row("PostgreSQL 15", "postgresql", lambda: address("postgresql", own_postgresql)),
    Row("PostgreSQL 18", "postgresql", lambda: address("postgresql", newer_postgresql), "sid"),
    Row("MariaDB 10.11", "mariadb", lambda: address("mariadb", own_mariadb)),
    Row("MariaDB 11", "mariadb", lambda: address("mariadb", newer_mariadb), "trixie"),
    Row("MySQL 8.4", "mariadb", None),
    Row("MySQL 9", "mariadb", lambda: address("mariadb", own_mysql), "sid"),
    Row("Redis 7", "redis", installed_redis),
    Row("Redis 8", "redis", lambda: newer_redis("sid", "redis-server"), "sid", "redis-server"),
    Row("Valkey 8", "redis", lambda: newer_redis("trixie", "valkey-server"), "trixie", "valkey-server"),
)


def version(engine: str, url: str) -> str:
    """Return the name and the version of a running server, as in the first column."""
    if engine == "redis":
        from redis import Redis

        with Redis.from_url(url) as client:
            told = client.info("server")
        return f"Valkey {told['valkey_version']}" if "valkey_version" in told else f"Redis {told['redis_version']}"
    from sqlalchemy import NullPool, create_engine

    with create_engine(url, poolclass=NullPool).connect() as connection:
        asked = "SHOW server_version" if engine == "postgresql" else "SELECT VERSION()"
        told = str(connection.exec_driver_sql(asked).scalar_one())
    name = "PostgreSQL" if engine == "postgresql" else "MariaDB" if "MariaDB" in told else "MySQL"
    return f"{name} {re.split('[- ]', told)[0]}"


def run_tests(row: Row, url: str, arguments: list[str]) -> dict[str, str]:
    """Run the tests on a server; return what each group of them came to."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--engine={row.engine}"]
        command += [f"--junitxml={report.name}", *arguments, *PATHS]
        environ = {f"PRISM_TEST_{row.engine.upper()}": url, "PRISM_TEST_REQUIRE": row.engine}
        if row.program:
            environ["PRISM_TEST_REDIS_PROGRAM"] = shlex.join(in_newer_debian(row.suite, "root", row.program))
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, check=False)
        cases = list(ElementTree.parse(report.name).iter("testcase"))
    return {group: _sum(cases, modules) for group, modules in GROUPS.items()}


def _sum(cases: list[ElementTree.Element], modules: tuple[str, ...]) -> str:
    counted = Counter(
        "skipped"
        if case.find("skipped") is not None
        else "failed"
        if case.find("failure") is not None or case.find("error") is not None
        else "passed"
        for case in cases
        if case.get("classname", "").startswith(modules)
    )
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())) or "none"


def run_row(row: Row, arguments: list[str]) -> list[str]:
    """Return the cells of a row behind its name."""
    if row.start is None:
        return [_not_run("no release of Debian at hand has it")]
    if row.suite and (reason := fill(row.suite)):
        return [_not_run(reason)]
    try:
        with row.start() as url:
            found = version(row.engine, url)
            if not re.match(rf"{re.escape(row.name)}\b", found):
                return [_not_run(f"this machine has {found}")]
            print(f"{row.name}: {found}", flush=True)
            return [found, *run_tests(row, url, arguments).values()]
    except pytest.skip.Exception as reason:
        return [_not_run(str(reason))]


def _not_run(reason: str) -> str:
    return f"not run: {reason}"


def table(cells: dict[str, list[str]]) -> str:
    """Return the table of docs/compatibility.md."""
    lines = [["server", "version", *GROUPS], ["---"] * (2 + len(GROUPS))]
    for name, row in cells.items():
        lines.append([name, *row, *[""] * (1 + len(GROUPS) - len(row))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def on_the_page() -> dict[str, list[str]]:
    """Return the rows that docs/compatibility.md has."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows if row[0] in {one.name for one in ROWS}}


def write(text: str) -> None:
    """Put the table into docs/compatibility.md."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py matrix", description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="run the rows whose name begins so")
    parser.add_argument(
        "--write", action="store_true", help="put what has run into the table of docs/compatibility.md"
    )
    options, arguments = parser.parse_known_args()
    run = {row.name: run_row(row, arguments) for row in ROWS if row.name.startswith(options.only)}
    print(f"\n{table(run)}\nPython {platform.python_version()}", flush=True)
    if options.write:
        known = {**on_the_page(), **run}
        write(table({row.name: known.get(row.name, [_not_run("not yet")]) for row in ROWS}))
    return int(any("failed" in cell for row in run.values() for cell in row))


if __name__ == "__main__":
    sys.exit(main())
