"""The schedules in examples/deploy: each is run, or checked by the program it is for."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from prism_wsgi import migrate
from tests.support.command_line import ROOT, environment, expired, keep_expired
from tests.support.waiting import PATIENCE

DEPLOY = ROOT / "examples" / "deploy"


@pytest.fixture
def url(sqlite_url: str) -> str:
    migrate.upgrade(sqlite_url)
    keep_expired(sqlite_url, 3)
    return sqlite_url


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with `prism-wsgi` in it, as an installation has."""
    directory = tmp_path / "bin"
    directory.mkdir()
    script = directory / "prism-wsgi"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m prism_wsgi.cli "$@"\n')
    script.chmod(0o755)
    return directory


def in_shell(command: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a line as cron does: by /bin/sh, with little in the environment."""
    given = {"HOME": "/", "LOGNAME": "www-data", "SHELL": "/bin/sh", **environ}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=given, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def cron_line() -> str:
    (line,) = (one for one in (DEPLOY / "prism-wsgi-sweep.cron").read_text().splitlines() if one.startswith("*/10"))
    *_, command = line.split(maxsplit=6)
    assert "%" not in command  # cron would take it for the end of the line
    return command


def test_cron_line_sweeps_and_prints_nothing(url: str, programs: Path) -> None:
    done = in_shell(cron_line(), PATH=f"{programs}:/usr/bin:/bin", PRISM_DATABASE_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert expired(url) == 0


def test_cron_line_prints_errors_and_fails(programs: Path, tmp_path: Path) -> None:
    done = in_shell(cron_line(), PATH=f"{programs}:/usr/bin:/bin", PRISM_DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no database ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_service_and_timer(tmp_path: Path) -> None:
    for name in ("prism-wsgi-sweep.service", "prism-wsgi-sweep.timer"):
        shutil.copy(DEPLOY / name, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.*")))],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "prism-wsgi" in line]
    assert (done.returncode, ours) == (0, [])


def test_service_runs_the_sweep(url: str, programs: Path) -> None:
    lines = (DEPLOY / "prism-wsgi-sweep.service").read_text().splitlines()
    (command,) = (line.partition("=")[2] for line in lines if line.startswith("ExecStart="))
    done = in_shell(command, PATH=f"{programs}:/usr/bin:/bin", PRISM_DATABASE_URL=url)
    assert (done.returncode, done.stdout[:10]) == (0, "complete: ")


def manifest() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "prism-wsgi-sweep.yaml").read_text())
    return loaded


def test_manifest_follows_the_schema_of_kubernetes() -> None:
    import_module("kubernetes_validate").validate(manifest(), "1.31", strict=True)


def test_container_runs_the_sweep(url: str, programs: Path) -> None:
    (container,) = manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    done = subprocess.run(
        [programs / container["command"][0], *container["command"][1:]],
        env={**os.environ, variable["name"]: url},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["deleted"]) == (0, 3)
