"""The demo in a real browser."""

from collections.abc import Iterator
from threading import Barrier, Event

import pytest

from prism_wsgi import MemoryStore
from prism_wsgi.cli.demo import race, site
from tests.support.chromium import ENTER, SCREENS, TAB, Device, Devices, need_axe
from tests.support.keys import SECRET
from tests.support.serving import serving
from tests.support.waiting import PATIENCE, eventually

ATTACK = "<script>document.title='attacked'"


@pytest.fixture(scope="module")
def demo() -> site.DemoSite:
    return site.DemoSite(MemoryStore(ttl=10**8), SECRET)


@pytest.fixture(scope="module")
def site_address(demo: site.DemoSite) -> Iterator[str]:
    with serving(demo, has_threads=True) as address:
        yield address


def log_in(device: Device, name: str = "Ada", stay: str = "browser") -> Device:
    device.get("/").fill("[name=name]", name)
    device.click(f"[value={stay}]")
    device.submit("form[action=login] button")
    assert f"You are {name}." in device.text
    return device


def test_six_requests_at_once_lose_nothing_where_a_session_written_whole_loses_five(
    device: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All six have read before one writes, however slow this machine is.
    monkeypatch.setattr(race, "work", Barrier(6).wait)
    page = device().get("/race")
    page.submit("#race button")
    assert "6 of 6 writes kept" in page.text
    assert "1 of 6 writes kept" in page.text
    assert len(page.find_all(".lost")) == 5


def test_user_who_logs_out_elsewhere_is_logged_out_on_the_other_device(device: Devices) -> None:
    phone, desk = log_in(device()), log_in(device())
    desk.submit("form[action=logout-elsewhere] button")
    assert "Other sessions that have ended: 1" in desk.text
    assert "You are" not in phone.get("/").text


def test_user_who_logs_out_elsewhere_wins_over_a_request_that_writes_later(
    device: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_write = Event(), Event()

    def work(seconds: float) -> None:
        has_begun.set()
        assert may_write.wait(PATIENCE)

    monkeypatch.setattr(race, "work", work)
    phone, desk = log_in(device(), "Grace").get("/race"), log_in(device(), "Grace")
    phone.run("setTimeout(() => document.querySelector('form[action=\"race/slow\"] button').click())")
    assert has_begun.wait(PATIENCE)
    desk.submit("form[action=logout-elsewhere] button")
    assert "Other sessions that have ended: 1" in desk.text
    may_write.set()
    phone.wait_for("Nobody is logged in in this browser.")


def test_id_that_the_store_knows_opens_nothing_and_neither_does_a_cookie_after_logout(device: Devices) -> None:
    page = log_in(device()).get("/theft")
    page.submit("form[action='theft/id'] button")
    assert "The id opens: nobody. The cookie opens: Ada." in page.text
    page.submit("form[action='theft/logout'] button")
    assert "Before you logged out, the cookie opened: Ada. Now it opens: nobody." in page.text


def test_remembered_login_gets_a_cookie_that_outlives_the_browser_and_another_does_not(device: Devices) -> None:
    for stay, said in (("remember", "30 days without use, and outlives"), ("browser", "60 minutes without use, or")):
        page = log_in(device(), stay=stay)
        assert said in page.text
        assert ("expiry" in page.driver.get_cookie(site.COOKIE_NAME)) == (stay == "remember")


def test_visitor_is_warned_before_their_login_ends_and_stays(
    device: Devices, demo: site.DemoSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo._ready_pages["/time-left"], "_warn_before", 89)
    page = log_in(device(), stay="short")
    page.wait_for("You will be logged out in 2 minutes, unless you go on.")
    monkeypatch.setattr(demo._ready_pages["/time-left"], "_warn_before", 10)
    page.click(".prism-time-left button")
    eventually(lambda: not page.find_all(".prism-time-left"), lambda: page.text)
    assert "You are Ada." in page.get("/").text


def test_visitor_buys_with_the_keyboard_and_without_javascript(device: Devices) -> None:
    page = device(has_scripts=False).get("/")
    for _ in range(10):
        page.press(TAB)
        if page.driver.switch_to.active_element.get_attribute("value") == "lens":
            break
    with page.next_page():
        page.press(ENTER)
    assert "1 \u00d7 Lens" in page.text
    assert "this browser runs none" in page.get("/race").text


@pytest.mark.parametrize("path", ["/", "/race", "/theft", "/devices", "/admin"])
def test_page_fits_each_screen_in_light_and_dark_and_breaks_no_policy(device: Devices, path: str) -> None:
    page = log_in(device(user_agent=ATTACK), ATTACK)
    page.submit("[value=lens]")
    for width, scheme in SCREENS:
        page.look(width, scheme)
        page.get(path)
        if path == "/race":
            page.submit("#race button")
            assert "6 of 6 writes kept" in page.text
        page.keep_picture(f"demo-{path.strip('/') or 'shop'}-{scheme}-{width}")
        assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run("return document.title") != "attacked"
    assert page.messages() == []


@pytest.mark.parametrize("path", ["/", "/race", "/theft", "/devices", "/admin"])
def test_page_of_the_demo_is_accessible(device: Devices, path: str) -> None:
    need_axe()
    page = log_in(device())
    page.get(path)
    for width, scheme in SCREENS:
        page.look(width, scheme)
        assert page.violations() == []
