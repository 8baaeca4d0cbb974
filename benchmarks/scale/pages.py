"""The pages and the listings on a table of many sessions: the time that each takes, and the plans of its queries."""

import time
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

from sqlalchemy import create_engine, text

from benchmarks.scale.generate import DAY_MS, Row, clear, fill, rows, settle
from benchmarks.scale.plans import plan_of, questions_of, scanned
from benchmarks.scale.trail import percentiles
from prism_wsgi import MemoryStore, SessionMiddleware, SQLAlchemyStore, get_session
from prism_wsgi.pages import AdminPage, DevicesPage

EXPIRED_EACH = 20
BUSY = "busy"
"""A user with one session in a thousand: a robot, or an account that many share."""
TIMES = 20
SECRET = "only-for-benchmarks-0123456789abcdef"  # noqa: S105

_PORTION = 250_000
_INSERT = (
    "INSERT INTO prism_sessions (id, data, version, user_id, created_at, expires_at, sweep_bucket, superseded) "
    "SELECT id, data, 1 + n % 40, who, created_at, expires_at, ceil(expires_at / 3600000.0) + 2, false FROM ("
)
# As `sessions` yields them, but made by the server: from here, 5 million take half an hour on a slow machine.
_ON_SERVER = {
    "postgresql": f"""{_INSERT}
        SELECT n, decode(lpad(to_hex(:began + n * :step), 12, '0'), 'hex')
                || substring(sha256(CAST(CAST(n AS text) AS bytea)) FROM 1 FOR 26) AS id,
            decode(repeat(md5(CAST(n AS text)), CAST(4 + n % 21 AS integer)), 'hex') AS data,
            CASE WHEN n % 1000 = 1 THEN 'busy' WHEN n % 3 = 0 THEN 'user-' || abs(hashint8(n)) % 50000 END AS who,
            :began + n * :step AS created_at,
            CASE WHEN n % 20 = 0 THEN :now - 3600000 ELSE :now + 3600000 + n % 1209600 * 1000 END AS expires_at
        FROM generate_series(CAST(:begin AS bigint), CAST(:end AS bigint) - 1) AS n) AS made""",
    "mysql": f"""{_INSERT}
        SELECT n, unhex(concat(lpad(hex(:began + n * :step), 12, '0'), left(sha2(n, 256), 52))) AS id,
            unhex(repeat(md5(n), 4 + n % 21)) AS data,
            CASE WHEN n % 1000 = 1 THEN 'busy' WHEN n % 3 = 0 THEN concat('user-', crc32(n) % 50000) END AS who,
            :began + n * :step AS created_at,
            CASE WHEN n % 20 = 0 THEN :now - 3600000 ELSE :now + 3600000 + n % 1209600 * 1000 END AS expires_at
        FROM (SELECT seq + :begin - 1 AS n FROM seq_1_to_{_PORTION}) AS numbers WHERE n < :end) AS made""",
}

Ask = Callable[[], object]


def pages(url: str, count: int) -> dict[str, Any]:
    """Fill the table with `count` sessions, of which one in twenty has expired, and time each question and page."""
    started = time.monotonic()
    clear(url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    statement = _ON_SERVER.get(engine.dialect.name)
    if statement is None:
        fill(url, sessions(count))
    else:
        now = int(time.time() * 1000)
        values = {"now": now, "began": now - 10 * DAY_MS, "step": 10 * DAY_MS // count}
        with engine.connect() as connection:
            for begin in range(0, count, _PORTION):
                connection.execute(text(statement), {**values, "begin": begin, "end": min(begin + _PORTION, count)})
    settle(url)
    engine.dispose()
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
        print(
            f"  {name:32} {taken['least']:9.2f} to {taken['p50']:9.2f} ms, {len(questions)} queries {scans or ''}",
            flush=True,
        )
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
