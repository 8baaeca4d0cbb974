"""Every block of README.md and docs/ is run, in order, as its reader would; see reader.py for what that means."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_wsgi import SQLAlchemyStore, migrate
from prism_wsgi.stores.base import SweepRun
from tests.documentation.pages import PAGES, ROOT, SECRET, blocks_of
from tests.documentation.reader import Reader
from tests.documentation.shell import Shell
from tests.support.served import free_port, served

POSTGRESQL = "postgresql://app:password@db/app"
EMPTY = "postgresql://shop:password@db/shop"
SHOP = "https://shop.example.org/"
SHOWN_ID = "019ab0c1d2e37f4a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c"
HOST_COOKIE = 'cookie_name="__Host-session"'
HOUR = 3_600_000  # ms

tolerating_pyramid = pytest.mark.filterwarnings("ignore:(Deprecated call to .)?pkg_resources")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


@pytest.fixture
def port(page: Path) -> int | None:
    """The port that the page's 8000 is here."""
    return free_port() if "localhost:8000" in page.read_text() else None


@pytest.fixture
def stand_ins(request: pytest.FixtureRequest, page: Path, port: int | None) -> dict[str, str]:
    """What a page says, and what it is here: the port, root's directories, the database."""
    text, found = page.read_text(), {"/etc/": "etc/"}
    if port is not None:
        found["8000"] = str(port)
    if POSTGRESQL in text:
        found[POSTGRESQL] = request.getfixturevalue("postgresql_url")
        migrate.upgrade(found[POSTGRESQL])
        keep_sessions(found[POSTGRESQL])
    if EMPTY in text:
        found[EMPTY] = request.getfixturevalue("postgresql_url")
    if SHOP in text:
        found[SHOP] = request.getfixturevalue("shop")
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The address of a site whose cookie is as it should be."""
    program = tmp_path / "shop.py"
    program.write_text(
        (ROOT / "examples" / "plain_wsgi.py").read_text().replace(", secret=", f", {HOST_COOKIE}, secret=")
    )
    with served(program, port=free_port(), cwd=tmp_path) as address:
        yield f"{address}/"


@pytest.fixture
def reader(
    page: Path, port: int | None, stand_ins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    directory = tmp_path / "page"
    (directory / "etc" / "systemd" / "system").mkdir(parents=True)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("SESSION_SECRET", SECRET)
    monkeypatch.setenv("SESSION_ENCRYPTION_KEY", SECRET[::-1])
    shell, logger = Shell(directory, port), logging.getLogger("prism_wsgi")
    level, handlers = logger.level, [*logger.handlers]
    reader = Reader(directory, shell, stand_ins)
    yield reader
    logger.handlers = handlers  # a page shows how to add one
    logger.setLevel(level)
    reader.close()
    shell.close()


def keep_sessions(url: str) -> None:
    """Store what the pages on operating find: 4821 live sessions, 3 markers, 5214 that have expired."""
    now = int(time.time() * 1000)
    live = [stored(number, now, began=now - (number % 11) * HOUR // 6) for number in range(4821)]
    markers = [{**stored(number, now, began=now - HOUR), "superseded": True} for number in range(5000, 5003)]
    expired = [stored(number, now - HOUR - 1_074_000, began=now - 9 * HOUR) for number in range(6000, 11214)]
    store = SQLAlchemyStore(url)
    with store.engine.begin() as connection:
        connection.execute(store.table.insert(), [*live, *markers, *expired])
    store.add_sweep(SweepRun(now - 1_074_000, now - 1_073_000, 5102, "complete", "host"))
    store.close()


def stored(number: int, now: int, *, began: int) -> dict[str, object]:
    """Return a row; every fourth is logged in, and of these the first twice."""
    user = None if number % 4 else ("ada" if number in (0, 4) else f"user-{number}")
    expires_at = now + HOUR
    return {
        "id": bytes.fromhex(SHOWN_ID) if number == 0 else began.to_bytes(6, "big") + number.to_bytes(26, "big"),
        "data": b"d" * (9600 if number == 0 else 240),
        "version": 1 if number % 8 else 2,
        "user_id": user,
        "created_at": began,
        "expires_at": expires_at,
        "sweep_bucket": -(-expires_at // HOUR),
        "superseded": False,
        "last_seen_at": now,
        "authenticated_at": began if user else None,
        "auth_method": "pwd" if user else None,
        "client_address": "192.0.2.7",
        "user_agent": "Firefox/145",
    }


@needs_curl
@tolerating_pyramid
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_can_be_followed(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        reader.follow(block)
