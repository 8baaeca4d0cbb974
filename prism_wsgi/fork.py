"""Fork hooks: objects that hold locks or connections renew them in a forked child process."""

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object whose locks or connections a child process must not share with its parent."""

    def after_fork(self) -> None:
        """Renew locks and connections; called in the child, before anything else runs there."""
        ...


_instances: WeakSet[ForkAware] = WeakSet()


def notify_after_fork(instance: ForkAware) -> None:
    """Call `instance.after_fork()` in every child process from now on, for as long as the instance lives."""
    _instances.add(instance)


def _notify() -> None:
    for instance in list(_instances):
        instance.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_notify)
