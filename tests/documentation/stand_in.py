"""Stands in for a program that a page tells to change a machine: checks what it is told to do, and does nothing.

`python stand_in.py NAME ARGUMENTS` fails where NAME, called with ARGUMENTS, would.
"""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "examples" / "deploy"


def pip(verb: str, *wanted: str) -> None:
    """Everything that is installed is in an extra of ours, or installed here."""
    assert verb == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for one in wanted:
        name, _, ours = one.rstrip("]").partition("[")
        assert distribution(name)
        assert name == "prism_wsgi" or not ours
        assert not ours or set(ours.split(",")) <= set(extras), f"no such extra: {one}"


def systemctl(*arguments: str) -> None:
    """The unit is one of ours, copied to where systemd looks; tests/examples/test_schedules.py verifies the files."""
    *verb, unit = arguments
    assert verb == ["enable", "--now"]
    assert (Path("etc/systemd/system") / unit).read_bytes() == (DEPLOY / unit).read_bytes()
    environment_file = re.search(
        r"^EnvironmentFile=/(.*)$", (DEPLOY / unit).with_suffix(".service").read_text(), re.M
    )
    assert environment_file
    assert "PRISM_DATABASE_URL=" in Path(environment_file[1]).read_text()


def journalctl(option: str, unit: str) -> None:
    """There is a service of that name."""
    assert option == "-u"
    assert (DEPLOY / f"{unit}.service").exists()


def kubectl(verb: str, *arguments: str) -> None:
    """The manifest is ours, and the secret that is made is the one it refers to."""
    if verb == "apply":
        option, manifest = arguments
        assert option == "-f"
        assert (DEPLOY / manifest).exists()
        return
    kind, form, name, literal = arguments
    assert (verb, kind, form) == ("create", "secret", "generic")
    key = re.match(r"--from-literal=(\w+)=postgresql[+\w]*://", literal)
    assert key
    manifests = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    assert re.search(rf"secretKeyRef:\s+name: {name}\s+key: {key[1]}$", manifests, re.M)


PROGRAMS: dict[str, Callable[..., None]] = {
    "pip": pip,
    "systemctl": systemctl,
    "journalctl": journalctl,
    "kubectl": kubectl,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
