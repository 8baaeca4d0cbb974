"""`prism-wsgi` as the tests run it: in this process, or, for signals and what is imported, in one of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from click.testing import CliRunner, Result

from prism_wsgi import SQLAlchemyStore, StoredSession
from prism_wsgi.cli import commands

ROOT = Path(__file__).parent.parent.parent
PROGRAM = (sys.executable, "-m", "prism_wsgi.cli")
HOUR = 3600


def run(*arguments: str, input: str | None = None, **environ: str) -> Result:  # noqa: A002
    """Run a command in this process; an error it did not expect is raised."""
    result = CliRunner().invoke(commands, arguments, input=input, env=environ, prog_name="prism-wsgi")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def started(*arguments: str, cwd: Path, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a command in a process of its own, killed at the end if need be."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*PROGRAM, *arguments], cwd=cwd, env=environment(**environ), stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(text: str, stream: IO[str] | None) -> str:
    """Read lines until one contains `text`."""
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"The output ended without {text!r}")


def store_of(url: str) -> closing[SQLAlchemyStore]:
    return closing(SQLAlchemyStore(url))


def session_id(number: int) -> str:
    return f"{number:064x}"


def keep(
    url: str,
    number: int,
    *,
    expires_in: float = HOUR,
    user: str | None = None,
    data: bytes = b"data",
    began: float = 1,
) -> str:
    """Store a session that expires that many seconds from now, in the past if negative; return its id.

    `began` is how many seconds ago it did.
    """
    now = int(time.time() * 1000)
    session = StoredSession(session_id(number), data, 0, now - int(began * 1000), now + int(expires_in * 1000), user)
    with store_of(url) as store:
        store.save(session)
    return session.id


def keep_expired(url: str, count: int, *, seconds_ago: float = HOUR, first: int = 0) -> None:
    """Store that many expired sessions, in one go."""
    now = int(time.time() * 1000)
    expires_at = now - int(seconds_ago * 1000)
    with store_of(url) as store, store.engine.begin() as connection:
        rows = [
            {
                "id": bytes.fromhex(session_id(10_000 + number)),
                "data": b"data",
                "version": 1,
                "user_id": f"user-{number}",
                "created_at": expires_at - 1,
                "expires_at": expires_at,
                "sweep_bucket": -(-expires_at // 3_600_000),
                "superseded": False,
            }
            for number in range(first, first + count)
        ]
        connection.execute(store.table.insert(), rows)


def expired(url: str) -> int:
    """Return how many expired sessions are stored."""
    with store_of(url) as store:
        return store.stats().expired
