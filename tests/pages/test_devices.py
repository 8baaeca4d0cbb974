"""DevicesPage over WSGI, on every store."""

from pathlib import Path

import pytest

from prism_wsgi import ConfigError, MemoryStore, SessionStore
from prism_wsgi.pages import DevicesPage, plural
from prism_wsgi.pages.texts import Text
from prism_wsgi.testing import ManualClock
from tests.support.page_visits import FIREFOX, IPHONE, Visitor, site_with

ATTACK = "<script>alert('1')</script>\"&"


@pytest.fixture
def page(clock: ManualClock) -> DevicesPage:
    return DevicesPage(clock=clock)


@pytest.fixture
def two(store: SessionStore, clock: ManualClock, page: DevicesPage) -> tuple[Visitor, Visitor]:
    """A desk and a phone of one user."""
    site = site_with(page, store, clock)
    desk, phone = Visitor(site, FIREFOX), Visitor(site, IPHONE, "198.51.100.9")
    for one in (phone, desk):
        one.login("ada")
    return desk, phone


@pytest.fixture
def in_memory(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock, ttl=10**8)


def test_page_names_each_device_with_address_and_last_use(two: tuple[Visitor, Visitor], clock: ManualClock) -> None:
    desk, _ = two
    clock.advance(290)
    page = desk.get("/devices").text
    for shown in ("Firefox on Linux", "192.0.2.7", "Mobile Safari on iOS", "198.51.100.9", "4 minutes ago"):
        assert shown in page
    assert page.index("This device") < page.index("Mobile Safari on iOS")
    assert page.count("This device") == 1


def test_user_ends_another_device_and_it_is_logged_out(two: tuple[Visitor, Visitor]) -> None:
    desk, phone = two
    desk.get("/devices")
    (session_id,) = desk.values("end")
    assert desk.submit("/devices", end=session_id).status_int == 303
    assert phone.user == "nobody"
    assert desk.user == "ada"
    assert "The device is logged out." in desk.get("/devices?done").text
    assert "The device is logged out." not in desk.get("/devices").text


def test_user_ends_all_other_devices(two: tuple[Visitor, Visitor], store: SessionStore) -> None:
    desk, phone = two
    desk.get("/devices")
    assert desk.submit("/devices", others="all").status_int == 303
    assert phone.user == "nobody"
    page = desk.get("/devices").text
    assert "1 other device is logged out." in page
    assert "You are logged in nowhere else." in page


def test_session_of_another_user_is_left_alone(
    two: tuple[Visitor, Visitor], store: SessionStore, clock: ManualClock, page: DevicesPage
) -> None:
    desk, _ = two
    mallory = Visitor(site_with(page, store, clock))
    mallory.login("mallory")
    desk.get("/devices")
    (session_id,) = desk.values("end")
    mallory.get("/devices")
    assert mallory.submit("/devices", end=session_id).status_int == 303
    assert "That device was not logged in any more." in mallory.get("/devices").text
    desk.get("/devices")
    assert desk.values("end") == [session_id]


@pytest.mark.parametrize("session_id", ["", "\0", "0" * 64, "F" * 64, "ä" * 300])
def test_id_of_no_session_ends_nothing(two: tuple[Visitor, Visitor], session_id: str) -> None:
    desk, phone = two
    desk.get("/devices")
    assert desk.submit("/devices", end=session_id).status_int == 303
    assert "That device was not logged in any more." in desk.get("/devices").text
    assert phone.user == "ada"


@pytest.mark.parametrize("token", ["", "f" * 64, "ä"])
def test_form_without_the_right_token_ends_nothing(two: tuple[Visitor, Visitor], token: str) -> None:
    desk, phone = two
    desk.get("/devices")
    (session_id,) = desk.values("end")
    answer = desk.post("/devices", csrf_token=token, end=session_id)
    assert answer.status_int == 403
    assert "this form is out of date" in answer.text
    assert phone.user == "ada"


def test_stale_login_may_look_and_has_to_log_in_again_to_end_a_device(
    two: tuple[Visitor, Visitor], clock: ManualClock
) -> None:
    desk, phone = two
    desk.get("/devices")
    (session_id,) = desk.values("end")
    clock.advance(301)
    answer = desk.submit("/devices", end=session_id)
    assert answer.status_int == 403
    assert '<a href="/login">Log in again</a>' in answer.text
    assert desk.values("end") == []
    assert phone.user == "ada"


def test_visitor_who_is_not_logged_in_is_sent_to_the_login(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    visitor = Visitor(site_with(page, in_memory, clock))
    for answer in (visitor.get("/devices"), visitor.post("/devices", others="all")):
        assert answer.status_int == 303
        assert answer.headers["Location"].endswith("/login")


def test_names_that_are_an_attack_are_escaped(in_memory: MemoryStore, clock: ManualClock) -> None:
    site = site_with(DevicesPage(clock=clock), in_memory, clock)
    for agent in (ATTACK, f"Mozilla/5.0 {ATTACK} Firefox/{ATTACK}"):
        visitor = Visitor(site, agent, "<b>192")
        visitor.login(ATTACK)
        page = visitor.get("/devices").text
        assert "<script" not in page
        assert "<b>" not in page
        assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;" in page


def test_user_sees_that_an_administrator_is_in_their_session_but_not_from_where(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    site = site_with(page, in_memory, clock)
    administrator, user = Visitor(site, address="203.0.113.1"), Visitor(site)
    administrator.login("root")
    administrator.get("/impersonate?user=ada")
    user.login("ada")
    seen = user.get("/devices").text
    assert "An administrator, who sees the site as you do" in seen
    assert "root" not in seen
    assert "203.0.113.1" not in seen
    seen = administrator.get("/devices").text
    assert "Only the users themselves can log out their devices." in seen
    assert administrator.values("end") == []


def test_administrators_own_page_names_whom_they_impersonate(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    site = site_with(page, in_memory, clock)
    first, second = Visitor(site), Visitor(site)
    first.login("root")
    second.login("root")
    second.get("/impersonate?user=ada")
    assert "You, seeing the site as <bdi>ada</bdi>" in first.get("/devices").text


def test_devices_without_recorded_clients_are_listed_without_a_name(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    site = site_with(page, in_memory, clock, record_client=False)
    visitor = Visitor(site)
    visitor.login("ada")
    seen = visitor.get("/devices").text
    assert "This site does not record browsers and addresses." in seen
    assert "192.0.2.7" not in seen


def test_more_devices_than_the_page_shows_are_counted(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    site = site_with(page, in_memory, clock)
    for _ in range(103):
        Visitor(site).login("ada")
    visitor = Visitor(site)
    visitor.login("ada")
    assert "3 more devices are not shown." in visitor.get("/devices").text


def test_page_brings_its_stylesheet_and_nothing_from_elsewhere(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    visitor = Visitor(site_with(page, in_memory, clock))
    visitor.login("ada")
    answer = visitor.get("/any/path", base_url="http://localhost/prefix")
    assert "://" not in answer.text
    assert 'href="?file=pages.css&amp;v=' in answer.text
    assert " style=" not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"].startswith("no-store")
    stylesheet = visitor.get("/any/path?file=pages.css", base_url="http://localhost/prefix")
    assert stylesheet.content_type == "text/css"
    assert "Set-Cookie" not in stylesheet.headers


def test_answer_to_a_form_leads_back_to_the_page_below_any_prefix(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    visitor = Visitor(site_with(page, in_memory, clock))
    visitor.login("ada")
    visitor.get("/devices")
    visitor.submit("/devices", others="all")
    assert visitor.sent_location == "?done"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_methods_other_than_get_head_and_post_are_refused(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage, method: str
) -> None:
    answer = Visitor(site_with(page, in_memory, clock)).get("/devices", method=method)
    assert answer.status_int == 405
    assert answer.headers["Allow"] == "GET, HEAD, POST"


def test_form_that_is_too_large_or_broken_is_refused(
    in_memory: MemoryStore, clock: ManualClock, page: DevicesPage
) -> None:
    visitor = Visitor(site_with(page, in_memory, clock))
    visitor.login("ada")
    assert visitor.post("/devices", end="x" * 20_000).status_int == 413
    broken = {"method": "POST", "content_type": "multipart/form-data; boundary=x"}
    file = b'--x\r\nContent-Disposition: form-data; name="end"; filename="f"\r\n\r\nbytes\r\n--x--\r\n'
    assert visitor.get("/devices", body=file, **broken).status_int == 400


def test_sentences_language_and_direction_can_be_replaced(in_memory: MemoryStore, clock: ManualClock) -> None:
    texts: dict[str, Text] = {
        "devices_title": "מחוברים",
        "this_device": "המכשיר הזה",
        "minutes_ago": plural("לפני דקה", "לפני {count} דקות"),
    }
    page = DevicesPage(texts=texts, lang="he", clock=clock)
    visitor = Visitor(site_with(page, in_memory, clock))
    visitor.login("ada")
    clock.advance(60)
    seen = visitor.get("/devices").text
    assert '<html lang="he" dir="rtl">' in seen
    assert "<h1>מחוברים</h1>" in seen
    assert "לפני דקה</time>" in seen


def test_sentence_that_no_page_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="'devices_titel', which no page shows"):
        DevicesPage(texts={"devices_titel": "Devices"})


def test_template_may_replace_one_sentence_of_the_page(
    in_memory: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "devices.html").write_text(
        '{% extends "prism_wsgi/devices.html" %}{% block lead %}<p>Our own words, {{ user }}</p>{% endblock %}'
    )
    page = DevicesPage(templates=tmp_path, clock=clock)
    visitor = Visitor(site_with(page, in_memory, clock))
    visitor.login("<b>ada")
    seen = visitor.get("/devices").text
    assert "<p>Our own words, &lt;b&gt;ada</p>" in seen
    assert "These devices are logged in" not in seen
    assert "<h1>Where you are logged in</h1>" in seen
