"""A psycopg connection that gives up on a server that says nothing."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

_ResultT = TypeVar("_ResultT")


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself, and raises OperationalError, when an answer takes longer than `answer_seconds`.

    A server that hangs, or a network that swallows everything, ends neither `statement_timeout`, which the server
    would have to see to, nor `tcp_user_timeout`, which is over once the question is acknowledged. libpq has no
    bound of its own.
    """

    answer_seconds = 5.0

    def wait(self, gen: Generator[Any, Any, _ResultT], *arguments: Any, **named: Any) -> _ResultT:
        """Run what psycopg waits with; every wait of a connection goes through here."""
        return super().wait(self._until(gen, time.monotonic() + self.answer_seconds), *arguments, **named)

    def _until(self, gen: Generator[Any, Any, _ResultT], deadline: float) -> Generator[Any, Any, _ResultT]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # nothing is ready ten times a second, so that interrupts are noticed
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.answer_seconds} seconds")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _ResultT = end.value
            return result
