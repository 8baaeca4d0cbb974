#!/usr/bin/env python3
"""Run a task of the project. Needs Python 3.11 and pip, nothing else: the first run sets up .venv.

A task's own arguments follow its name: `python3 dev.py test -k migrations`.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "set-up-for"
FUZZER_STAMP = VENV / "has-fuzzer"
MEMORY = Path("/dev/shm")  # noqa: S108


def demo(arguments: list[str]) -> int:
    """Serve a small application with sessions; prints its address and what to try."""
    return run("prism-wsgi", "demo", *arguments)


def test(arguments: list[str]) -> int:
    """Run the tests (--quick: in a minute, what needs no server; --cov: with coverage); arguments go to pytest."""
    # No more processes than processors: clusters that elect a master within seconds need one to themselves now and
    # then. tests/support/lanes.py says what is dealt to a process together, and what comes first.
    workers = (f"--numprocesses={os.cpu_count() or 1}", "--dist=loadfile", "--no-loadscope-reorder")
    # The tests start hundreds of programs, each of which would compile the project's modules again.
    environ = {"PYTHONDONTWRITEBYTECODE": ""}
    if "TMPDIR" not in os.environ and has_memory_for_files():
        environ["TMPDIR"] = str(MEMORY)
    return run("pytest", *workers, *arguments, **environ)


def lint(arguments: list[str]) -> int:
    """Check style, formatting and types."""
    checks = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"])
    return max([run(*check, *arguments) for check in checks])


def docs(arguments: list[str]) -> int:
    """Build the documentation into build/docs; a warning is an error. Arguments go to sphinx-build."""
    need("docs")
    # Everything is built anew, since a page that is not built again does not warn again.
    strict = ("--fresh-env", "--write-all", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")
    built = run("sphinx-build", *strict, "--doctree-dir=build/doctrees", *arguments, "docs", "build/docs")
    print("It failed" if built else f"Open {ROOT / 'build' / 'docs' / 'index.html'}")
    return built


def bench(arguments: list[str]) -> int:
    """Measure prism_wsgi beside its peers, in ten minutes (--quick: in two); -h lists the options."""
    need("bench")
    return run("python", "-m", "benchmarks", *arguments)


def scale(arguments: list[str]) -> int:
    """Measure the sweeper, the pages and the audit trail on large tables, in half an hour; -h lists the options."""
    return run("python", "-m", "benchmarks.scale", *arguments)


def fuzz(arguments: list[str]) -> int:
    """Fuzz the readers of cookies, tokens and stored bytes (--minutes, --seed, --target); -h lists the options."""
    if not FUZZER_STAMP.exists():
        if pip("--python", str(VENV / "bin" / "python"), "install", "--quiet", "atheris>=3.0"):
            print("No atheris for this Python: Hypothesis makes the inputs, and ignores coverage.")
        FUZZER_STAMP.touch()
    return run("python", "-m", "tests.fuzz.fuzz", *arguments)


def soak(arguments: list[str]) -> int:
    """Look for losses while the network breaks and processes die (--interrupts: while signals interrupt requests)."""
    return run("python", "-m", "tests.losses.soak", *arguments)


def matrix(arguments: list[str]) -> int:
    """Run the tests of the stores on each version of each database server (--only, --write); -h lists the options."""
    return run("python", "-m", "tests.matrix", *arguments)


def peers(arguments: list[str]) -> int:
    """Run other projects' own tests with our sessions, in a few minutes; -h lists the options."""
    # In this Python, which has pip; the suites have an environment of their own.
    return subprocess.run([sys.executable, "-m", "tests.peers", *arguments], cwd=ROOT, check=False).returncode


TASKS = (demo, test, lint, docs, bench, scale, fuzz, soak, matrix, peers)


def run(tool: str, *arguments: str, **environ: str) -> int:
    environment = {**os.environ, **environ}
    return subprocess.run([VENV / "bin" / tool, *arguments], cwd=ROOT, env=environment, check=False).returncode


def has_memory_for_files() -> bool:
    """Tell whether a gigabyte or two of files, programs among them, can lie in memory.

    The tests make thousands of SQLite databases: 0.4 ms each there, 3 ms and more on a disk.
    """
    if not os.access(MEMORY, os.W_OK):
        return False
    return shutil.disk_usage(MEMORY).free > 4 << 30 and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC


def set_up() -> None:
    """Make .venv and install the project with its tools, unless that was done for this pyproject.toml."""
    made_for = sys.version.encode() + (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(made_for).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if pip("--version"):
        sys.exit(f"dev.py needs pip for {sys.executable}; on Debian: apt-get install python3-pip")
    print("Setting up .venv (once, a minute or two) ...", flush=True)
    # Without pip inside, venv needs no ensurepip, which is a separate package on Debian.
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV], check=True)
    if install("dev"):
        sys.exit("dev.py could not install the project's tools; pip's message is above")
    if not has_mysql_client() or install("mysqlclient"):
        print("No mysqlclient (it needs gcc and default-libmysqlclient-dev): its tests will be skipped.")
    STAMP.write_text(wanted)


def need(extra: str) -> None:
    """Install the extra that one task needs, unless that was done."""
    stamp = VENV / f"has-{extra}"
    if stamp.exists():
        return
    print(f"Installing the packages for {extra} (once) ...", flush=True)
    if install(extra):
        sys.exit(f"dev.py could not install the packages for {extra}; pip's message is above")
    stamp.touch()


def install(extra: str) -> int:
    """Install the project with an extra into .venv."""
    # pip ignores EXTERNALLY-MANAGED (PEP 668) when it installs into another Python.
    return pip("--python", str(VENV / "bin" / "python"), "install", "--quiet", "--editable", f"{ROOT}[{extra}]")


def pip(*arguments: str) -> int:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False).returncode


def has_mysql_client() -> bool:
    if shutil.which("mariadb_config") or shutil.which("mysql_config"):
        return True
    libraries = ("mysqlclient", "libmariadb")
    return bool(shutil.which("pkg-config")) and any(
        subprocess.run(["pkg-config", "--exists", library], check=False).returncode == 0  # noqa: S607
        for library in libraries
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(title="tasks", dest="task", required=True, metavar="TASK")
    for task in TASKS:
        tasks.add_parser(task.__name__, help=(task.__doc__ or "").splitlines()[0], add_help=False)
    chosen, arguments = parser.parse_known_args()
    set_up()
    return {task.__name__: task for task in TASKS}[chosen.task](arguments)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("dev.py needs Python 3.11 or newer")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
