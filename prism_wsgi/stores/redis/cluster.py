"""The masters of a cluster, the slots that each serves, and the connections to each."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from secrets import SystemRandom
from typing import Any, cast

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from prism_wsgi.stores.kept import Connections
from prism_wsgi.stores.redis.addresses import Address, Target, ask
from prism_wsgi.stores.redis.nodes import Node

_QUICK_SECONDS = 1.0
"""The time for which the store waits for a node's list of slots before it asks another."""


@dataclass(frozen=True)
class SlotMap:
    """The master that serves each slot, every master, those with a replica, and every node, replicas included."""

    owners: list[Address | None]
    masters: frozenset[Address]
    copied: frozenset[Address]
    nodes: frozenset[Address]


class Cluster:
    """The masters of a cluster, each with its kept connections.

    After a failure or a redirection, it asks a node for the slots again. No step needs a lock: one thread reads a
    map, and one assignment replaces the earlier map.
    """

    is_one = False
    max_attempts = sys.maxsize  # a failover takes longer than a few attempts; the store's timeout bounds them

    def __init__(self, target: Target, keep: Callable[[Callable[[], Any]], Connections[Any]], timeout: float) -> None:
        self._dial, self._first_nodes = target.dial, target.addresses
        self._keep = keep
        self._timeout = timeout
        self._open: dict[Address, Connections[Any]] = {}
        self._known: list[Address] = []
        self._map: SlotMap | None = None

    def node_of(self, key: str | bytes) -> Node:
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        owner = self._present_map().owners[slot]
        if owner is None:
            self._map = None
            raise redis.ConnectionError(f"no master serves slot {slot} of the cluster")
        return owner

    def masters(self) -> Sequence[Node]:
        slots = self._present_map()
        if None in slots.owners:
            self._map = None
            raise redis.ConnectionError("some slots of the cluster are served by no master")
        return list(slots.masters)

    def connections(self, node: Node) -> Connections[Any]:
        address = cast(Address, node)
        found = self._open.get(address)
        return found or self._open.setdefault(address, self._keep(partial(self._dial.connect, address)))

    def has_replica(self, node: Node) -> bool:
        return self._map is not None and node in self._map.copied

    def note_failure(self, node: Node) -> None:
        address = cast(Address, node)
        self._map = None
        self._known = [*(one for one in self._known if one != address), address]  # it is asked last
        if (connections := self._open.get(address)) is not None:
            connections.drop_idle()

    def note_redirect(self, answer: Any) -> Node:
        if isinstance(answer, redis.exceptions.AskError) and not isinstance(answer, redis.exceptions.MovedError):
            return answer.node_addr  # one key of a slot that is moving; the other keys are where they were
        self._map = None
        if not isinstance(answer, redis.exceptions.MovedError):
            return None
        self._known = [answer.node_addr, *self._known]
        return answer.node_addr

    def close(self) -> None:
        for connections in list(self._open.values()):
            connections.close()

    def abandon(self) -> None:
        for connections in list(self._open.values()):
            connections.abandon()

    def _present_map(self) -> SlotMap:
        return self._map or self._read_map()

    def _read_map(self) -> SlotMap:
        deadline = time.monotonic() + self._timeout
        failure: Exception = redis.ConnectionError("no node has slots")
        for address in dict.fromkeys((*self._known, *self._first_nodes)):
            if time.monotonic() > deadline:
                break
            try:
                connection = self._dial.connect(address, min(_QUICK_SECONDS, self._timeout))
                slots = slots_in(ask(connection, "CLUSTER", "SLOTS"), address[0])
                connection.disconnect()
            except (redis.RedisError, OSError) as error:
                failure = error
                continue
            if slots.masters:
                self._use(slots)
                return slots
        raise redis.ConnectionError(
            f"no node tells which master serves which slot: {type(failure).__name__}: {failure}"
        ) from failure

    def _use(self, slots: SlotMap) -> None:
        known = list(slots.nodes)
        SystemRandom().shuffle(known)  # so that not all processes ask the same node
        self._known, self._map = known, slots
        for address in set(self._open) - slots.masters:
            with suppress(KeyError):
                self._open.pop(address).close()


def slots_in(answer: list[list[Any]], host: str) -> SlotMap:
    """Return the map in the answer of a node at `host` to CLUSTER SLOTS."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    nodes: set[Address] = set()
    copied: set[Address | None] = set()
    for start, end, *servers in answer:
        addresses = [_address(server, host) for server in servers]
        owners[start : end + 1] = [addresses[0]] * (end + 1 - start)
        nodes.update(one for one in addresses if one is not None)
        if len(addresses) > 1:
            copied.add(addresses[0])
    masters = frozenset(one for one in set(owners) if one is not None)
    return SlotMap(owners, masters, masters & copied, frozenset(nodes))


def _address(server: list[Any], host: str) -> Address | None:
    """Return the address of a node. A node may leave out its name, or not know another's."""
    name = (server[0] or host.encode()).decode()
    return None if name == "?" else (name, int(server[1]))
