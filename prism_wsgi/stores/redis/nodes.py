"""The servers that hold a store's keys, as `Server` asks for them: here one; `Cluster` has several."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from prism_wsgi.stores.kept import Connections

Node = Hashable
"""The name of a server among the others."""


class Nodes(Protocol):
    """The servers that hold a store's keys, which key is where, and the connections to each.

    `max_attempts` limits how often a command is tried, besides the store's `timeout`. `is_one` says that every key is
    on one server, which runs the commands of one round trip in their order.
    """

    max_attempts: int
    is_one: bool

    def node_of(self, key: str | bytes) -> Node:
        """Return the server that holds the key. Raises `redis.ConnectionError` if no server tells."""
        ...

    def masters(self) -> Sequence[Node]:
        """Return every server that holds keys. Raises `redis.ConnectionError` if no server tells."""
        ...

    def connections(self, node: Node) -> Connections[Any]:
        """Return the connections to a server."""
        ...

    def has_replica(self, node: Node) -> bool:
        """Tell whether a write must have reached a replica of the server before a write to another server."""
        ...

    def note_failure(self, node: Node) -> None:
        """Remember that a server did not answer, or takes no writes."""
        ...

    def note_redirect(self, answer: Any) -> Node:
        """Remember that keys have moved; return the server to which a redirection leads."""
        ...

    def close(self) -> None:
        """Close the idle connections."""
        ...

    def abandon(self) -> None:
        """Leave every connection to the process that this one was forked from."""
        ...


class OneServer:
    """One server with every key, or the one behind a name that leads to another server after a failover."""

    is_one = True

    def __init__(self, connections: Connections[Any], max_attempts: int) -> None:
        self._connections = connections
        self.max_attempts = max_attempts

    def node_of(self, key: str | bytes) -> Node:  # noqa: ARG002 - Nodes
        return None

    def masters(self) -> Sequence[Node]:
        return [None]

    def connections(self, node: Node) -> Connections[Any]:  # noqa: ARG002 - Nodes
        return self._connections

    def has_replica(self, node: Node) -> bool:  # noqa: ARG002 - Nodes
        return False  # there is no other server

    def note_failure(self, node: Node) -> None:  # noqa: ARG002 - Nodes
        self._connections.drop_idle()

    def note_redirect(self, answer: Any) -> Node:
        """Do nothing: a single server sends no redirections."""

    def close(self) -> None:
        self._connections.close()

    def abandon(self) -> None:
        self._connections.abandon()
