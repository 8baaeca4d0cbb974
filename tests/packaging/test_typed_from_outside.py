"""The public names, as the type checker sees them in an application of one's own that has the wheel installed."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.served import ROOT
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


def mypy(*arguments: str, python: Path, cwd: Path) -> str:
    cache = ROOT / ".mypy_cache" / "outside"
    options = ("--strict", "--config-file=", f"--cache-dir={cache}", f"--python-executable={python}")
    command = [sys.executable, "-m", "mypy", *options, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False).stdout


def test_an_application_in_each_framework_passes_mypy_strict(tmp_path: Path, python: Path) -> None:
    (tmp_path / "setup.cfg").write_text(CONFIGURATION)
    for site in (ROOT / "tests" / "frameworks").glob("*_site.py"):
        shutil.copy(site, tmp_path)
    sites = sorted(path.name for path in tmp_path.glob("*_site.py"))
    assert len(sites) == 6
    assert "Success: no issues found in 6 source files" in mypy(
        "--config-file=setup.cfg", *sites, python=python, cwd=tmp_path
    )


def test_mistakes_are_found_by_the_type_checker(tmp_path: Path, python: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    report = mypy("--disable-error-code=import-untyped", "mistakes.py", python=python, cwd=tmp_path)
    assert [line.split(":")[1] for line in report.splitlines() if ": error:" in line] == ["6", "7", "8", "9", "10"]
    assert 'Revealed type is "Any"' in report
