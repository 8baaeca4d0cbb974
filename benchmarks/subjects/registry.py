"""Every subject by name, and the module that sets it up."""

from collections.abc import Sequence
from importlib import import_module

from benchmarks.machine.databases import Places
from benchmarks.subjects.subject import Subject

PRISM = "prism_wsgi"
FLOOR = "floor"
MODULES = {
    PRISM: "prism",
    FLOOR: "floor.subjects",
    "Beaker": "peers.beaker",
    "Django": "peers.django",
    "Flask-Session": "peers.flask_session",
    "Flask cookie": "peers.flask_cookie",
    "pyramid_session_redis": "peers.pyramid_redis",
}
"""Modules below `benchmarks.subjects`, each with a function `subjects(places)`."""


def subjects(places: Places, names: Sequence[str]) -> list[Subject]:
    """Return everything that can be measured; a package that is not installed is left out, and a line says so."""
    found: list[Subject] = []
    for name, module in MODULES.items():
        if name in names:
            try:
                found += import_module(f"benchmarks.subjects.{module}").subjects(places)
            except ImportError as error:
                print(f"{name} is left out: {error}")
    return found
