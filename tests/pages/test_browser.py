"""The pages in a real browser: Chromium, without a window."""

import html
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
import webob

from prism_wsgi import MemoryStore, SessionMiddleware, get_session
from prism_wsgi.pages import AdminPage, DevicesPage, TimeLeft
from tests.support.keys import SECRET
from tests.support.waiting import eventually

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = os.environ.get("PRISM_AXE")  # the path of axe.min.js, from the npm package axe-core
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium and chromedriver here"),
    pytest.mark.timeout(600),
]
webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium here")

Driver = Any


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def shop(store: MemoryStore) -> WSGIApplication:
    """Return a site with all pages below a prefix, whose own policy is strict too."""
    pages: dict[str, WSGIApplication] = {
        "/account/devices": DevicesPage(login_url="../login?user=ada"),
        "/admin": AdminPage(store, lambda environ: get_session(environ).user is not None),
        "/time-left": TimeLeft(warn_before=30),
    }

    def routes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = webob.Request(environ)
        if request.path_info_pop() != "shop":  # /favicon.ico
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        page = pages.get(request.path_info)
        if page is not None:

            def strictly(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                policy = ("Content-Security-Policy", "default-src 'self'; script-src 'self'")
                return start_response(status, [*headers, policy], *more)

            return page(environ, strictly)
        if request.path_info == "/login":
            get_session(environ).login(request.GET["user"], ttl=int(request.GET.get("ttl", "3600")))
        user = get_session(environ).user or "nobody"
        body = f"""<!doctype html><html lang="en"><title>Shop</title><p id="user">{html.escape(user)}</p>
            <script src="time-left?file=time_left.js" defer></script></html>"""
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [body.encode()]

    return SessionMiddleware(routes, store=store, secret=SECRET, secure=False, record_client=True)


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore(ttl=10**8)


@pytest.fixture(scope="module")
def address(store: MemoryStore) -> Iterator[str]:
    with make_server("127.0.0.1", 0, shop(store), server_class=_Server, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/shop"
        server.shutdown()
        thread.join()


@contextmanager
def browser(profile: Path, *, has_javascript: bool, user_agent: str | None = None) -> Iterator[Driver]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(flag)
    if user_agent:
        options.add_argument(f"--user-agent={user_agent}")
    if not has_javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser without JavaScript."""
    with browser(tmp_path_factory.mktemp("desk"), has_javascript=False) as driver:
        yield driver


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser with JavaScript, whose user agent is an attack."""
    agent = "<script>document.title='attacked'</script>\" onmouseover=\"x Firefox/145"
    with browser(tmp_path_factory.mktemp("phone"), has_javascript=True, user_agent=agent) as driver:
        yield driver


def log_in(driver: Driver, address: str, user: str = "ada", ttl: int = 3600) -> None:
    driver.get(f"{address}/login?user={user}&ttl={ttl}")
    assert user_of(driver, address) == user.replace("%3C", "<").replace("%3E", ">")


def user_of(driver: Driver, address: str) -> str:
    driver.get(f"{address}/")
    return str(driver.find_element("id", "user").text)


def look(driver: Driver, *, width: int, scheme: str) -> None:
    """Give the browser a screen."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme_is = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_is)


def keep_picture(driver: Driver, name: str) -> None:
    """Save a screenshot where PRISM_PICTURES says, for a person to look at."""
    if directory := os.environ.get("PRISM_PICTURES"):
        driver.save_screenshot(str(Path(directory) / f"{name}.png"))


def test_user_logs_out_another_device_with_the_keyboard_and_without_javascript(
    desk: Driver, phone: Driver, address: str
) -> None:
    for driver in (phone, desk):
        log_in(driver, address)
    desk.get(f"{address}/account/devices")
    assert len(desk.find_elements("css selector", ".device")) == 2
    keys = webdriver.ActionChains(desk)
    keys.send_keys(webdriver.Keys.TAB).perform()
    focused = desk.switch_to.active_element
    assert (focused.tag_name, focused.get_attribute("name")) == ("button", "end")
    keys.reset_actions()
    keys.send_keys(webdriver.Keys.ENTER).perform()
    eventually(lambda: "The device is logged out." in desk.page_source, lambda: desk.page_source)
    assert desk.current_url == f"{address}/account/devices?done"
    assert len(desk.find_elements("css selector", ".device")) == 1
    assert user_of(phone, address) == "nobody"
    assert user_of(desk, address) == "ada"


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["account/devices", "admin", "admin?all"])
def test_page_fits_its_screen_runs_no_attack_and_is_accessible(
    desk: Driver, phone: Driver, address: str, store: MemoryStore, path: str, scheme: str, width: int
) -> None:
    for driver in (desk, phone):
        log_in(driver, address, "%3Cb%3Eada")
    look(phone, width=width, scheme=scheme)
    phone.get(f"{address}/{path}")
    keep_picture(phone, f"{path.replace('/', '-').replace('?', '-')}-{scheme}-{width}")
    page = phone.find_element("css selector", "main")
    assert "attacked" not in phone.title
    assert "<b>ada" in page.text or path == "admin"
    assert phone.execute_script("return document.documentElement.scrollWidth") <= width
    background = page.parent.find_element("css selector", "body").value_of_css_property("background-color")
    assert background == ("rgba(20, 20, 27, 1)" if scheme == "dark" else "rgba(246, 246, 249, 1)")
    messages = [entry["message"] for entry in phone.get_log("browser")]
    assert [one for one in messages if "favicon" not in one] == []
    if AXE:
        phone.execute_cdp_cmd("Runtime.evaluate", {"expression": Path(AXE).read_text()})
        found = phone.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
            ".then(found => done(found.violations.map(one => [one.id, one.nodes.map(node => node.html)])))"
        )
        assert found == []


def test_visitor_is_warned_before_the_session_ends_and_may_stay(phone: Driver, address: str) -> None:
    log_in(phone, address, ttl=20)

    def warning() -> str:
        return " ".join(box.text for box in phone.find_elements("css selector", ".prism-time-left[role=alert]"))

    eventually(lambda: "You will be logged out in 1 minute, unless you go on." in warning(), warning)
    phone.find_element("css selector", ".prism-time-left button").click()
    # Twenty seconds are fewer than the thirty at which it warns, so that staying cannot help.
    eventually(lambda: "Save your work." in warning(), warning)
