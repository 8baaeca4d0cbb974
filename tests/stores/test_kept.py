"""KeptConnections: how many there are, which are trusted, and that no exception from outside costs one."""

import gc
import os
import queue
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prism_wsgi.errors import StoreError
from prism_wsgi.stores import kept
from prism_wsgi.stores.kept import KeptConnections, Lease
from tests.support.interrupting import Interrupted, interruptions


class Refused(Exception):
    """The server gives no more connections."""


class Line:
    """A connection to nowhere; it notes when it is closed, and when two use it at once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_closed = False
        self.is_asked = False

    def ask(self) -> None:
        """Send a question and read the answer; between the two, nobody else may use the line."""
        assert not self.is_closed
        assert not self.is_asked, "the answer to another question is still on its way"
        self.is_asked = True
        self.is_asked = False


class Server:
    """Opens at most `limit` lines at a time."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.opened = 0
        self._lines: weakref.WeakSet[Line] = weakref.WeakSet()  # a connection that is lost closes itself
        self._lock = threading.Lock()

    @property
    def open_lines(self) -> list[int]:
        """The numbers of the lines that are open."""
        return sorted(line.number for line in list(self._lines) if not line.is_closed)

    def connect(self) -> Line:
        with self._lock:
            if len(self.open_lines) >= self.limit:
                raise Refused
            line = Line(self.opened)
            self.opened += 1
            self._lines.add(line)
            return line

    def terminate(self, line: Line) -> None:
        line.is_closed = True


@pytest.fixture
def server() -> Server:
    return Server()


def lines_to(server: Server, limit: int = 3, *, max_idle: float = 60, timeout: float = 5) -> KeptConnections[Line]:
    return KeptConnections(
        server.connect,
        server.terminate,
        max_connections=limit,
        max_idle=max_idle,
        timeout=timeout,
        is_refusal=lambda error: isinstance(error, Refused),
    )


def use(lines: KeptConnections[Line]) -> Line:
    with lines.acquire() as lease:
        lease.connection.ask()
        return lease.connection


def take_all(lines: KeptConnections[Line], count: int = 3) -> list[Lease[Line]]:
    return [lines.acquire() for _ in range(count)]


def at_once(count: int, work: Callable[[], object]) -> list[object]:
    """Run `work` in so many threads and return what came of each, errors included."""
    ready, results = threading.Barrier(count), list[object]()

    def run() -> None:
        ready.wait(30)
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_nothing_is_made_before_the_first_use(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class PatchedQueue(queue.SimpleQueue[Any]):
        def __init__(self) -> None:
            made.append(self)

    lines = lines_to(server)
    monkeypatch.setattr(queue, "SimpleQueue", PatchedQueue)  # as gevent does, when it patches late
    assert (server.opened, lines.in_use) == (0, 0)
    use(lines)
    assert len(made) == server.opened == 1


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """Let no garbage be collected but by those who ask for it."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
def test_lease_that_hangs_in_a_cycle_of_garbage_is_found_by_whoever_waits(server: Server) -> None:
    lines = lines_to(server, 2, timeout=60)
    for _ in range(2):
        cycle: list[object] = [lines.acquire()]
        cycle.append(cycle)
    del cycle
    use(lines)
    assert len(server.open_lines) == 1
    assert len(take_all(lines, 2)) == 2


def test_garbage_is_not_collected_for_each_who_waits_for_what_is_in_use(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    lines = lines_to(server, 1, timeout=0.1)
    lease = lines.acquire()
    errors = [type(error) for error in at_once(5, lines.acquire)]
    assert errors == [TimeoutError] * 5
    assert collected == [1]
    del lease


def test_first_use_by_many_threads_at_once_makes_one_pool(server: Server) -> None:
    lines, everybody_has_one = lines_to(server, 4, timeout=0.1), threading.Barrier(4)

    def hold() -> None:
        with lines.acquire():
            everybody_has_one.wait(30)

    at_once(4, hold)
    assert server.opened == 4
    leases = take_all(lines, 4)
    with pytest.raises(TimeoutError):
        lines.acquire()
    assert lines.in_use == len(leases) == 4


def test_connection_that_came_back_last_is_used_first(server: Server) -> None:
    lines = lines_to(server)
    first, second, _ = take_all(lines)
    for lease in (first, second):
        with lease:
            pass
    assert [use(lines).number for _ in range(3)] == [1, 1, 1]


def test_more_than_the_limit_wait_and_are_told_the_setting(server: Server) -> None:
    lines = lines_to(server, timeout=0.05)
    leases = take_all(lines)
    assert lines.in_use == 3
    with pytest.raises(TimeoutError, match=r"3 connections \(max_connections\) were in use for 0.05 seconds"):
        lines.acquire()
    with leases[0]:
        pass
    assert lines.in_use == 2
    assert use(lines).number == 0


def test_a_caller_that_waits_gets_the_connection_that_comes_free(server: Server) -> None:
    lines = lines_to(server, 2)
    assert {type(one) for one in at_once(16, lambda: [use(lines) for _ in range(50)])} == {list}
    assert server.opened <= 2
    assert lines.in_use == 0


def test_connection_that_has_idled_too_long_is_closed_and_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    lines = lines_to(server, max_idle=60)
    leases = []
    for number in range(3):
        seconds[0] = number * 10.0
        leases += take_all(lines, 1)
    for lease in leases:
        with lease:
            pass
    seconds[0] = 65.0
    assert use(lines).number == 2
    assert server.open_lines == [1, 2], "one a use, from the oldest on"
    seconds[0] = 200.0
    assert use(lines).number == 3
    assert server.open_lines == [3]


def test_broken_connection_is_closed(server: Server) -> None:
    lines = lines_to(server)
    with lines.acquire() as lease:
        lease.is_broken = True
    assert (server.open_lines, lines.in_use) == ([], 0)
    assert not lines.acquire().is_broken


@pytest.mark.parametrize(
    ("error", "is_kept"), [(StoreError("gone"), True), (ValueError(), False), (SystemExit(), False)]
)
def test_only_errors_of_a_store_leave_a_connection_in_a_known_state(
    server: Server, error: BaseException, is_kept: bool
) -> None:
    lines = lines_to(server)
    with pytest.raises(type(error)), lines.acquire():
        raise error
    assert bool(server.open_lines) == is_kept
    assert lines.in_use == 0


def one_in_use_others_idle(lines: KeptConnections[Line]) -> Lease[Line]:
    """Open as many connections as there may be; return the lease of the one that stays in use."""
    first, *others = take_all(lines)
    for lease in others:
        with lease:
            pass
    return first


def test_idle_connections_are_dropped_and_others_opened(server: Server) -> None:
    lines = lines_to(server)
    first = one_in_use_others_idle(lines)
    lines.drop_idle()
    assert server.open_lines == [0]
    with first:
        pass
    assert use(lines).number == 0


def test_closing_closes_what_idles_and_what_comes_back_later(server: Server) -> None:
    lines = lines_to(server)
    first = one_in_use_others_idle(lines)
    lines.close()
    assert server.open_lines == [0]
    with first:
        pass
    assert server.open_lines == []
    assert use(lines).number == 3, "it may be used again"


def test_connections_are_closed_with_their_owner(server: Server) -> None:
    lines = lines_to(server)
    use(lines)
    del lines
    gc.collect()
    assert server.open_lines == []


# A server that refuses connections


def test_error_of_connecting_costs_no_permit(server: Server) -> None:
    def fail() -> Line:
        raise OSError("unreachable")

    lines = KeptConnections(
        fail, server.terminate, max_connections=2, max_idle=60, timeout=0.05, is_refusal=lambda _: False
    )
    for _ in range(5):
        with pytest.raises(OSError, match="unreachable"):
            lines.acquire()
    assert lines.in_use == 0


def test_refused_caller_waits_for_a_connection_to_come_free(server: Server) -> None:
    server.limit = 2
    lines = lines_to(server, 15, timeout=30)

    def hold() -> None:
        for _ in range(20):
            with lines.acquire():
                time.sleep(0.001)

    assert at_once(12, hold) == [None] * 12
    assert len(server.open_lines) == 2
    assert lines.in_use == 0


def test_refused_caller_with_no_connection_to_wait_for_is_told_at_once(server: Server) -> None:
    server.limit = 0
    lines = lines_to(server, 2, timeout=60)
    for _ in range(3):
        with pytest.raises(Refused):
            lines.acquire()
    server.limit = 1
    assert use(lines).number == 0


def test_refused_caller_waits_no_longer_than_the_timeout(server: Server) -> None:
    server.limit = 1
    lines = lines_to(server, 3, timeout=0.2)
    with lines.acquire(), pytest.raises(Refused):
        lines.acquire()
    assert lines.in_use == 0


def test_server_that_refused_is_asked_again_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "REFUSED_SECONDS", 0.0)
    server.limit = 1
    lines = lines_to(server, 3, timeout=0.1)
    with lines.acquire(), pytest.raises(Refused):
        lines.acquire()
    server.limit = 3
    use(lines)
    assert len({lease.connection.number for lease in take_all(lines)}) == 3


# Exceptions from outside


def whole(lines: KeptConnections[Line], server: Server, limit: int) -> bool:
    """Tell whether every permit is there, and no more connections are open than may be."""
    leases = take_all(lines, limit)
    assert lines.in_use == limit
    assert len(server.open_lines) <= limit
    assert len({lease.connection.number for lease in leases}) == limit, "a connection is used twice"
    for lease in leases:
        with lease:
            lease.connection.ask()
    return lines.in_use == 0


@pytest.mark.parametrize("ends", ["well", "broken", "by an error"])
def test_interruption_at_any_instruction_costs_no_permit_and_no_connection_is_shared(
    server: Server, ends: str
) -> None:
    lines = lines_to(server, 2, timeout=0.2)

    def call() -> None:
        try:
            with lines.acquire() as lease:
                lease.connection.is_asked = True
                lease.is_broken = ends == "broken"
                if ends == "by an error":
                    raise ValueError
                lease.connection.is_asked = False
        except ValueError:
            pass

    seen = 0
    for seen in interruptions(call, kept.__file__, "opcode"):
        assert whole(lines, server, 2), f"after instruction {seen}"
        if seen % 2:
            lines.drop_idle()  # so that it opens one, too
    assert seen > 50


def test_interruption_of_the_wait_after_a_refusal_costs_no_permit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(kept, "REFUSED_SECONDS", 0.0)
    lines = lines_to(server, 2, timeout=0.01)
    use(lines)

    def call() -> None:
        server.limit = 1
        try:
            with lines.acquire(), lines.acquire():
                pass
        except Refused:
            pass
        finally:
            server.limit = 2

    seen = 0
    for seen in interruptions(call, kept.__file__, "opcode"):
        server.limit = 2
        use(lines)
        assert whole(lines, server, 2), f"after instruction {seen}"
        lines.drop_idle()
        use(lines)
    assert seen > 50


def test_signals_at_random_moments_cost_no_permit(server: Server) -> None:
    lines = lines_to(server, 2, timeout=0.5)

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for number in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.000007 * (number % 50))
                while True:
                    use(lines)
            except Interrupted:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 300
    assert whole(lines, server, 2)


# Forks


def in_child(work: Callable[[], bool]) -> int:
    """Run `work` in a forked process and return its exit code: 0 where it returned True."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_forked_process_begins_anew_and_closes_nothing_of_the_parents(server: Server, is_told: bool) -> None:
    lines = lines_to(server, 2, timeout=0.1)
    held, inherited = lines.acquire(), use(lines)
    held_line = held.connection

    def work() -> bool:
        if is_told:
            lines.abandon()
        leases = take_all(lines, 2)
        numbers = {lease.connection.number for lease in leases}
        with held:
            held.is_broken = True
        lines.close()
        gc.collect()
        return numbers == {2, 3} and not inherited.is_closed and not held_line.is_closed

    assert in_child(work) == 0
    assert use(lines) is inherited


def test_signal_during_a_wait_for_a_connection_costs_no_permit(server: Server) -> None:
    lines = lines_to(server, 1, timeout=30)

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with lines.acquire():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            began = time.monotonic()
            with pytest.raises(Interrupted):
                lines.acquire()
            assert time.monotonic() - began < 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert whole(lines, server, 1)
