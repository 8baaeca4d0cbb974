"""The first visits of one browser: what it gets, what it brings back, and what the store sees of it."""

from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware, SessionTooLarge, StoredSession
from prism_wsgi.serializers import TypedSerializer
from tests.support.browsing import Site, ThreeVerbStore, call, read, write

pytest_plugins = ["tests.support.site_fixtures"]


def test_the_first_response_sets_a_signed_cookie(site: Site) -> None:
    page = site.browser().visit()
    assert list(page.cookies) == ["prism_session"]
    assert page.attributes() == {"max-age": "3600", "path": "/", "secure": "", "httponly": "", "samesite": "Lax"}


def test_the_session_and_its_id_are_in_the_environ_of_the_first_request(site: Site) -> None:
    seen: WSGIEnvironment = {}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    site.browser().request(app)
    assert isinstance(seen["prism.session"], Session)
    assert seen["prism.session_id"] == seen["prism.session"].id
    assert len(bytes.fromhex(seen["prism.session_id"])) == 32


def test_the_second_request_has_the_same_id_and_no_set_cookie(site: Site) -> None:
    browser = site.browser()
    first = browser.visit(lambda session: session.id)
    second = browser.visit(lambda session: session.id)
    assert first.result == second.result
    assert second.all("Set-Cookie") == []


def test_what_one_request_writes_the_next_one_reads(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(cart=["apple"]))
    assert browser.visit(read("cart")).result == ["apple"]


def test_the_id_stays_when_the_first_write_comes_later(site: Site) -> None:
    browser = site.browser()
    first = browser.visit(lambda session: session.id)
    browser.visit(write(n=1))
    assert browser.visit(lambda session: (session.id, session["n"])).result == (first.result, 1)


def test_two_visitors_have_sessions_of_their_own(site: Site) -> None:
    ann, bob = site.browser(), site.browser()
    ann.visit(write(name="Ann"))
    bob.visit(write(name="Bob"))
    assert ann.visit(read("name")).result == "Ann"
    assert bob.visit(read("name")).result == "Bob"


def test_sessions_made_by_themselves_have_ids_of_their_own() -> None:
    assert len({Session().id for _ in range(100)}) == 100


def test_a_session_made_by_itself_is_a_mapping() -> None:
    session = Session()
    session["n"] = 1
    session.flash("hello")
    assert session["n"] == 1
    assert session.pop_flash() == ["hello"]
    session.destroy()
    assert dict(session) == {}


def test_an_invalid_cookie_gets_a_new_session(site: Site) -> None:
    browser = site.browser()
    first = browser.visit(lambda session: session.id)
    forged = site.browser().visit(lambda session: session.id, HTTP_COOKIE="prism_session=not-a-token")
    assert forged.result != first.result
    assert list(forged.cookies) == ["prism_session"]


def test_the_cookie_has_the_configured_name() -> None:
    browser = Site(cookie_name="my_app_session").browser()
    page = browser.visit(write(n=1))
    assert list(page.cookies) == ["my_app_session"]
    assert browser.visit(read("n")).result == 1


@pytest.mark.parametrize("ttl", [1, 60, 7200])
def test_max_age_follows_ttl(ttl: int) -> None:
    assert Site(ttl=ttl).browser().visit().attributes()["max-age"] == str(ttl)
    assert Site(ttl=ttl, cookie_on="write").browser().visit(write(n=1)).attributes()["max-age"] == str(ttl)


# What the store sees of it


def test_an_untouched_session_costs_no_store_call(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    browser.visit()
    site.browser().visit()
    assert site.calls == []


def test_a_read_costs_one_load(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    browser.visit(lambda session: (session["n"], len(session), list(session), session.created_at, session.user))
    assert site.calls == ["load"]


def test_a_write_costs_one_load_and_one_save(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    site.calls.clear()
    browser.visit(write(n=2, m=3))
    assert site.calls == ["load", "save"]


def test_the_first_write_of_a_new_visitor_costs_one_save(site: Site) -> None:
    site.browser().visit(write(n=1))
    assert site.calls == ["save"]


def test_writing_the_same_value_again_saves_nothing(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(cart=[1, 2]))
    site.calls.clear()
    browser.visit(write(cart=[1, 2]))
    assert site.calls == ["load"]


def test_a_change_inside_a_value_is_saved(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(cart={"lines": [1]}))
    browser.visit(lambda session: session["cart"]["lines"].append(2))
    assert browser.visit(read("cart")).result == {"lines": [1, 2]}


def test_a_change_inside_a_value_reached_through_the_views_is_saved(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(a=[1], b=[2]))
    browser.visit(lambda session: [value.append(0) for value in session.values()])
    browser.visit(lambda session: [value.append(9) for _, value in session.items()])
    assert browser.visit(lambda session: dict(session)).result == {"a": [1, 0, 9], "b": [2, 0, 9]}


def test_cookieless_traffic_leaves_no_row(site: Site) -> None:
    for _ in range(50):
        site.browser().visit(read("x"))
        site.browser().visit(Session.logout)
    assert site.calls == []


def test_with_cookie_on_write_a_reader_gets_neither_cookie_nor_row(store: ThreeVerbStore) -> None:
    site = Site(store, cookie_on="write")
    browser = site.browser()
    assert browser.visit(read("n")).all("Set-Cookie") == []
    assert site.calls == []
    assert list(browser.visit(write(n=1)).cookies) == ["prism_session"]
    assert site.calls == ["save"]


def test_a_size_at_the_limit_is_saved_and_one_byte_more_is_not() -> None:
    room = 100
    limit = 1 + len(TypedSerializer().dumps({"blob": b"x" * room}))  # 1 for the format byte
    browser = Site(max_size=limit).browser()
    browser.visit(write(blob=b"x" * room))
    with pytest.raises(SessionTooLarge, match=r"'blob' \(\d+ bytes\)"):
        browser.visit(write(blob=b"y" * (room + 1)))
    assert browser.visit(read("blob")).result == b"x" * room


# The memory store, as the quick start uses it


def test_the_memory_store_saves_loads_misses_and_destroys() -> None:
    store = MemoryStore(clock=lambda: 1.0)
    session = StoredSession("ab" * 32, b"data", 0, 0, 5000)
    assert store.load(session.id) is None
    store.save(session)
    loaded = store.load(session.id)
    assert loaded is not None
    assert (loaded.data, loaded.version) == (b"data", 1)
    store.destroy(session.id)
    assert store.load(session.id) is None
    store.destroy(session.id)


def test_the_quick_start_works() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        session = environ["prism.session"]
        session["visits"] = session.get("visits", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(session["visits"]).encode()]

    application = SessionMiddleware(app, secret="0123456789abcdef0123456789ABCDEF")
    first = call(application)
    second = call(application, HTTP_COOKIE=f"prism_session={first.cookies['prism_session']}")
    assert (first.body, second.body) == (b"1", b"2")


def test_a_session_is_new_until_something_is_stored(site: Site) -> None:
    browser = site.browser()
    for _ in range(2):
        assert browser.visit(lambda session: session.is_new).result is True
    browser.visit(write(n=1))
    assert browser.visit(lambda session: session.is_new).result is False
