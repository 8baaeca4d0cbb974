"""AdminPage over WSGI, on every store."""

import re
from typing import Any

import pytest
from sqlalchemy.event import listen, remove

from prism_wsgi import ConfigError, MemoryStore, SessionStore, SQLAlchemyStore, get_session
from prism_wsgi.observers.audit import AuditTrail
from prism_wsgi.pages import AdminPage
from prism_wsgi.stores.base import SweepRun
from prism_wsgi.testing import ManualClock
from tests.support.browsing import ThreeVerbStore
from tests.support.observing import Recorder
from tests.support.page_visits import Visitor, site_with

pytest_plugins = ["tests.support.every_store"]

ATTACK = "<script>alert('1')</script>\"&"


def is_root(environ: dict[str, object]) -> bool:
    return get_session(environ).user == "root"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def visitors(store: SessionStore, clock: ManualClock, recorder: Recorder) -> tuple[Visitor, Visitor, Visitor]:
    """An administrator, a user, another user."""
    site = site_with(AdminPage(store, is_root, clock=clock), store, clock, observers=[recorder])
    found = Visitor(site), Visitor(site), Visitor(site)
    for one, name in zip(found, ("root", "ada", "grace"), strict=True):
        one.login(name)
    recorder.take()
    return found


@pytest.fixture
def in_memory(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock, ttl=10**8)


def admin_of(store: SessionStore, clock: ManualClock) -> Visitor:
    """Return an administrator of a store whose sessions are elsewhere, logged in."""
    elsewhere = MemoryStore(clock=clock, ttl=10**8)
    visitor = Visitor(site_with(AdminPage(store, is_root, clock=clock), elsewhere, clock))
    visitor.login("root")
    return visitor


def test_page_says_how_many_sessions_there_are_and_that_the_store_works(
    visitors: tuple[Visitor, Visitor, Visitor], clock: ManualClock
) -> None:
    clock.advance(3700 * 0.9)
    page = visitors[0].get("/admin").text
    assert "3, counted now" in page
    assert "The store can be read and written to." in page
    assert '<th scope="row">Under an hour</th><td class="number">3</td>' in page
    assert "<svg" in page


@pytest.mark.parametrize("path", ["/admin", "/admin?user=ada", "/admin?file=pages.css"])
def test_page_is_not_there_for_anybody_who_is_not_allowed(
    in_memory: MemoryStore, clock: ManualClock, path: str
) -> None:
    visitor = Visitor(site_with(AdminPage(in_memory, is_root, clock=clock), in_memory, clock))
    visitor.login("ada")
    assert visitor.get(path).status_int == 404
    assert visitor.post("/admin", sure="yes").status_int == 404
    assert visitor.user == "ada"


def test_administrator_finds_a_users_session_and_ends_it(
    visitors: tuple[Visitor, Visitor, Visitor], recorder: Recorder
) -> None:
    root, ada, grace = visitors
    page = root.get("/admin?user=ada").text
    assert "Firefox on Linux" in page
    (session_id,) = root.values("end")
    assert session_id in root.get(f"/admin?id={session_id}").text
    assert root.submit("/admin", end=session_id).status_int == 303
    assert (ada.user, grace.user, root.user) == ("nobody", "grace", "root")
    assert "1 session has ended." in root.get("/admin").text
    (event,) = [event for event in recorder.take() if event.kind == "ended"]
    assert (event.reason, event.user, event.session_id, event.author) == ("revoked", "ada", session_id, "admin:root")


def test_administrator_ends_every_session_of_a_user(visitors: tuple[Visitor, Visitor, Visitor]) -> None:
    root, ada, grace = visitors
    root.get("/admin?user=ada")
    root.submit("/admin", end_user="ada")
    assert (ada.user, grace.user, root.user) == ("nobody", "grace", "root")


def test_administrator_ends_all_sessions_but_their_own_and_has_to_mean_it(
    visitors: tuple[Visitor, Visitor, Visitor], recorder: Recorder
) -> None:
    root, ada, grace = visitors
    root.get("/admin")
    root.submit("/admin", all="all")
    assert ada.user == "ada"
    assert "you have not ticked the box" in root.get("/admin").text
    root.submit("/admin", all="all", sure="yes")
    assert (ada.user, grace.user, root.user) == ("nobody", "nobody", "root")
    assert "2 sessions have ended." in root.get("/admin").text
    assert sorted(str(event.user) for event in recorder.take() if event.kind == "ended") == ["ada", "grace"]


def test_form_without_the_right_token_ends_nothing(visitors: tuple[Visitor, Visitor, Visitor]) -> None:
    root, ada, _ = visitors
    root.get("/admin")
    answer = root.post("/admin", csrf_token="f" * 64, all="all", sure="yes")
    assert answer.status_int == 403
    assert "this form is out of date" in answer.text
    assert ada.user == "ada"


def test_administrator_cannot_end_their_own_session_by_accident(visitors: tuple[Visitor, Visitor, Visitor]) -> None:
    root = visitors[0]
    assert "Yours" in root.get("/admin?user=root").text
    assert root.values("end") == []
    root.submit("/admin", end_user="root")
    assert root.user == "root"


@pytest.mark.parametrize("query", ["user=nobody-of-that-name", "id=123", "id=" + "0" * 64, "id=%00", "user=%00"])
def test_search_without_a_match_says_so(store: SessionStore, clock: ManualClock, query: str) -> None:
    assert "No live session was found." in admin_of(store, clock).get(f"/admin?{query}").text


@pytest.mark.parametrize("field", ["end", "end_user"])
@pytest.mark.parametrize("value", ["", "\0", "F" * 64, "ä" * 300])
def test_form_with_nonsense_ends_nothing(store: SessionStore, clock: ManualClock, field: str, value: str) -> None:
    admin = admin_of(store, clock)
    admin.get("/admin")
    assert admin.submit("/admin", **{field: value}).status_int == 303
    assert "That session was not live any more." in admin.get("/admin").text


def test_all_sessions_are_listed_page_by_page(store: SessionStore, clock: ManualClock) -> None:
    site = site_with(AdminPage(store, is_root), store, clock)
    for number in range(53):
        Visitor(site).login(f"user-{number}")
    admin = admin_of(store, clock)
    first = admin.get("/admin?all").text
    (more,) = re.findall(r'href="(\?all=&amp;after=[^"]*)"', first)
    second = admin.get(f"/admin{more}".replace("&amp;", "&")).text
    assert len(set(re.findall(r"<bdi>(user-\d+)</bdi>", first + second))) == 53
    assert "More</a>" not in second


def test_names_that_are_an_attack_are_escaped(in_memory: MemoryStore, clock: ManualClock) -> None:
    site = site_with(AdminPage(in_memory, is_root), in_memory, clock)
    Visitor(site, ATTACK, ATTACK).login(ATTACK)
    admin = admin_of(in_memory, clock)
    for path in ("/admin?all", "/admin?user=%3Cscript%3E", "/admin?id=%22%3E%3Cscript%3E"):
        assert "<script" not in admin.get(path).text
    assert "&lt;script&gt;" in admin.get("/admin?all").text


def test_logins_of_each_hour_come_from_the_audit_trail(
    empty_sqlite_url: str, clock: ManualClock, in_memory: MemoryStore
) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, clock=clock)
    admin = admin_of(store, clock)
    assert "The audit trail has no events of the last 24 hours." in admin.get("/admin").text
    site = site_with(AdminPage(store, is_root), store, clock, observers=[AuditTrail(store)])
    for _ in range(3):
        Visitor(site).login("ada")
    page = admin.get("/admin").text
    assert re.search(r':00</time></th><td class="number">3</td><td class="number">0</td>', page)
    assert 'aria-label="Logins an hour"' in page
    store.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_trail_counts_the_newest_events_of_each_hour(
    request: pytest.FixtureRequest, clock: ManualClock, engine: str
) -> None:
    store = SQLAlchemyStore(request.getfixturevalue(f"empty_{engine}_url"), clock=clock)
    site = site_with(AdminPage(store, is_root), store, clock, observers=[AuditTrail(store)])
    Visitor(site).login("ada")
    clock.advance(3600)
    Visitor(site).login("grace")
    hour = int(clock() // 3600 * 3_600_000)
    found = list(store.events_an_hour(0, 1000))
    assert sorted(found, key=str) == [
        (began, kind, None, 1) for began in (hour - 3_600_000, hour) for kind in ("logged_in", "started")
    ]
    assert [row[0] for row in store.events_an_hour(0, 2)] == [hour, hour]
    assert [row[0] for row in store.events_an_hour(hour, 1000)] == [hour, hour]
    store.close()


def test_last_sweeps_are_shown(empty_sqlite_url: str, clock: ManualClock) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, clock=clock)
    admin = admin_of(store, clock)
    assert "No sweep has been recorded." in admin.get("/admin").text
    now = int(clock() * 1000)
    store.add_sweep(SweepRun(now - 60_000, now - 57_500, 4821, "done", "web-1"))
    page = admin.get("/admin").text
    for shown in ("4821", "2.5", "web-1", "1 minute ago"):
        assert shown in page
    store.close()


def test_store_that_is_down_is_said_without_a_traceback(clock: ManualClock) -> None:
    store = SQLAlchemyStore("postgresql://nobody:password@127.0.0.1:9/none", timeout=1)
    answer = admin_of(store, clock).get("/admin")
    assert answer.status_int == 503
    assert "The store does not answer (StoreUnavailable)." in answer.text
    assert "password" not in answer.text


def test_store_of_three_verbs_is_shown_with_what_it_can_answer(clock: ManualClock) -> None:
    admin = admin_of(ThreeVerbStore(MemoryStore(clock=clock)), clock)
    page = admin.get("/admin").text
    for said in (
        "The store can be read. It cannot prove that it takes writes.",
        "This store cannot count its sessions cheaply.",
        "This store keeps no audit trail.",
        "This store forgets expired sessions by itself, or keeps no record of its sweeps.",
    ):
        assert said in page
    assert "This store cannot list these sessions cheaply." in admin.get("/admin?all").text
    assert "This store cannot list these sessions cheaply." in admin.get("/admin?user=ada").text


def test_many_sessions_are_estimated_and_the_page_says_so(
    in_memory: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism_wsgi.pages.overview.MEASURED_AT_MOST", 3)
    site = site_with(AdminPage(in_memory, is_root), in_memory, clock)
    for _ in range(4):
        Visitor(site).login("ada")
    page = admin_of(in_memory, clock).get("/admin").text
    assert "About 4, as the store estimates" in page
    assert "too many sessions to sort them by age" in page
    monkeypatch.setattr("prism_wsgi.pages.overview.LOOKED_THROUGH_AT_MOST", 3)
    assert "This store cannot list these sessions cheaply." in admin_of(in_memory, clock).get("/admin?all").text


@pytest.mark.parametrize(("path", "most"), [("/admin", 4), ("/admin?all", 1), ("/admin?user=ada", 1)])
def test_page_asks_a_bounded_number_of_questions_that_an_index_answers(
    empty_sqlite_url: str, clock: ManualClock, path: str, most: int
) -> None:
    store = SQLAlchemyStore(empty_sqlite_url, clock=clock)
    site = site_with(AdminPage(store, is_root), store, clock, observers=[AuditTrail(store)])
    for _ in range(60):
        Visitor(site).login("ada")
    admin, asked = admin_of(store, clock), []

    def note(*event: Any) -> None:
        asked.append((event[2], event[3]))

    listen(store.engine, "before_cursor_execute", note)
    assert admin.get(path).status_int == 200
    remove(store.engine, "before_cursor_execute", note)
    questions = [one for one in asked if one[0].startswith("SELECT")]
    assert 1 <= len(questions) <= most
    with store.engine.connect() as connection:
        for statement, parameters in questions:
            plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            # The few sweeps that are shown are the last of their table, in the order of its key.
            whole = [step for step in plan if step.startswith("SCAN prism") and "INDEX" not in step]
            assert set(whole) <= {"SCAN prism_sessions_sweeps"}, plan
    store.close()


def test_one_request_ends_a_bounded_number_of_sessions(
    in_memory: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism_wsgi.pages.admin.ENDED_AT_ONCE", 3)
    site = site_with(AdminPage(in_memory, is_root), in_memory, clock)
    for _ in range(5):
        Visitor(site).login("ada")
    admin = admin_of(in_memory, clock)
    admin.get("/admin")
    admin.submit("/admin", all="all", sure="yes")
    assert "3 sessions have ended, and there are more." in admin.get("/admin").text
    assert in_memory.count() == 2


def test_allow_has_to_be_a_function(in_memory: MemoryStore) -> None:
    with pytest.raises(ConfigError, match="allow must be a function"):
        AdminPage(in_memory, True)  # type: ignore[arg-type]
