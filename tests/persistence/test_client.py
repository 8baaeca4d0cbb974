"""The device that uses a session: recorded where that is asked for, and nowhere else."""

import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from prism_wsgi import Client, Session, SessionStore, StoredSession
from prism_wsgi.persistence.client import unpack_client
from tests.support.browsing import Browser, Clock, Site, ThreeVerbStore, read, write
from tests.support.keys import ENCRYPTION_KEY

pytest_plugins = ["tests.support.site_fixtures"]

PHONE: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Phone/1.0"}
LAPTOP: dict[str, Any] = {"REMOTE_ADDR": "2001:db8::1", "HTTP_USER_AGENT": "Laptop/2.0"}


@pytest.fixture
def site(store: ThreeVerbStore, clock: Clock) -> Site:
    return Site(store, clock, record_client=True, ttl=3600)


def now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now, UTC)


def recorded(browser: Browser, **environ: Any) -> Client | None:
    """What a visit finds recorded before it is itself."""
    client: Client | None = browser.visit(lambda session: session.client, **environ).result
    return client


def row_of(browser: Browser) -> StoredSession:
    store = browser.site.store
    assert isinstance(store, ThreeVerbStore)
    row: StoredSession | None = store.store.load(browser.visit(lambda session: session.id).result)
    assert row is not None
    return row


def test_address_and_user_agent_are_not_recorded_by_default(store: ThreeVerbStore, clock: Clock) -> None:
    browser = Site(store, clock).browser()
    browser.visit(lambda session: session.login("ann"), **PHONE)
    browser.visit(write(n=1), **PHONE)
    assert recorded(browser, **PHONE) is None
    data = row_of(browser).data
    assert not any(value.encode() in data for value in PHONE.values())


@pytest.mark.parametrize("record_client", [False, True])
def test_every_store_has_the_device_in_its_columns_where_that_is_asked_for_and_nowhere_else(
    every_store: SessionStore, manual_clock: Any, record_client: bool
) -> None:
    browser = Site(every_store, manual_clock, record_client=record_client, ttl=3600).browser()
    browser.visit(lambda session: session.login("ann"), **PHONE)
    manual_clock.advance(600)
    page = browser.visit(lambda session: (session.id, session.user), **LAPTOP)  # recorded with its use
    row = every_store.load(page.result[0])
    assert row is not None
    kept = ("2001:db8::1", "Laptop/2.0") if record_client else (None, None)
    assert (row.client_address, row.user_agent, row.last_seen_at) == (*kept, int(manual_clock() * 1000))
    devices = [value.encode() for device in (PHONE, LAPTOP) for value in device.values()]
    assert not any(value in row.data for value in devices)


def test_the_address_is_the_one_that_the_application_has_found_by_the_end(
    store: ThreeVerbStore, clock: Clock
) -> None:
    """Werkzeug's ProxyFix may stand inside the middleware or outside of it."""
    site = Site(store, clock, record_client=True)
    inner = site.middleware.app

    def proxy_fix(environ: Any, start_response: Any) -> Any:
        environ["REMOTE_ADDR"] = environ["HTTP_X_FORWARDED_FOR"]
        return inner(environ, start_response)

    browser = site.browser()
    site.middleware.app = proxy_fix
    browser.visit(write(n=1), REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.7")
    client = recorded(browser, HTTP_X_FORWARDED_FOR="192.0.2.7")
    assert client is not None
    assert client.address == "192.0.2.7"


def test_the_site_may_say_where_the_address_is(store: ThreeVerbStore, clock: Clock) -> None:
    site = Site(store, clock, record_client=True, client_address=lambda environ: environ.get("HTTP_X_REAL_IP"))
    browser = site.browser()
    browser.visit(write(n=1), REMOTE_ADDR="10.0.0.1", HTTP_X_REAL_IP="192.0.2.7")
    client = recorded(browser)
    assert client is not None
    assert client.address == "192.0.2.7"


def test_login_records_who_made_it(site: Site) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.login("ann"), **PHONE)
    assert recorded(browser, **PHONE) == Client("192.0.2.7", "Phone/1.0", now(site.clock))


def test_a_visitor_who_writes_nothing_is_not_recorded(site: Site) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.get("n"), **PHONE)
    browser.visit(lambda session: session.client, **PHONE)
    assert "save" not in site.calls


def test_a_write_records_who_made_it(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    site.clock.advance(5)
    browser.visit(write(n=2), **LAPTOP)
    assert recorded(browser) == Client("2001:db8::1", "Laptop/2.0", now(site.clock))


def test_reading_records_who_does_once_a_touch_interval(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    first = now(site.clock)
    site.clock.advance(300)
    browser.visit(read("n"), **LAPTOP)
    assert recorded(browser, **LAPTOP) == Client("192.0.2.7", "Phone/1.0", first)
    site.clock.advance(300)
    page = browser.visit(read("n"), **LAPTOP)
    assert page.cookies
    assert recorded(browser) == Client("2001:db8::1", "Laptop/2.0", now(site.clock))
    assert browser.visit(read("n")).result == 1
    assert site.calls.count("save") + site.calls.count("touch") == 2


def test_two_readers_at_once_are_recorded_once(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    header = browser.cookie_header
    site.clock.advance(600)
    browser.visit(read("n"), **PHONE)
    site.calls.clear()
    assert site.browser().visit(read("n"), HTTP_COOKIE=header, **LAPTOP).cookies
    assert site.calls == ["load"]
    assert recorded(browser) == Client("192.0.2.7", "Phone/1.0", now(site.clock))


def test_a_session_from_before_the_setting_is_recorded_by_its_next_reader(
    store: ThreeVerbStore, clock: Clock
) -> None:
    browser = Site(store, clock, ttl=3600).browser()
    browser.visit(write(n=1), **PHONE)
    clock.advance(600)
    browser.site = Site(store, clock, record_client=True, ttl=3600)
    assert browser.visit(read("n"), **LAPTOP).status == 200
    assert recorded(browser) == Client("2001:db8::1", "Laptop/2.0", now(clock))


def test_recorded_use_prolongs_the_session(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    for _ in range(5):
        site.clock.advance(3000)
        assert browser.visit(read("n"), **PHONE).result == 1


def test_recording_brings_no_ended_session_back(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    site.clock.advance(1000)
    row = row_of(browser)
    site.clock.advance(1000)

    def end_meanwhile(session: Session) -> None:
        session.get("n")
        assert isinstance(site.store, ThreeVerbStore)
        site.store.store.destroy(row.id)

    page = browser.visit(end_meanwhile, **LAPTOP)
    assert page.cookies == {}
    assert site.middleware.site.adapter.peek(row.id) is None


def test_what_was_recorded_goes_with_the_next_write_when_the_setting_is_off(
    site: Site, store: ThreeVerbStore, clock: Clock
) -> None:
    browser = site.browser()
    browser.visit(write(n=1), **PHONE)
    browser.site = Site(store, clock)
    assert recorded(browser) is not None
    browser.visit(write(n=2), **LAPTOP)
    assert recorded(browser) is None
    assert row_of(browser).user_agent is None


def test_recording_makes_no_session_too_large(store: ThreeVerbStore, clock: Clock) -> None:
    site = Site(store, clock, record_client=True, max_size=120)
    browser = site.browser()
    browser.visit(write(n="x" * 80), REMOTE_ADDR="192.0.2.7", HTTP_USER_AGENT="Phone" * 40)
    assert recorded(browser) is not None


@pytest.mark.parametrize(
    ("environ", "address", "user_agent"),
    [
        ({}, "127.0.0.1", ""),
        ({"REMOTE_ADDR": "", "HTTP_USER_AGENT": ""}, "", ""),
        ({"HTTP_X_FORWARDED_FOR": "203.0.113.1", "REMOTE_ADDR": "192.0.2.7"}, "192.0.2.7", ""),
        ({"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "a\x00b\x85c\x1b[31m" + "x" * 1000}, "192.0.2.7", None),
    ],
    ids=["no user agent", "nothing", "forwarded", "hostile"],
)
def test_only_what_the_server_says_is_recorded_and_never_control_characters(
    site: Site, environ: dict[str, Any], address: str, user_agent: str | None
) -> None:
    browser = site.browser()
    environ.setdefault("REMOTE_ADDR", "127.0.0.1")
    browser.visit(write(n=1), **environ)
    client = recorded(browser)
    assert client is not None
    assert client.address == address
    assert client.user_agent.isprintable()
    assert len(client.user_agent) <= 256
    if user_agent is not None:
        assert client.user_agent == user_agent


@pytest.mark.parametrize(
    "settings",
    [{"record_client": True}, {"record_client": "readable", "encryption_key": ENCRYPTION_KEY}],
    ids=["plain", "encrypted"],
)
def test_a_user_sees_the_devices_of_all_own_sessions(
    store: ThreeVerbStore, clock: Clock, settings: dict[str, Any]
) -> None:
    site = Site(store, clock, **settings)
    phone, laptop = site.browser(), site.browser()
    for browser, environ in ((phone, PHONE), (laptop, LAPTOP)):
        browser.visit(lambda session: session.login("ann"), **environ)
    rows = [row_of(browser) for browser in (phone, laptop)]
    clients = phone.visit(lambda session: [session.client_of(row) for row in rows], **PHONE).result
    assert [client.address for client in clients] == ["192.0.2.7", "2001:db8::1"]


def test_the_device_of_another_session_is_known_though_that_is_encrypted_with_its_cookie(
    store: ThreeVerbStore, clock: Clock
) -> None:
    site = Site(store, clock, record_client="readable", encryption_key=ENCRYPTION_KEY, encryption="cookie")
    phone, laptop = site.browser(), site.browser()
    phone.visit(write(n=1), **PHONE)
    laptop.visit(write(n=1), **LAPTOP)
    row = row_of(laptop)
    assert phone.visit(lambda session: session.client_of(row)).result.address == "2001:db8::1"
    assert recorded(laptop) == Client("2001:db8::1", "Laptop/2.0", now(clock))


def packed(address: str, user_agent: str, last_seen: int) -> bytes:
    """A client as earlier releases wrote it into a session's data."""
    parts = address.encode(), user_agent.encode()
    return struct.pack(">QHH", last_seen, *map(len, parts)) + b"".join(parts)


def test_a_client_in_the_data_of_an_earlier_release_is_read_and_never_when_cut() -> None:
    data = packed("192.0.2.7", "Ünïcödé", 1_893_553_445_678)
    assert unpack_client(data + b"rest") == (1_893_553_445_678, "192.0.2.7", "Ünïcödé", b"rest")
    assert unpack_client(packed("", "", 1))[3] == b""
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"client|decode"):
            unpack_client(data[:length])


def test_a_session_of_an_earlier_release_keeps_its_client_and_is_not_saved_for_being_read(
    store: ThreeVerbStore, clock: Clock
) -> None:
    site = Site(store, clock)
    browser = site.browser()
    browser.visit(write(cart=["apple"]))
    row = row_of(browser)
    row.data = b"\x03" + bytes(13) + packed("192.0.2.7", "Phone/1.0", int(clock.now * 1000)) + row.data[1:]
    store.store.save(row)
    site.calls.clear()
    assert browser.visit(lambda session: (session["cart"], session.client)).result == (
        ["apple"],
        Client("192.0.2.7", "Phone/1.0", now(clock)),
    )
    assert site.calls == ["load"]
