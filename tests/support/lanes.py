"""The two lanes of the tests, the order in which they run, and how they are dealt out to processes.

`dev.py test` runs every test, as far as this machine has the servers and programs. `dev.py test --quick` takes a
minute: MemoryStore and SQLite, in this process. It connects to nothing and starts no program. It leaves out

- the folders in WHOLE_ONLY, which are about servers, processes and what they survive;
- tests that use a fixture in WHOLE_FIXTURES, or whose parameters name an engine in SERVERS;
- tests marked `whole`: they use the network, start a program, or take seconds.

A test that belongs to none of these and connects or starts a program all the same fails in the quick lane.

`dev.py matrix` asks for the tests that use one server, by `--engine`.

Several processes of pytest-xdist are dealt a module at a time, since its tests may share a server that was started
for them. The modules in DEALT_SINGLY share none and take long, so they are dealt test by test.
"""

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

FOLDERS = (
    "",
    "persistence",
    "request",
    "observers",
    "pages",
    "stores",
    "support",
    "testing",
    "compat",
    "cli",
    "frameworks",
    "fuzz",
    "packaging",
    "peers",
    "faults",
    "examples",
    "migrations",
    "servers",
    "losses",
    "documentation",
)
"""The folders of tests/ in the order in which they run.

Those that find most faults soonest come first. Of the slow ones, those whose modules are dealt whole come before
those that are dealt singly, so that no process ends long before another.
"""

DEALT_SINGLY = {
    "documentation/test_pages.py",
    "faults/test_failover.py",
    "losses/test_process_races.py",
    "losses/test_soak.py",
    "migrations/test_live_migrations.py",
    "migrations/test_migrations.py",
    "servers/test_processes.py",
    "servers/test_servers.py",
    "servers/test_users.py",
    "testing/test_states.py",
}

WHOLE_ONLY = {"documentation", "examples", "faults", "losses", "packaging", "servers"}
SERVERS = {"postgresql", "mariadb", "mysqlclient", "redis"}
WHOLE_FIXTURES = {
    "postgresql_server",
    "mariadb_server",
    "redis_prefix",
    "browse",
    "chromium",
    "visit",
    "wheel",
    "failures_of_wrong_stores",
}

ENGINES = {
    "postgresql": {"postgresql", "postgresql_server"},
    "mariadb": {"mariadb", "mysqlclient", "mariadb_server"},
    "redis": {"redis", "redis_prefix", "own_url", "cluster", "watched"},
}
"""The parameters and fixtures by which a test uses each server."""

_TESTS = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run what takes a minute and needs no server")
    parser.addoption("--engine", choices=ENGINES, help="run only what uses this server")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: left out of the quick lane; see tests/support/lanes.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what 9,000 tests and their modules consist of: they stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_folder_order)  # a stable sort: pytest's own order stays within each folder
    if config.getoption("quick"):
        sys.addaudithook(_refuse)  # here, because pytest-xdist collects in its workers only, and must start those
        _keep(config, items, _is_quick)
    if (engine := config.getoption("engine")) is not None:
        _keep(config, items, lambda item: not ENGINES[engine].isdisjoint(_uses(item)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the quick lane the imports of folders of which it runs nothing."""
    left_out = config.getoption("quick") and collection_path.parent == _TESTS and collection_path.name in WHOLE_ONLY
    return True if left_out else None


class _Dealing(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        path: str = super()._split_scope(nodeid)
        return nodeid if path.removeprefix(f"{_TESTS.name}/") in DEALT_SINGLY else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _Dealing(config, log) if config.getoption("dist") == "loadfile" else None


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).parts[0] if item.path.parent != _TESTS else ""


def _folder_order(item: pytest.Item) -> int:
    return FOLDERS.index(_folder(item))


def _keep(config: pytest.Config, items: list[pytest.Item], is_wanted: Callable[[pytest.Item], bool]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = [item for item in items if is_wanted(item)]


def _is_quick(item: pytest.Item) -> bool:
    if _folder(item) in WHOLE_ONLY or item.get_closest_marker("whole"):
        return False
    return (WHOLE_FIXTURES | SERVERS).isdisjoint(_uses(item))


def _uses(item: pytest.Item) -> Iterator[str]:
    """Yield the names of a test's fixtures, and those of its parameters that are texts."""
    yield from getattr(item, "fixturenames", ())
    parameters = getattr(item, "callspec", None)
    yield from (value for value in (parameters.params.values() if parameters else ()) if isinstance(value, str))


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        raise AssertionError(f"the quick lane connects to nothing, not to {arguments[1]}: see tests/support/lanes.py")
    if event == "subprocess.Popen":
        raise AssertionError(f"the quick lane starts no program, not {arguments[0]}: see tests/support/lanes.py")
