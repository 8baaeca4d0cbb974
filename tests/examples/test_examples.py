"""The examples, each served by a process of its own and driven over HTTP."""

import json
import runpy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import SessionStore
from prism_wsgi.testing import StoreContract
from tests.support.served import ROOT, Browser, Page, free_port, served

Visit = Callable[[str], Browser]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Visit]:
    """Serve an example and return a browser pointed at it."""
    with ExitStack() as running:

        def start(name: str) -> Browser:
            program = ROOT / "examples" / f"{name}.py"
            return Browser(running.enter_context(served(program, port=free_port(), cwd=tmp_path)))

        yield start


def body(page: Page) -> Any:
    return json.loads(page.text)


def set_cookie(page: Page) -> str:
    headers = page.headers.get_all("Set-Cookie", [])
    assert len(headers) == 1
    return str(headers[0])


def test_plain_wsgi_remembers_the_last_places_of_each_visitor(serve: Visit) -> None:
    browser = serve("plain_wsgi")
    for number in range(6):
        page = browser.get(f"/{number}")
    assert page.text == "Your last places:\n/1\n/2\n/3\n/4\n/5\n"
    assert Browser(browser.address).get("/new").text == "Your last places:\n/new\n"


def test_plain_wsgi_shows_a_path_of_any_bytes_as_it_came(serve: Visit) -> None:
    assert serve("plain_wsgi").get("/caf%C3%A9").text == "Your last places:\n/café\n"


def test_bottle_keeps_notes_through_login_and_ends_them_with_logout(serve: Visit) -> None:
    browser = serve("bottle_app")
    assert body(browser.get("/")) == {"user": None, "notes": []}
    assert body(browser.post("/notes", note="milk")) == {"user": None, "notes": ["milk"]}
    assert body(browser.post("/notes", note="Brötchen")) == {"user": None, "notes": ["milk", "Brötchen"]}
    assert body(browser.post("/login", user="ada")) == {"user": "ada", "notes": ["milk", "Brötchen"]}
    assert body(Browser(browser.address).get("/")) == {"user": None, "notes": []}
    assert body(browser.post("/logout")) == {"user": None, "notes": []}
    assert body(browser.get("/")) == {"user": None, "notes": []}


def test_bottle_lets_nobody_else_sign_in(serve: Visit) -> None:
    browser = serve("bottle_app")
    assert browser.post("/login", user="mallory").status == 403
    assert browser.post("/login").status == 403
    assert body(browser.get("/"))["user"] is None


def test_bottle_login_changes_the_cookie_and_the_old_one_opens_nothing(serve: Visit) -> None:
    browser = serve("bottle_app")
    browser.post("/notes", note="milk")
    (before,) = browser.cookies
    browser.post("/login", user="ada")
    (after,) = browser.cookies
    assert before.value != after.value
    stolen = Browser(browser.address).get("/", Cookie=f"{before.name}={before.value}")
    assert body(stolen) == {"user": None, "notes": []}


FORMS = {"flask_app": 403, "pyramid_app": 400}
"""The examples with a form to sign in, and how they refuse one without its CSRF token."""


@pytest.mark.parametrize("example", FORMS)
def test_a_visitor_of_an_example_signs_in_and_out_with_flash_messages(serve: Visit, example: str) -> None:
    browser = serve(example)
    start = browser.get("/")
    assert "You are nobody." in start.text
    inside = browser.post("/login", user="ada", csrf_token=start.field("csrf_token"))
    assert "Welcome, ada!" in inside.text
    assert "You are ada." in inside.text
    assert "Welcome" not in browser.get("/").text
    outside = browser.post("/logout", csrf_token=inside.field("csrf_token"))
    assert "Come back soon." in outside.text
    assert "You are nobody." in outside.text


@pytest.mark.parametrize(("example", "refusal"), FORMS.items())
def test_an_example_refuses_a_form_without_its_csrf_token_or_with_the_one_from_before_login(
    serve: Visit, example: str, refusal: int
) -> None:
    browser = serve(example)
    token = browser.get("/").field("csrf_token")
    assert browser.post("/login", user="ada").status == refusal
    assert browser.post("/login", user="ada", csrf_token="é").status == refusal
    assert browser.post("/login", user="ada", csrf_token=token).status == 200
    assert browser.post("/logout", csrf_token=token).status == refusal


@pytest.mark.parametrize("example", FORMS)
def test_an_example_signs_in_nobody_but_its_users(serve: Visit, example: str) -> None:
    browser = serve(example)
    token = browser.get("/").field("csrf_token")
    assert browser.post("/login", user="<script>", csrf_token=token).status == 403
    assert "You are nobody." in browser.get("/").text


def test_preferences_are_light_and_english_until_cookies_say_otherwise(serve: Visit) -> None:
    browser = serve("preferences")
    assert body(browser.get("/preferences")) == {"theme": "light", "lang": "en"}
    chosen = browser.get("/preferences", Cookie="theme=dark; lang=de")
    assert body(chosen) == {"theme": "dark", "lang": "de"}
    assert chosen.headers["Content-Type"] == "application/json"


def test_preferences_keep_a_theme_for_a_year_where_scripts_can_read_it(serve: Visit) -> None:
    browser = serve("preferences")
    answer = browser.post("/preferences", theme="dark")
    assert body(answer) == {"theme": "dark"}
    assert set_cookie(answer) == "theme=dark; Max-Age=31536000; Path=/; Secure; SameSite=Lax"
    assert body(browser.get("/preferences")) == {"theme": "dark", "lang": "en"}


def test_preferences_without_a_theme_mean_light(serve: Visit) -> None:
    assert body(serve("preferences").post("/preferences", colour="red")) == {"theme": "light"}


@pytest.mark.parametrize("theme", ["dark; Domain=evil.example", "dark\r\nSet-Cookie: a=b", "dunkelgrün", '"', "a b"])
def test_preferences_answer_400_to_a_theme_that_cannot_be_a_cookie(serve: Visit, theme: str) -> None:
    answer = serve("preferences").post("/preferences", theme=theme)
    assert answer.status == 400
    assert body(answer)["error"].startswith("The value of cookie 'theme' must be printable ASCII")
    assert "Set-Cookie" not in answer.headers


def test_preferences_answer_404_elsewhere(serve: Visit) -> None:
    assert serve("preferences").get("/").status == 404


def test_a_custom_store_keeps_sessions_through_a_restart(tmp_path: Path) -> None:
    port = free_port()
    program = ROOT / "examples" / "custom_store.py"
    secret = "D5Jv4Yq0mT1xw9rKcGz2Ns8uHb7PeLfA"
    with served(program, port=port, cwd=tmp_path, SESSION_SECRET=secret) as address:
        browser = Browser(address)
        assert [browser.get("/").text for _ in range(2)] == ["Visits: 1\n", "Visits: 2\n"]
    with served(program, port=port, cwd=tmp_path, SESSION_SECRET=secret):
        assert browser.get("/").text == "Visits: 3\n"


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionStore:
        monkeypatch.setenv("SESSION_FILE", str(tmp_path / "sessions.db"))
        store: SessionStore = runpy.run_path(str(ROOT / "examples" / "custom_store.py"))["store"]
        return store
