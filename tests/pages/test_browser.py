"""The pages in a real browser, below a prefix of a site whose own policy is strict too."""

import html
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
import webob

from prism_wsgi import SessionMiddleware, SQLAlchemyStore, get_session
from prism_wsgi.observers.audit import AuditTrail
from prism_wsgi.pages import AdminPage, DevicesPage, TimeLeft
from prism_wsgi.stores.base import SweepRun
from tests.support.chromium import ENTER, SCREENS, TAB, Device, Devices, need_axe
from tests.support.keys import SECRET
from tests.support.serving import serving

ATTACK = "<script>document.title='attacked'</script>\" onmouseover=\"x Firefox/145"
DEVICES, ADMIN, LIST = "/shop/account/devices", "/shop/admin", "/shop/admin?user=<b>ada"
NAMES = {DEVICES: "devices", ADMIN: "admin", LIST: "list"}
BACKGROUNDS = {"light": "rgb(246, 246, 249)", "dark": "rgb(20, 20, 27)"}


def shop(store: SQLAlchemyStore) -> WSGIApplication:
    """Return a site with all pages below a prefix, whose own policy is strict too."""
    pages: dict[str, WSGIApplication] = {
        "/account/devices": DevicesPage(login_url="../login?user=ada"),
        "/admin": AdminPage(store, lambda environ: get_session(environ).user is not None),
        "/time-left": TimeLeft(warn_before=600),
    }

    def routes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def strictly(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            policy = ("Content-Security-Policy", "default-src 'self'; script-src 'self'")
            return start_response(status, [*headers, policy], *more)

        request = webob.Request(environ)
        if request.path_info_pop() != "shop":  # /favicon.ico
            return webob.Response(status=204)(environ, start_response)
        page = pages.get(request.path_info)
        if page is not None:
            return page(environ, strictly)
        session = get_session(environ)
        if request.path_info == "/login":
            session.login(request.GET["user"], ttl=int(request.GET.get("ttl", "3600")))
        user = html.escape(session.user or "nobody")
        body = f"""<!doctype html><html lang="en"><title>Shop</title><p id="user">{user}</p>
            <script src="time-left?file=time_left.js" defer></script></html>"""
        return webob.Response(body, charset="UTF-8")(environ, strictly)

    trail = AuditTrail(store)
    return SessionMiddleware(routes, store=store, secret=SECRET, secure=False, record_client=True, observers=[trail])


@pytest.fixture(scope="module")
def site_address(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site on SQLite, with a sweep in the past: every part of the administrator's page has something to show."""
    database = shutil.copy(_sqlite_template, tmp_path_factory.mktemp("shop"))
    store = SQLAlchemyStore(f"sqlite:///{database}")
    store.add_sweep(SweepRun(1_700_000_000_000, 1_700_000_002_500, 4821, "complete", "web-1"))
    with serving(shop(store), has_threads=True) as address:
        yield address
    store.close()


def log_in(device: Device, user: str = "ada", ttl: int = 3600) -> Device:
    device.get(f"/shop/login?user={user}&ttl={ttl}")
    assert user_of(device) == user
    return device


def user_of(device: Device) -> str:
    return str(device.get("/shop/").find("#user").text)


def test_user_logs_out_another_device_with_the_keyboard_and_without_javascript(device: Devices) -> None:
    phone, desk = log_in(device()), log_in(device(has_scripts=False))
    desk.get(DEVICES)
    assert len(desk.find_all(".device")) == 2
    desk.press(TAB)
    button = desk.driver.switch_to.active_element
    assert (button.tag_name, button.get_attribute("name")) == ("button", "end")
    with desk.next_page():
        desk.press(ENTER)
    assert "The device is logged out." in desk.text
    assert desk.driver.current_url == f"{desk.address}{DEVICES}?done"
    assert len(desk.find_all(".device")) == 1
    assert (user_of(phone), user_of(desk)) == ("nobody", "ada")


def test_user_logs_out_all_other_devices_at_once(device: Devices) -> None:
    phone, desk = log_in(device(), "edsger"), log_in(device(), "edsger")
    desk.get(DEVICES).submit("[name=others]")
    assert "1 other device is logged out." in desk.text
    assert (user_of(phone), user_of(desk)) == ("nobody", "edsger")


def test_administrator_ends_a_users_sessions_without_javascript(device: Devices) -> None:
    grace, root = log_in(device(), "grace"), log_in(device(has_scripts=False), "root")
    root.get(ADMIN).fill("[name=user]", "grace")
    root.submit("[name=user] + button, label:has([name=user]) + button")
    root.submit("[name=end_user]")
    assert "1 session has ended." in root.text
    assert (user_of(grace), user_of(root)) == ("nobody", "root")


def test_form_with_a_wrong_csrf_token_is_refused_and_ends_nothing(device: Devices) -> None:
    phone, desk = log_in(device(), "barbara"), log_in(device(), "barbara")
    desk.get(DEVICES).run("document.querySelector('[name=csrf_token]').value = '0'.repeat(64)")
    desk.submit("[name=end]")
    assert "Nothing was changed, because this form is out of date." in desk.text
    assert user_of(phone) == "barbara"


def test_id_of_another_users_session_is_refused(device: Devices) -> None:
    victim, _, attacker = log_in(device(), "ken"), log_in(device(), "mallory"), log_in(device(), "mallory")
    theirs = victim.get(f"{ADMIN}?user=ken").find("a.short").get_attribute("textContent")
    attacker.get(DEVICES).run("document.querySelector('[name=end]').value = arguments[0]", theirs)
    attacker.submit("[name=end]")
    assert "That device was not logged in any more." in attacker.text
    assert user_of(victim) == "ken"


@pytest.mark.parametrize("path", NAMES, ids=NAMES.get)
def test_page_fits_each_screen_in_light_and_dark_and_runs_no_attack(device: Devices, path: str) -> None:
    log_in(device(ATTACK), "<b>ada")
    page = log_in(device(ATTACK), "<b>ada")
    for width, scheme in SCREENS:
        page.look(width, scheme)
        page.get(path)
        page.keep_picture(f"{NAMES[path]}-{scheme}-{width}")
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run("return getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[scheme]
    assert "<b>ada" in page.text or path == ADMIN
    assert "attacked" not in page.driver.title
    assert page.messages() == []


@pytest.mark.parametrize("path", NAMES, ids=NAMES.get)
def test_page_is_accessible_on_each_screen_in_light_and_dark(device: Devices, path: str) -> None:
    need_axe()
    log_in(device(), "<b>ada")
    page = log_in(device(), "<b>ada").get(path)
    for width, scheme in SCREENS:
        page.look(width, scheme)
        assert page.violations() == []


def test_visitor_is_warned_before_the_session_ends_and_may_stay(device: Devices) -> None:
    page = log_in(device(), ttl=590)
    page.wait_for("minutes, unless you go on.")
    assert page.find(".prism-time-left").get_attribute("role") == "alert"
    page.click(".prism-time-left button")
    # This login never has the ten minutes left at which it warns, so that staying cannot help.
    page.wait_for("Save your work.")


def test_warning_before_the_session_ends_is_accessible_on_each_screen(device: Devices) -> None:
    need_axe()
    page = log_in(device(), ttl=590)
    page.wait_for("Stay logged in")
    for width, scheme in SCREENS:
        page.look(width, scheme)
        assert page.violations() == []


def test_visitor_whose_session_has_ended_is_told_so(device: Devices) -> None:
    page = log_in(device(), ttl=1)
    page.wait_for("You are logged out.")
