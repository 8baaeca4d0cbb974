"""A psycopg connection that limits its wait for the server's answer."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

_ResultT = TypeVar("_ResultT")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that closes, and raises OperationalError, when an answer takes longer than `answer_seconds`.

    If the server hangs or the network drops every packet, other limits do not work: the server itself enforces
    `statement_timeout`, and `tcp_user_timeout` ends once the statement is acknowledged. libpq has no such limit.
    """

    answer_seconds = 5.0

    def wait(self, gen: Generator[Any, Any, _ResultT], *arguments: Any, **named: Any) -> _ResultT:
        """Run psycopg's generator of a wait; every wait of a connection goes through here."""
        return super().wait(self._until(gen, time.monotonic() + self.answer_seconds), *arguments, **named)

    def _until(self, gen: Generator[Any, Any, _ResultT], deadline: float) -> Generator[Any, Any, _ResultT]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg sends "not ready" ten times a second, so that interrupts are noticed
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.answer_seconds} seconds")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _ResultT = end.value
            return result
