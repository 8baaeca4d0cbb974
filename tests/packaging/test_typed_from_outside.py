"""The public names, as the type checker sees them in an application of one's own that has the wheel installed."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.served import ROOT
from tests.support.waiting import PATIENCE
from tests.support.wheels import clean_python, pip, succeed

# None of them ships type hints.
CONFIGURATION = """
[mypy]
[mypy-bottle,django.*,pyramid.*]
ignore_missing_imports = True
"""

MISTAKES = """
from prism_wsgi import SessionMiddleware, get_session
from prism_wsgi.bottle import SessionPlugin
from prism_wsgi.flask import PrismSessions, session

SessionPlugin(secret="s", ttl="an hour")
SessionPlugin(secret="s", cookie_nam="shop")
PrismSessions(store=5)
session.permanent = "yes"
session.login(7)
reveal_type(session["n"])
"""

SITES = sorted((ROOT / "tests" / "frameworks").glob("*_site.py"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel, and with the frameworks that the tests have, but not with this checkout."""
    directory = tmp_path_factory.mktemp("application")
    python = clean_python(directory)
    pip("--python", python, "install", "--quiet", "--no-deps", wheel, cwd=directory)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(succeed(python, "-c", where, cwd=directory).strip())
    # A .pth file within a directory that is named by one is not read: the checkout stays out.
    (site_packages / "frameworks.pth").write_text(sysconfig.get_path("purelib"))
    origin = succeed(python, "-c", "import flask, prism_wsgi; print(prism_wsgi.__file__)", cwd=directory)
    assert Path(origin.strip()).parent.parent == site_packages
    return python


@pytest.fixture(scope="module")
def report(python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The messages of mypy for a site in each framework, and for one that makes mistakes."""
    directory = tmp_path_factory.mktemp("sites")
    (directory / "setup.cfg").write_text(CONFIGURATION)
    (directory / "mistakes.py").write_text(MISTAKES)
    for site in SITES:
        shutil.copy(site, directory)
    cache = ROOT / ".mypy_cache" / "outside"
    options = ("--strict", "--config-file=setup.cfg", f"--cache-dir={cache}", f"--python-executable={python}")
    command = [sys.executable, "-m", "mypy", *options, "mistakes.py", *(site.name for site in SITES)]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE * 4, check=False)
    assert "checked 7 source files" in ran.stdout, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def test_an_application_in_each_framework_passes_mypy_strict(report: list[str]) -> None:
    assert [line for line in report if "_site.py" in line] == []


def test_mistakes_are_found_by_the_type_checker(report: list[str]) -> None:
    errors = [line for line in report if ": error:" in line]
    assert [error.split(":")[:2] for error in errors] == [["mistakes.py", str(line)] for line in range(6, 11)]
    assert any('Revealed type is "Any"' in line for line in report)
