"""What Beaker's sessions have in common: a mapping over a copy of the stored values, with Beaker's own among them."""

import time
from collections.abc import Iterator, Mapping, MutableMapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from prism_wsgi.cookies import Cookie
from prism_wsgi.persistence.adapter import Repository

CREATED, ACCESSED, DOMAIN, PATH = "_creation_time", "_accessed_time", "_domain", "_path"
NOT_STORED = frozenset({ACCESSED, DOMAIN, PATH})
"""What Beaker has among the application's values and prism_wsgi knows anyway."""


@dataclass(frozen=True, slots=True)
class BeakerSite:
    """What holds for all sessions of an application; `auto` and `save_accessed_time` are Beaker's settings."""

    repository: Repository
    cookie: Cookie
    auto: bool
    save_accessed_time: bool


class Values(MutableMapping[str, Any]):
    """A mapping over a copy that is made at the first access."""

    _copy: dict[str, Any] | None = None

    def _begin(self) -> dict[str, Any]:
        raise NotImplementedError

    def _look(self) -> dict[str, Any]:
        if self._copy is None:
            self._copy = self._begin()
        return self._copy

    def __getitem__(self, key: str) -> Any:
        return self._look()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._look()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._look()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def has_key(self, key: object) -> bool:
        """Tell whether `key` is there."""
        return key in self._look()

    def copy(self) -> dict[str, Any]:
        """Return the values as a dict."""
        return self._look().copy()

    def clear(self) -> None:
        """Remove every value."""
        for key in [one for one in self._look() if one not in (DOMAIN, PATH)]:
            del self._look()[key]

    @property
    def created(self) -> float:
        """When the session began, in Unix seconds."""
        began: float = self._look()[CREATED]
        return began


def with_beaker_values(stored: Mapping[str, Any], created: float, cookie: Cookie) -> dict[str, Any]:
    """Return a copy of a session's values with what Beaker keeps among them."""
    values = {key: deepcopy(value) for key, value in stored.items()}
    return {DOMAIN: cookie.domain, PATH: cookie.path, CREATED: created, **values, ACCESSED: time.time()}


def to_store(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of what is stored: never nothing, so that a session once saved is there the next time."""
    kept = {CREATED: time.time(), **values}
    return {key: deepcopy(value) for key, value in kept.items() if key not in NOT_STORED}
