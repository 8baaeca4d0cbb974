"""A Django project, as `startproject` makes it, whose sessions prism_wsgi keeps."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.databases import Server
from tests.support.served import ROOT, Browser, free_port, wait_until_serving

pytestmark = pytest.mark.whole

VIEWS = """
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from django.contrib import admin

def enter(request, name):
    login(request, User.objects.get(username=name), backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("in")

def leave(request):
    logout(request)
    return HttpResponse("out")

def add(request, key):
    request.session[key] = request.session.get(key, 0) + 1
    return HttpResponse("added")

def show(request):
    name = request.user.get_username() or "nobody"
    counts = {key: value for key, value in sorted(request.session.items()) if not key.startswith("_")}
    return HttpResponse(f"{name} {counts}")

urlpatterns = [
    path("admin/", admin.site.urls), path("enter/<name>", enter), path("leave", leave),
    path("add/<key>", add), path("", show),
]
"""
OURS = """
INSTALLED_APPS += ["prism_wsgi.django"]
SESSION_ENGINE = "prism_wsgi.django"
PRISM_SESSION_STORE = "default"
"""


class Project:
    """A project in a directory of its own, and its `manage.py`."""

    def __init__(self, directory: Path, database: str) -> None:
        self.directory = directory
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "shop.settings"}
        self._run(sys.executable, "-m", "django", "startproject", "shop", ".", settings=False)
        (directory / "shop" / "urls.py").write_text(VIEWS)
        self.set(f"ALLOWED_HOSTS = ['localhost']\nDATABASES = {{'default': {database}}}\n")

    def set(self, lines: str) -> None:
        """Append to the settings."""
        with (self.directory / "shop" / "settings.py").open("a") as file:
            file.write(lines)

    def manage(self, *arguments: str) -> str:
        """Run `manage.py`; return what it printed."""
        return self._run(sys.executable, "manage.py", *arguments)

    def add_user(self, name: str) -> None:
        call = f"User.objects.create_superuser({name!r}, password='correct horse')"
        self.manage("shell", "-v0", "-c", f"from django.contrib.auth.models import User; {call}")

    def _run(self, *command: str, settings: bool = True) -> str:
        environ = self.environ if settings else {**self.environ, "DJANGO_SETTINGS_MODULE": ""}
        done = subprocess.run(command, cwd=self.directory, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, workers: int = 2) -> "Serving":
        return Serving(self, workers)


class Serving:
    """The project under gunicorn."""

    def __init__(self, project: Project, workers: int) -> None:
        self._project, self._workers = project, workers

    def __enter__(self) -> str:
        port = free_port()
        output = self._project.directory / f"served-{port}.txt"
        command = ["-m", "gunicorn", "--bind", f"localhost:{port}", "--workers", str(self._workers), "--threads", "4"]
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command, "shop.wsgi"],
                cwd=self._project.directory,
                env=self._project.environ,
                stdout=file,
                stderr=file,
            )
        wait_until_serving(self._process, port, output)
        return f"http://localhost:{port}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    if request.param == "sqlite":
        yield Project(directory, "{'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}")
        return
    server: Server = request.getfixturevalue("postgresql_server")
    name = f"{server.name}_project"  # a whole database: a test run of Django's makes another one beside it
    given = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": server.url.username,
        "HOST": server.url.host,
        "PORT": server.url.port or "",
    }
    server.execute(f"CREATE DATABASE {name}")
    yield Project(directory, repr(given))
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def sign_in(browser: Browser) -> None:
    page = browser.get("/admin/login/")
    token = page.field("csrfmiddlewaretoken")
    form = {"username": "ada", "password": "correct horse", "csrfmiddlewaretoken": token, "next": "/"}
    assert browser.post("/admin/login/", **form).status == 200


def test_two_settings_and_migrate_are_all_that_a_project_needs(project: Project) -> None:
    project.set(OURS)
    assert "Brought the tables of prism_wsgi to revision" in project.manage("migrate")
    assert "Brought the tables" not in project.manage("migrate")
    assert "no issues" in project.manage("check", "--database", "default")
    project.add_user("ada")
    with project.serve() as address:
        browser = Browser(address)
        sign_in(browser)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: browser.get(f"/add/{key}"), "abcdefgh"))
        counts = dict.fromkeys("abcdefgh", 1)
        assert browser.get("/").text == f"ada {counts}", "a write of a parallel request was lost"
        listed = browser.get("/admin/prism_wsgi/livesession/").text
        assert ">ada</a>" in listed
        assert "this session" in listed
        assert project.manage("prism", "sessions", "list", "--user", "1").strip()
        assert browser.get("/leave").text == "out"
        assert browser.get("/").text == "nobody {}"
    assert "deleted" in project.manage("prism", "sweep").lower()
    project.manage("clearsessions")


def test_visitors_stay_logged_in_when_a_project_changes_from_djangos_sessions(project: Project) -> None:
    project.manage("migrate", "-v0")
    project.add_user("ada")
    with project.serve() as address:
        browser = Browser(address)
        sign_in(browser)
        browser.get("/add/visits")
        cookies = browser.cookies
        key = next(one.value for one in cookies if one.name == "sessionid")
    project.set(OURS)
    project.manage("migrate", "-v0")
    project.manage("prism", "import", "django", "--user-table", "auth_user")
    with project.serve() as address:
        browser = Browser(address)
        for one in cookies:
            browser.cookies.set_cookie(one)
        assert browser.get("/").text == "ada {'visits': 1}"
        browser.get("/add/visits")
        assert next(one.value for one in browser.cookies if one.name == "sessionid") == key


def test_manage_py_test_keeps_sessions_in_memory_and_leaves_the_database_alone(project: Project) -> None:
    project.set(OURS)
    (project.directory / "test_shop.py").write_text(
        "from django.contrib.auth.models import User\n"
        "from django.test import TestCase\n"
        "class ShopTests(TestCase):\n"
        "    def test_login(self):\n"
        "        self.client.force_login(User.objects.create_user('ada'))\n"
        "        self.assertEqual(self.client.get('/').content, b'ada {}')\n"
        "        self.client.get('/add/a')\n"
        "        self.assertEqual(self.client.get('/').content, b\"ada {'a': 1}\")\n"
    )
    project.manage("test", "-v0")
    project.manage("migrate", "-v0")
    assert project.manage("prism", "sessions", "list", "--json") == ""
