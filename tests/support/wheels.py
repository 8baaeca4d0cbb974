"""The wheel of this checkout, and clean environments to install it in."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def succeed(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command that knows nothing of this checkout; return what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    finished = subprocess.run(command, cwd=cwd, env={**clean, **environ}, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    # The tests' own environment may be without pip (dev.py makes it so); what it was made from is not.
    outside = Path(sys.base_prefix, "bin", f"python{sysconfig.get_python_version()}")
    succeed(outside, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


def clean_python(directory: Path) -> Path:
    """Return the Python of a new environment."""
    succeed(sys.executable, "-m", "venv", "--without-pip", directory / "venv", cwd=directory)
    return directory / "venv" / "bin" / "python"


def build_wheel(directory: Path) -> Path:
    # Into a Python of its own, or a system's pip that may not touch its own packages refuses (PEP 668).
    python = clean_python(directory)
    pip("--python", python, "wheel", "--no-deps", "--wheel-dir", directory, ROOT, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built
