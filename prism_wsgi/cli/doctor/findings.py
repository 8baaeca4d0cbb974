"""What a check of `prism-wsgi doctor` found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; only FAIL fails the command."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is what to type, empty where nothing is to be done."""

    check: str
    level: Level
    message: str
    fix: str = ""
