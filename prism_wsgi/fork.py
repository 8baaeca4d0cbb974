"""Lets objects that hold locks or connections renew them in the child of a fork."""

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that must not go on with what it inherited from its parent process."""

    def after_fork(self) -> None:
        """Renew locks and connections; called in the child, before anything else runs there."""
        ...


_instances: WeakSet[ForkAware] = WeakSet()


def notify_after_fork(instance: ForkAware) -> None:
    """Call `instance.after_fork()` in every child process from now on, for as long as it lives."""
    _instances.add(instance)


def _notify() -> None:
    for instance in list(_instances):
        instance.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_notify)
