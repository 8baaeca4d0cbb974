"""The findings of `prism-wsgi doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding; only FAIL fails the command."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `fix` says what to type, and is empty if there is nothing to do."""

    check: str
    level: Level
    message: str
    fix: str = ""
