"""Messages to the database, counted on the way: by a relay in front of a server, by SQLite's trace.

A message is one exchange with the server that the application waits for: a Query or a Sync of PostgreSQL's
protocol, a command packet of MySQL's, a statement of SQLite.
"""

import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import make_url

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.parts.visitor import Visitor
from benchmarks.report.figures import Figures
from benchmarks.subjects.registry import subjects
from benchmarks.subjects.scenarios import SCENARIOS

WARM_UP = 8  # psycopg prepares a statement at its sixth use
COUNTED = 20

_PORTS = {"postgresql": 5432, "mariadb": 3306}


def measure(places: Places, plan: Plan) -> Figures:
    """Count the messages of every chosen subject in every chosen scenario."""
    return {"messages": count_messages(places, plan.subjects, plan.scenarios)}


class Counter:
    """A number that several connections add to."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, messages: int) -> None:
        self.total += messages


def count_messages(places: Places, names: Sequence[str], scenarios: Sequence[str]) -> list[dict[str, Any]]:
    """Return the messages per request of each subject in each scenario; patches this process, so use a fresh one."""
    counters: dict[str, Counter] = {}
    relayed: Places = {}
    for engine in ("sqlite", *_PORTS):
        if engine in places:
            counters[engine] = Counter()
            relayed[engine] = _through_relay(engine, places[engine], counters[engine])
    if "sqlite" in counters:
        _trace_sqlite(counters["sqlite"])
    figures = []
    for subject in subjects(relayed, names):
        counter = counters[subject.engine]
        for scenario in SCENARIOS:
            if scenario.name in scenarios and subject.serves(scenario.name):
                application = subject.elsewhere.get(scenario.name, subject.application)
                visitor = Visitor(application, scenario, subject.before.get(scenario.name))
                count = _per_request(visitor, counter)
                figures.append(
                    {"name": subject.name, "engine": subject.engine, "scenario": scenario.name, "messages": count}
                )
    return figures


def _per_request(visitor: Visitor, counter: Counter) -> float:
    for _ in range(WARM_UP):
        visitor.send()
    before = counter.total
    for _ in range(COUNTED):
        visitor.send()
    visitor.check()
    return (counter.total - before) / COUNTED


def _through_relay(engine: str, place: str, counter: Counter) -> str:
    if engine == "sqlite":
        return place
    url = make_url(place)
    framing = _postgresql_messages if engine == "postgresql" else _mysql_commands
    port = _start_relay((url.host or "127.0.0.1", url.port or _PORTS[engine]), framing, counter)
    url = url.set(host="127.0.0.1", port=port)
    if engine == "postgresql":
        url = url.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})  # to be read on the way
    return url.render_as_string(hide_password=False)


Count = Callable[[bytes], int]
"""A function that takes a piece of what a client sent, and returns how many messages ended in it."""


def _start_relay(server: tuple[str, int], framing: Callable[[], Count], counter: Counter) -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection(server)
            for one in (client, upstream):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(client, upstream, framing(), counter), daemon=True).start()
            threading.Thread(target=_pump, args=(upstream, client, None, counter), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _pump(source: socket.socket, target: socket.socket, count: Count | None, counter: Counter) -> None:
    try:
        while data := source.recv(65536):
            if count is not None:
                counter.add(count(data))  # before the server can have answered
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()


def _postgresql_messages() -> Count:
    """Count Query and Sync; the first message of a connection has no type byte."""
    buffer, is_started = b"", False

    def count(data: bytes) -> int:
        nonlocal buffer, is_started
        buffer += data
        found = 0
        while True:
            type_bytes = 1 if is_started else 0
            if len(buffer) < type_bytes + 4:
                return found
            length = type_bytes + int.from_bytes(buffer[type_bytes : type_bytes + 4], "big")
            if len(buffer) < length:
                return found
            found += is_started and buffer[:1] in (b"Q", b"S")
            buffer, is_started = buffer[length:], True

    return count


def _mysql_commands() -> Count:
    """Count packets that begin a conversation: their sequence number is 0."""
    buffer = b""

    def count(data: bytes) -> int:
        nonlocal buffer
        buffer += data
        found = 0
        while len(buffer) >= 4:
            length = 4 + int.from_bytes(buffer[:3], "little")
            if len(buffer) < length:
                break
            found += buffer[3] == 0
            buffer = buffer[length:]
        return found

    return count


def _trace_sqlite(counter: Counter) -> None:
    connect = sqlite3.connect

    def traced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda _: counter.add(1))
        return connection

    for module in (sqlite3, sqlite3.dbapi2):
        module.connect = traced_connect  # type: ignore[attr-defined]
