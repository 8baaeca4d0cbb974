"""The pages and the listings on a table of many sessions: the time that each takes, and the plans of its queries."""

import time
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

from benchmarks.scale.generate import Row, clear, fill, rows
from benchmarks.scale.plans import plan_of, questions_of, scanned
from benchmarks.scale.trail import percentiles
from prism_wsgi import MemoryStore, SessionMiddleware, SQLAlchemyStore, get_session
from prism_wsgi.pages import AdminPage, DevicesPage

EXPIRED_EACH = 20
BUSY = "busy"
"""A user with one session in a thousand: a robot, or an account that many share."""
TIMES = 20
SECRET = "only-for-benchmarks-0123456789abcdef"  # noqa: S105

Ask = Callable[[], object]


def pages(url: str, count: int) -> dict[str, Any]:
    """Fill the table with `count` sessions, of which one in twenty has expired, and time each question and page."""
    started = time.monotonic()
    clear(url)
    fill(url, sessions(count))
    print(f"  filled in {time.monotonic() - started:.0f} s", flush=True)
    return page_times(url)


def sessions(count: int) -> Iterator[Row]:
    """Yield sessions, some of them of one busy user."""
    generated = rows(count, now=int(time.time() * 1000), chance=Random(3), expired_each=EXPIRED_EACH)
    for number, row in enumerate(generated):
        yield (*row[:3], BUSY, *row[4:]) if number % 1000 == 1 else row


def page_times(url: str) -> dict[str, Any]:
    """Time each question and page on a table that is filled; report those whose plan reads a whole table."""
    store = SQLAlchemyStore(url, timeout=60)
    found: dict[str, Any] = {}
    for name, ask in asked(store).items():
        times = 1 if name == "count()" else TIMES
        taken = percentiles([_timed(ask) for _ in range(times)])
        questions = questions_of(store.engine, store.table.name, ask)
        plans = [plan_of(store.engine, question) for question in questions]
        scans = [step for plan in plans for step in scanned(store.engine, plan, store.table.name)]
        found[name] = {"ms": taken, "queries": len(questions), "scans": scans, "plans": plans}
        print(f"  {name:32} {taken['p50']:9.2f} ms, {len(questions)} queries {scans or ''}", flush=True)
    store.close()
    return found


def asked(store: SQLAlchemyStore) -> dict[str, Ask]:
    """Return each question to a store, and each view of the pages, by its name."""
    some = store.find_all(limit=1000)
    middle, user = some[-1].id, next(one.user for one in some if one.user not in (None, BUSY))
    assert user is not None
    view = _viewing(store)
    return {
        "count()": store.count,
        "count(user=...)": lambda: store.count(user=user),
        "count(user=<busy>)": lambda: store.count(user=BUSY),
        "estimate()": store.estimate,
        "find(user=...)": lambda: store.find(user=user),
        "find(user=<busy>)": lambda: store.find(user=BUSY),
        "find(user=<nobody>)": lambda: store.find(user="no-such-user"),
        "find_all()": store.find_all,
        "find_all(after=...)": lambda: store.find_all(after=middle),
        "AdminPage": lambda: view("admin", ""),
        "AdminPage, all": lambda: view("admin", "all"),
        "AdminPage, all, next page": lambda: view("admin", f"all&after={middle}"),
        "AdminPage, a user": lambda: view("admin", f"user={user}"),
        "AdminPage, a busy user": lambda: view("admin", f"user={BUSY}"),
        "AdminPage, an id": lambda: view("admin", f"id={middle}"),
        "DevicesPage": lambda: view("devices", "", user),
    }


def unwritten(_: bytes) -> None:
    """Do nothing: these applications write nothing."""


def _timed(ask: Ask) -> float:
    started = time.monotonic()
    ask()
    return time.monotonic() - started


def _viewing(store: SQLAlchemyStore) -> Callable[..., None]:
    """Return what asks for a page by its name and query, as a user who has logged in before where one is given."""
    pages: dict[str, WSGIApplication] = {"admin": AdminPage(store, allow=lambda _: True), "devices": DevicesPage()}

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        if environ["bench.user"] not in (None, session.user):
            session.login(environ["bench.user"])
        return pages[environ["bench.page"]](environ, start_response)

    # An administrator's own session is elsewhere, so that only the page's questions are asked of the store.
    aside = SessionMiddleware(application, store=MemoryStore(), secret=SECRET, secure=False)
    inside = SessionMiddleware(application, store=store, secret=SECRET, secure=False)
    cookies: dict[str, str] = {}

    def view(page: str, query: str, user: str | None = None) -> None:
        environ: WSGIEnvironment = {"QUERY_STRING": query, "bench.page": page, "bench.user": user}
        setup_testing_defaults(environ)
        if page in cookies:
            environ["HTTP_COOKIE"] = cookies[page]
        statuses: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            statuses.append(status)
            cookies.update((page, value.partition(";")[0]) for name, value in headers if name == "Set-Cookie")
            return unwritten

        body = (aside if user is None else inside)(environ, start_response)
        assert b"".join(body)
        assert statuses == ["200 OK"], statuses

    return view
