"""The limits that prism_wsgi sets itself, and whether a run met them. A missed one fails nothing: machines differ."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report.figures import Figures, added, fastest_peer, messages
from benchmarks.subjects.registry import FLOOR, PRISM

_SERVERS = ("postgresql", "mariadb")
_SQL = ("sqlite", *_SERVERS)

_OF_THE_FLOOR = {
    "memory": {"read": 2.0, "write": 2.0},
    "sqlite": {"read": 1.7, "write": 1.7},
    "postgresql": {"read": 1.35, "write": 1.25, "new": 1.25},
    "mariadb": {"read": 1.35, "write": 1.25, "new": 1.25},
}
_AHEAD_OF_PEERS = {
    "sqlite": {"read": 10.0, "write": 8.0},
    "postgresql": {"read": 4.0, "write": 2.5},
    "mariadb": {"read": 4.0, "write": 2.5},
}
_MESSAGES = {"untouched": 0, "forged_read": 0, "expired": 0, "read": 1, "write": 2, "new": 1}


@dataclass(frozen=True)
class Target:
    """One limit: the name of the measurement, the limit, and the measured value."""

    name: str
    limit: str
    measured: str
    is_met: bool


def targets(figures: Figures) -> list[Target]:
    """Return every target for which the run has figures."""
    return [
        *_untouched(figures),
        *_bad_cookies(figures),
        *_beside_the_floor(figures),
        *_beside_the_peers(figures),
        *_messages(figures),
        *_large_sessions(figures),
        *_threads(figures),
        *_rows(figures),
        *_touches(figures),
        *_footprint(figures),
    ]


def _at_most(name: str, value: float, limit: float, unit: str) -> Target:
    return Target(name, f"at most {limit:g}{unit}", f"{value:.2f}{unit}", value <= limit)


def _at_least(name: str, value: float, limit: float, unit: str) -> Target:
    return Target(name, f"at least {limit:g}{unit}", f"{value:.2f}{unit}", value >= limit)


def _untouched(figures: Figures) -> Iterator[Target]:
    valid = added(figures, "memory", PRISM, "untouched")
    if valid is None:
        return
    limit = 3 * figures["digest_us"] + 1
    name = "untouched, valid cookie"
    yield Target(name, f"3 hmac.digest + 1 µs = {limit:.2f} µs", f"{valid:.2f} µs", valid <= limit)


def _bad_cookies(figures: Figures) -> Iterator[Target]:
    """In memory, where a valid cookie's session is cheapest."""
    for bad, valid, title in (
        ("forged", "untouched", "forged cookie, session not used"),
        ("forged_read", "read", "forged cookie, one key read"),
        ("expired", "read", "expired cookie, one key read"),
    ):
        costs, limit = (added(figures, "memory", PRISM, scenario) for scenario in (bad, valid))
        if costs and limit:
            yield Target(title, f"a valid one's {limit:.2f} µs", f"{costs:.2f} µs", costs <= limit)


def _beside_the_floor(figures: Figures) -> Iterator[Target]:
    for engine, limits in _OF_THE_FLOOR.items():
        for scenario, limit in limits.items():
            ours, least = added(figures, engine, PRISM, scenario), added(figures, engine, FLOOR, scenario)
            if ours and least:
                yield _at_most(f"{engine}, {scenario}, of the floor", ours / least, limit, "x")


def _beside_the_peers(figures: Figures) -> Iterator[Target]:
    for scenario in ("read", "write"):
        ours, beaker = (added(figures, "memory", name, scenario) for name in (PRISM, "Beaker"))
        if ours and beaker:
            yield _at_least(f"memory, {scenario}, faster than Beaker", beaker / ours, 3, "x")
    for engine, limits in _AHEAD_OF_PEERS.items():
        for scenario, limit in limits.items():
            ours, peer = added(figures, engine, PRISM, scenario), fastest_peer(figures, engine, scenario)
            if ours and peer:
                yield _at_least(f"{engine}, {scenario}, faster than the fastest peer", peer / ours, limit, "x")


def _messages(figures: Figures) -> Iterator[Target]:
    for engine in _SQL:
        counted = {scenario: messages(figures, engine, PRISM, scenario) for scenario in _MESSAGES}
        if None not in counted.values():
            wanted, found = (", ".join(f"{n:g}" for n in counts.values()) for counts in (_MESSAGES, counted))
            yield Target(f"{engine}, messages for {', '.join(_MESSAGES)}", wanted, found, wanted == found)


def _large_sessions(figures: Figures) -> Iterator[Target]:
    for engine in _SQL:
        for scenario in ("read", "write"):
            small, large = (added(figures, engine, PRISM, name) for name in (scenario, f"{scenario}_4k"))
            if small and large:
                yield _at_most(f"{engine}, {scenario}, 4 KB beside 200 bytes", large / small, 1.5, "x")


def _threads(figures: Figures) -> Iterator[Target]:
    for engine, rates in figures.get("threads", {}).items():
        name = f"{engine}, loads by 8 threads, of raw connections"
        yield _at_least(name, rates["store"] / rates["raw"], 0.8, "x")


def _rows(figures: Figures) -> Iterator[Target]:
    for engine, (few, many) in figures.get("rows", {}).items():
        name = f"{engine}, from {few['rows']:,} to {many['rows']:,} rows"
        yield _at_most(f"{name}, load", many["load_us"] / few["load_us"], 1.5, "x")
        yield _at_least(f"{name}, inserts", many["inserts_per_second"] / few["inserts_per_second"], 0.8, "x")


def _touches(figures: Figures) -> Iterator[Target]:
    touches = figures.get("touches")
    if touches:
        load, day = touches["under_load"], touches["all_day"]
        yield _at_least("postgresql, HOT touches under load", load["hot"] * 100, 95, " %")
        yield _at_least("postgresql, HOT touches all day long", day["hot"] * 100, 95, " %")
        limit = f"at most {load['allowed']}, one a session and interval"
        yield Target(
            "postgresql, touches under load", limit, f"{load['updates']}", load["updates"] <= load["allowed"]
        )


def _footprint(figures: Figures) -> Iterator[Target]:
    footprint = figures.get("footprint")
    if footprint:
        times = footprint["import_ms"]
        more = times["prism_wsgi"] - times["webob"]
        yield _at_most("import prism_wsgi, beyond import webob", more, 60, " ms")
        yield _at_most("memory of a session in MemoryStore", footprint["bytes_per_session"], 1024, " bytes")
