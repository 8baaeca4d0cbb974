"""Subject: one library on one engine, ready to be measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from wsgiref.types import WSGIApplication

SECRET = "k8dV2yLr0mXw5sQpZ7bT1nHfJ4cG9aEu"  # noqa: S105
TTL = 14 * 24 * 3600  # longer than ten runs: no session is touched or expires unless the scenario says so
SHORT_TTL = 3600

PRISM_ONLY = frozenset({"expired"})
OURS_ONLY = frozenset({"expired", "touch", "read_4k", "write_4k"})


@dataclass
class Subject:
    """One library on one engine. `bare` is the same application in the same framework without sessions."""

    name: str
    engine: str
    application: WSGIApplication
    bare: WSGIApplication
    framework: str = "plain WSGI"
    omits: frozenset[str] = OURS_ONLY
    """Scenarios in which it is not measured."""
    elsewhere: Mapping[str, WSGIApplication] = field(default_factory=dict)
    """Scenarios that need an application with other settings."""
    before: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """Called before each request of a scenario, untimed."""

    def serves(self, scenario: str) -> bool:
        """Tell whether it can be measured in a scenario."""
        return scenario not in self.omits
