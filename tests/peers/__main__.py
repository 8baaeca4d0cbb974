"""The task `peers`: fetch other projects' source distributions, run their tests with our sessions, and judge.

It needs nothing but the standard library and pip, so that it runs in the Python that has pip.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.peers.suites import Declaration, Suite, complaints, declaration, tests_that

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "peers"
VENV = PLACE / "venv"
PLUGINS = Path(__file__).parent / "plugins"
TIMEOUT = 1800
"""Seconds after which a suite is given up."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py peers", description="Run other projects' tests with our sessions.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="suites whose names begin so; all unless given")
    parser.add_argument("--list", action="store_true", help="list the suites, and run none")
    arguments = parser.parse_args()
    declared = declaration()
    beginnings = tuple(name.lower() for name in arguments.names) or ("",)
    chosen = [suite for suite in declared.suites if suite.name.lower().startswith(beginnings)]
    if not chosen:
        parser.error(f"no suite has such a name; there are {', '.join(suite.name for suite in declared.suites)}")
    if arguments.list:
        for suite in chosen:
            print(f"{suite.name} ({suite.release}): {suite.passes} pass, {len(suite.listed)} differ")
        return 0
    install(declared)
    return max([run(suite) for suite in chosen])


def install(declared: Declaration) -> None:
    """Make an environment with the projects, their tests' needs and this checkout, unless it is there."""
    wanted_packages = [*dict.fromkeys(suite.release for suite in declared.suites), *declared.needs]
    made_for = f"{sys.version} {wanted_packages}".encode() + (ROOT / "pyproject.toml").read_bytes()
    wanted, stamp = hashlib.sha256(made_for).hexdigest(), VENV / "set-up-for"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("Setting up the environment of the suites (once, a minute or two) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV], check=True)
    checkout = ("--editable", f"{ROOT}[django,flask,pyramid,redis]")
    pip("--python", VENV / "bin" / "python", "install", "--quiet", *checkout, *wanted_packages)
    stamp.write_text(wanted)


def run(suite: Suite) -> int:
    """Run a suite; return 1 if it is not as declared."""
    if suite.server is not None and not _answers(suite.server):
        print(f"{suite.name}: skipped, because its tests need a server on {suite.server}", flush=True)
        return 0
    log, outcomes = PLACE / f"{suite.name}.log", PLACE / f"{suite.name}.json"
    outcomes.unlink(missing_ok=True)
    folder = unpacked(suite)
    if suite.runner == "django":
        folder /= "tests"
        arguments = ["runtests.py", f"--settings={suite.plugin}", "--parallel=1", "--noinput"]
    else:
        plugins = ("-p", "no:cacheprovider", "-p", "peer_outcomes", "-p", suite.plugin)
        arguments = ["-m", "pytest", "-q", *plugins, "--tb=short"]
    with log.open("w") as output:
        subprocess.run(
            [VENV / "bin" / "python", *arguments, *suite.tests],
            cwd=folder,
            env=_environment(suite, outcomes),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    ended = json.loads(outcomes.read_text()) if outcomes.exists() else {}
    found = complaints(suite, ended)
    counts = ", ".join(f"{len(tests_that(one, ended))} {one}" for one in ("passed", "failed", "skipped"))
    print(f"{suite.name} ({suite.release}): {counts}; {'NOT as declared' if found else 'as declared'}", flush=True)
    for complaint in found:
        print(f"  {complaint}")
    if found:
        print(f"  What the tests said is in {log}", flush=True)
    return 1 if found else 0


def unpacked(suite: Suite) -> Path:
    """Return the folder of a release's source distribution, unpacked afresh: its tests are as they were published."""
    fetched, folder = PLACE / "sdists" / suite.release, PLACE / "unpacked" / suite.release
    if not any(fetched.glob("*.tar.gz")):
        project = suite.release.partition("==")[0]
        pip("download", "--quiet", "--no-deps", "--no-binary", project, "--dest", fetched, suite.release)
    shutil.rmtree(folder, ignore_errors=True)
    (archive,) = fetched.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    (unpacked,) = folder.iterdir()
    return unpacked


def _environment(suite: Suite, outcomes: Path) -> dict[str, str]:
    # Tests of requests' settings fail where the environment names certificates.
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST_"))}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        ours.pop(name, None)
    return {
        **ours,
        "PYTHONPATH": str(PLUGINS),
        "PRISM_PEER_OPTIONS": json.dumps(suite.options),
        "PRISM_PEER_OUTCOMES": str(outcomes),
    }


def _answers(server: str) -> bool:
    host, _, port = server.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def pip(*arguments: str | Path) -> None:
    """Run the pip of the Python that runs the task; end the task if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode:
        sys.exit("dev.py peers could not install what it needs; what pip said is above")


if __name__ == "__main__":
    sys.exit(main())
