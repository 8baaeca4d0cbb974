"""Processes that fork after the store was used, and processes that are killed in the middle of a request."""

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore
from tests.support import databases
from tests.support.keys import SECRET
from tests.support.served import free_port
from tests.support.visitors import Browser, application, count, put
from tests.support.waiting import PATIENCE, eventually
from tests.support.wire import ask, begin, listening

UWSGI = Path(sys.executable).with_name("uwsgi")
CLIENTS = 8
COUNTS = 10  # of each client


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


def page(port: int, path: str, cookie: str) -> Any:
    answer = ask(port, path, f"Cookie: {cookie}")
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_uwsgi_processes_forked_after_a_query_count_exactly(url: str, tmp_path: Path) -> None:
    if not UWSGI.exists():
        databases.unavailable("uwsgi", "the program is not in the environment (pip install uwsgi; it needs gcc)")
    port = free_port()
    # Without --lazy-apps the application is loaded, and asks the store, before the processes are forked.
    command = [str(UWSGI), "--master", "--processes=4", "--enable-threads", "--threads=2", "--die-on-term"]
    command += [
        f"--http-socket=127.0.0.1:{port}",
        "--module=tests.servers.wire_app:application",
        "--need-app",
        "--buffer-size=32768",
    ]
    command += [f"--virtualenv={sys.prefix}"]
    with listening(command, port, tmp_path / "uwsgi.txt", SITE_DATABASE_URL=url, SITE_FOLDER=str(tmp_path)):
        cookie = ask(port, "/count").cookie

        def client(_: int) -> set[int]:
            return {page(port, "/count", cookie)["pid"] for _ in range(COUNTS)}

        with ThreadPoolExecutor(CLIENTS) as threads:
            processes = set().union(*threads.map(client, range(CLIENTS)))
        assert page(port, "/", cookie)["data"] == {"n": 1 + CLIENTS * COUNTS}
    assert len(processes) > 1


@pytest.mark.parametrize("path", ["/write-and-hold", "/lock-and-hold"])
def test_a_worker_killed_in_the_middle_of_a_request_loses_nothing_that_was_acknowledged(
    path: str, url: str, tmp_path: Path
) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--workers=2",
        "--preload",
        "--graceful-timeout=2",
        f"--bind=127.0.0.1:{port}",
    ]
    command += ["tests.servers.wire_app:application"]
    with listening(command, port, tmp_path / "gunicorn.txt", SITE_DATABASE_URL=url, SITE_FOLDER=str(tmp_path)):
        cookie = ask(port, "/count").cookie
        held = tmp_path / "held"
        for killed in range(1, 3):
            with begin(port, path, f"Cookie: {cookie}") as connection:
                process = int(eventually(lambda: held.exists() and held.read_text()))
                os.kill(process, signal.SIGKILL)
                held.unlink()
                assert connection.recv(1) == b"", "nothing was answered"
            # Others, and the worker that takes the place of the dead one, go on where the last answer was.
            assert page(port, "/count", cookie)["data"] == {"n": 1 + killed}


def children_of_a_fork(site: SessionMiddleware, browser: Browser) -> "list[multiprocessing.process.BaseProcess]":
    def visit() -> None:
        for _ in range(COUNTS):
            browser.do(count)
        stranger = Browser(site)
        stranger.do(put("name", os.getpid()))
        assert stranger.read() == {"name": os.getpid()}

    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=visit) for _ in range(4)]
    for child in children:
        child.start()
    return list(children)


def test_multiprocessing_children_of_a_site_in_use_work_while_their_parent_holds_a_lock(url: str) -> None:
    store = SQLAlchemyStore(url)
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(count)
    forked = threading.Event()
    inside = threading.Event()

    def count_slowly(session: Session) -> None:
        with session.atomic():
            session["n"] += 1
            inside.set()
            assert forked.wait(PATIENCE)

    with ThreadPoolExecutor(1) as threads:
        holder = threads.submit(browser.do, count_slowly)
        assert inside.wait(PATIENCE)
        lease = store._connections.acquire()  # and one that a thread of the parent has in use
        children = children_of_a_fork(site, browser)
        forked.set()
        holder.result()
        with lease:
            pass
        for child in children:
            child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0] * 4
    assert browser.read() == {"n": 2 + 4 * COUNTS}
    store.close()


def test_fork_that_python_is_not_told_of_leaves_the_parents_connections_to_the_parent(url: str) -> None:
    store = SQLAlchemyStore(url)
    site = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(count)
    forks = []
    for _ in range(4):
        child = ctypes.PyDLL(None).fork()  # as uWSGI does it: os.register_at_fork is not called
        if child == 0:
            code = 1
            try:
                for _ in range(COUNTS):
                    browser.do(count)
                assert store.stats().live == 1
                code = 0
            finally:
                os._exit(code)
        forks.append(child)
    assert [os.waitpid(child, 0)[1] for child in forks] == [0] * 4
    assert browser.read() == {"n": 1 + 4 * COUNTS}
    store.close()


BUILD = """
import secrets, sys, threading, prism_wsgi
assert "sqlalchemy" not in sys.modules
for url in ("postgresql+psycopg://nobody@127.0.0.1:1/none", "mysql+pymysql://nobody@127.0.0.1:1/none",
            "sqlite:////nonexistent/none.db"):
    store = prism_wsgi.SQLAlchemyStore(url)
    prism_wsgi.SessionMiddleware(lambda environ, start_response: [], store=store, secret=secrets.token_bytes(40))
prism_wsgi.SessionMiddleware(lambda environ, start_response: [], secret=secrets.token_bytes(40))
print(threading.enumerate() == [threading.main_thread()])
"""


def test_no_thread_is_started_and_nothing_is_connected_before_the_first_request() -> None:
    run = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (run.stdout, run.stderr) == ("True\n", "")
