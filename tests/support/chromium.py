"""A real browser for the tests: Chromium, without a window, and what axe-core says of a page.

One browser serves all tests of a process. A device is a tab under a host name of its own, so that it has cookies of
its own: Chromium looks for every name below `localhost` on this machine.
"""

import os
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import unavailable
from tests.support.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("PRISM_TEST_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SCREENS = [(width, scheme) for scheme in ("light", "dark") for width in (360, 1280)]
FLAGS = (
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

TAB, ENTER = "\ue004", "\ue007"  # as WebDriver names the keys

_numbers = count()


class Device:
    """A tab with cookies of its own, and the site that it visits."""

    def __init__(self, driver: Any, address: str, user_agent: str | None = None, *, has_scripts: bool = True) -> None:
        self._driver = driver
        self._host = f"device-{next(_numbers)}.localhost"
        self.address = address.replace("localhost", self._host)
        driver.switch_to.new_window("tab")
        self._tab = driver.current_window_handle
        if user_agent is not None:
            self.command("Emulation.setUserAgentOverride", userAgent=user_agent)
        if not has_scripts:
            self.command("Emulation.setScriptExecutionDisabled", value=True)

    @property
    def driver(self) -> Any:
        """Selenium's driver, with this device in front."""
        self._driver.switch_to.window(self._tab)
        return self._driver

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def get(self, path: str) -> "Device":
        self.driver.get(self.address + path)
        return self

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.run("return document.body.innerText"))  # one step: an element may go stale before it is read

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def fill(self, selector: str, value: str) -> None:
        self.find(selector).send_keys(value)

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def submit(self, selector: str) -> None:
        """Click what leads to another page, and wait for that."""
        with self.next_page():
            self.click(selector)

    @contextmanager
    def next_page(self) -> Iterator[None]:
        """Wait until the next page is there, which the block asks for."""
        before = self._page()
        yield
        eventually(lambda: self._page() not in (None, before), "the page stayed")

    def _page(self) -> float | None:
        """Return when this page began, which no other page has in common with it; None while it changes."""
        from selenium.common.exceptions import WebDriverException

        try:
            found: float | None = self.run(
                "return document.readyState === 'complete' ? performance.timeOrigin : null"
            )
        except WebDriverException:
            return None
        return found

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, text: str) -> None:
        """Wait until the page says something, which a script may put there, or the next page."""
        from selenium.common.exceptions import WebDriverException

        def is_there() -> bool:
            try:
                return text in self.text
            except WebDriverException:  # in the middle of a change
                return False

        eventually(is_there, lambda: self.text)

    def look(self, width: int, scheme: str) -> None:
        """Give the device a screen."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **screen)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def messages(self) -> list[str]:
        """What the browser complains of on this device."""
        return [entry["message"] for entry in self.driver.get_log("browser") if self._host in entry["message"]]

    def keep_picture(self, name: str) -> None:
        """Save a picture of the whole page where PRISM_TEST_PICTURES says, for a person to look at."""
        if directory := os.environ.get("PRISM_TEST_PICTURES"):
            taken = self.command("Page.captureScreenshot", captureBeyondViewport=True)
            Path(directory, f"{name}.png").write_bytes(b64decode(taken["data"]))

    def violations(self) -> list[Any]:
        """Return what breaks WCAG 2.2 AA on the page, by axe-core."""
        if not self.run("return 'axe' in window"):
            self.command("Runtime.evaluate", expression=AXE.read_text())  # whatever the page's policy is
        found: list[Any] = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {runOnly: arguments[0], resultTypes: ['violations']})"
            ".then(found => done(found.violations.map(one => [one.id, one.nodes.map(node => node.html)])))",
            RULES,
        )
        return found


Devices = Callable[..., Device]


def need_axe() -> None:
    if not AXE.exists():
        unavailable("axe", f"{AXE} is not there: npm install --no-save --prefix . axe-core")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Selenium's driver of a Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium here")
    program, driver_program = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver_program):
        unavailable("chromium", "chromium and chromedriver are not both installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1280,900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    try:
        driver.set_script_timeout(PATIENCE)
        driver.set_page_load_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def device(chromium: Any, site_address: str) -> Iterator[Devices]:
    """What makes a new device, which visits the site that the module serves as `site_address`."""
    first = chromium.current_window_handle
    made: list[Device] = []

    def new_device(user_agent: str | None = None, *, has_scripts: bool = True) -> Device:
        made.append(Device(chromium, site_address, user_agent, has_scripts=has_scripts))
        return made[-1]

    yield new_device
    for one in made:
        one.driver.close()
        chromium.switch_to.window(first)
