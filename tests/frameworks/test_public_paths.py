"""The short paths users import from, and the frameworks of the same name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.served import ROOT

pytestmark = pytest.mark.whole

FRAMEWORKS = ("pyramid", "flask", "bottle")
PACKAGE = ROOT / "prism_wsgi"


def python(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("order", ["{0}, prism_wsgi.{0}", "prism_wsgi.{0}, {0}"])
def test_a_framework_is_the_real_one_whichever_is_imported_first(framework: str, order: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import {order.format(framework)}\nprint({framework}.__file__)\n")
    result = python(str(script), cwd=PACKAGE)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout).parent != PACKAGE


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_inside_our_own_directory_a_frameworks_name_says_what_is_wrong(framework: str) -> None:
    result = python("-c", f"import {framework}", cwd=PACKAGE)
    assert "prism_wsgi's own directory is on sys.path" in result.stderr


def test_pytest_run_from_our_own_directory_finds_the_real_frameworks(tmp_path: Path) -> None:
    test = tmp_path / "test_frameworks.py"
    test.write_text("def test_frameworks():\n    import bottle, flask.app, pyramid.config, prism_wsgi.flask\n")
    pytest_command = str(Path(sys.executable).parent / "pytest")
    result = python(pytest_command, "-p", "no:cacheprovider", str(test), cwd=PACKAGE)
    assert result.returncode == 0, result.stdout


def test_importing_prism_wsgi_imports_no_framework(tmp_path: Path) -> None:
    result = python("-c", "import sys, prism_wsgi; print(*sys.modules)", cwd=tmp_path)
    assert not {*FRAMEWORKS, "zope.interface", "paste.deploy", "sqlalchemy"} & set(result.stdout.split())
