"""An application written for Beaker behaves on prism_wsgi as it does on Beaker, with one line changed."""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from prism_wsgi import migrate
from tests.support.keys import SECRET
from tests.support.served import Browser, free_port, served

pytestmark = pytest.mark.whole

PROGRAM = Path(__file__).parent / "beaker_app.py"
BEAKERS_LINE = "from beaker.middleware import SessionMiddleware"
OUR_LINE = "from prism_wsgi.compat.beaker import SessionMiddleware"

PACKAGES = ["beaker", "prism_wsgi"]


class Customer(Browser):
    """A browser for whom the application's answers are what they mean."""

    def ask(self, path: str, **given: str) -> Any:
        query = f"?{urlencode(given)}" if given else ""
        return json.loads(self.get(f"/{path}{query}").text)

    def values(self) -> Any:
        return self.ask("view")["values"]


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@contextmanager
def shop(package: str, cwd: Path, **settings: str) -> Iterator[str]:
    """Serve the application on a package; yield its address."""
    program = cwd / "shop.py"
    line = OUR_LINE if package == "prism_wsgi" else BEAKERS_LINE
    program.write_text(PROGRAM.read_text().replace(BEAKERS_LINE, line))
    url = f"sqlite:///{cwd / 'sessions.db'}"
    if package == "prism_wsgi":
        migrate.upgrade(url)
    with served(program, port=free_port(), cwd=cwd, SESSION_URL=url, SESSION_SECRET=SECRET, **settings) as address:
        yield address


@pytest.fixture(scope="module")
def site(package: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shop(package, tmp_path_factory.mktemp(package)) as address:
        yield address


def test_what_is_saved_is_there_the_next_time(site: str) -> None:
    visitor = Customer(site)
    assert visitor.ask("view") == {"values": {}, "is_new": True}
    assert visitor.ask("put_and_save", colour="blue") == "saved"
    assert visitor.ask("view") == {"values": {"colour": "blue"}, "is_new": False}
    assert visitor.ask("put_and_save", size="small") == "saved"
    assert visitor.values() == {"colour": "blue", "size": "small"}
    assert visitor.ask("forget", key="colour") is False
    assert visitor.values() == {"size": "small"}
    visitor.ask("clear")
    assert visitor.values() == {}


def test_what_is_not_saved_is_forgotten(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("put", colour="blue")
    assert visitor.ask("view") == {"values": {}, "is_new": True}
    visitor.ask("add_to_basket", what="apple", save="yes")
    assert visitor.ask("put_and_revert", colour="blue") == ["basket"]
    assert visitor.ask("put_and_load", colour="blue") == ["basket"]
    assert list(visitor.values()) == ["basket"]


def test_a_change_inside_a_value_is_saved_with_the_time_of_access(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("add_to_basket", what="apple", save="yes")
    visitor.ask("add_to_basket", what="pear")
    assert visitor.values() == {"basket": ["apple", "pear"]}


def test_changes_after_save_are_kept_until_the_response_begins(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("save_and_put", colour="blue")
    assert visitor.values() == {"colour": "blue"}


def test_a_saved_session_is_not_new_though_it_is_empty(site: str) -> None:
    visitor = Customer(site)
    first = visitor.ask("my_id")
    assert not list(visitor.cookies)
    assert visitor.ask("my_id") != first
    visitor.ask("save_nothing")
    kept = visitor.ask("my_id")
    assert visitor.ask("my_id") == kept
    assert visitor.ask("view")["is_new"] is False


def test_a_request_that_uses_no_session_gets_no_cookie(site: str) -> None:
    visitor = Customer(site)
    assert visitor.ask("unused") == "unused"
    assert not list(visitor.cookies)


def test_an_error_page_keeps_what_was_saved(site: str) -> None:
    visitor = Customer(site)
    assert visitor.get("/fail_after_save?colour=blue").status == 500
    assert visitor.values() == {"colour": "blue"}


def test_login_keeps_the_values_under_a_new_id(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("put_and_save", colour="blue")
    before = visitor.ask("my_id")
    visitor.ask("login", user="ada")
    assert visitor.values() == {"colour": "blue", "user": "ada"}
    assert visitor.ask("my_id") != before


def test_logout_leaves_no_cookie_and_no_values(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("login", user="ada")
    assert visitor.ask("logout") == []
    assert not list(visitor.cookies)
    assert visitor.ask("view") == {"values": {}, "is_new": True}


def test_what_is_written_after_delete_is_forgotten(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("login", user="ada")
    visitor.ask("logout_and_put", colour="blue")
    assert visitor.ask("view") == {"values": {}, "is_new": True}


@pytest.mark.parametrize("written", [{}, {"colour": "blue"}])
def test_invalidate_starts_over(site: str, written: dict[str, str]) -> None:
    visitor = Customer(site)
    visitor.ask("login", user="ada")
    assert visitor.ask("start_over", **written) == {"same_id": False, "is_new": True}
    assert visitor.values() == written


def test_beakers_own_keys_and_attributes_are_there(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("login", user="ada")
    assert visitor.ask("describe") == {
        "own_keys": ["_accessed_time", "_creation_time", "_domain", "_path"],
        "times": ["float", "float"],
        "created": True,
        "used_before": True,
        "path": "/",
        "domain": None,
        "has_user": True,
        "copy": "dict",
        "accessed": True,
        "dirty": False,
    }


def test_the_cookie_ends_with_the_browser(site: str) -> None:
    visitor = Customer(site)
    visitor.ask("put_and_save", colour="blue")
    (cookie,) = visitor.cookies
    assert (cookie.name, cookie.path, cookie.discard, cookie.secure) == ("shop", "/", True, False)


def test_with_auto_the_application_saves_all_it_looks_at_and_its_cookie_may_outlive_the_browser(
    package: str, tmp_path: Path
) -> None:
    with shop(package, tmp_path, AUTO="true", COOKIE_EXPIRES="600") as address:
        visitor = Customer(address)
        visitor.ask("put", colour="blue")
        visitor.cookies.clear_session_cookies()
        assert visitor.values() == {"colour": "blue"}
        visitor.ask("add_to_basket", what="apple")
        visitor.ask("add_to_basket", what="pear")
        assert visitor.values() == {"colour": "blue", "basket": ["apple", "pear"]}
        visitor.ask("logout")
        assert visitor.ask("view")["is_new"] is True
