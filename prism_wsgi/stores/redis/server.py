"""The Redis server as RedisStore asks it: several commands at once, again where that is harmless."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import redis

from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.retry import attempts
from prism_wsgi.stores.kept import Connections
from prism_wsgi.stores.redis.fields import Value

MAX_ATTEMPTS = 3

_logger = logging.getLogger("prism_wsgi")


class Script:
    """A Lua script. As the first word of a command it stands before the one key that it is about."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


Answer = Any
Command = tuple[Value | Script, ...]


class Server:
    """Asks a server over connections that are each used by one thread at a time.

    `place` says where it is, without a password. `timeout` (seconds) bounds how long a question is repeated.
    """

    def __init__(self, connections: Connections[Any], place: str, timeout: float, *, warns_of_eviction: bool) -> None:
        self.connections = connections
        self.place = place
        self._timeout = timeout
        self._warns_of_eviction = warns_of_eviction
        self._numbers = itertools.count(1)
        self._policy: str | None = None
        self._is_policy_known = False

    def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Return the answer to each command. Raises StoreUnavailable where one of them is an error."""
        return self.checked(self.try_to_ask(commands) or []) if commands else []

    def try_to_ask(
        self, commands: Sequence[Command], is_done: Callable[[], bool] | None = None
    ) -> list[Answer] | None:
        """Return the answer to each command, an error of the server as a `redis.ResponseError`.

        `is_done` is asked after the connection broke: where it finds that the commands took effect, the answer is
        None. Without it they can be repeated without harm. Raises StoreUnavailable when the server does not answer.
        """
        if not self._is_policy_known:
            self._read_policy()
        failure: Exception = TimeoutError()
        for number in attempts(MAX_ATTEMPTS, seconds=self._timeout):
            if number and is_done is not None and is_done():
                return None
            answers, failure_now = self._exchange_once(commands)
            if failure_now is None:
                assert answers is not None
                return answers
            failure = failure_now
            self.connections.drop_idle()
        raise self.unavailable(failure) from failure

    def checked(self, answers: list[Answer]) -> list[Answer]:
        """Return the answers. Raises StoreUnavailable where one of them is an error."""
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise self.unavailable(answer) from answer
        return answers

    def unavailable(self, error: BaseException) -> StoreUnavailable:
        """Return the error that says what went wrong."""
        # A server that does not know a command repeats its arguments, which may be a session's data.
        message = str(error).partition(", with args beginning with")[0]
        return StoreUnavailable(f"Redis at {self.place} failed: {type(error).__name__}: {message}")

    @property
    def eviction_policy(self) -> str | None:
        """The server's `maxmemory-policy`, read once; None where it does not say."""
        if not self._is_policy_known:
            self._read_policy()
        return self._policy

    @property
    def is_evicting_any_key(self) -> bool:
        """Whether the server, when it is full, throws away keys that have no expiry, too."""
        return (self.eviction_policy or "").startswith("allkeys-")

    def _exchange_once(self, commands: Sequence[Command]) -> tuple[list[Answer] | None, Exception | None]:
        """Return the answers, or the failure after which a new connection may help."""
        try:
            lease = self.connections.acquire()
        except redis.ConnectionError as error:
            return None, error
        except (redis.RedisError, TimeoutError) as error:
            raise self.unavailable(error) from error
        with lease:
            try:
                answers = self._exchange(lease.connection, commands)
            except (redis.ConnectionError, OSError) as error:
                lease.is_broken = True
                return None, error
            except redis.RedisError as error:
                lease.is_broken = True
                raise self.unavailable(error) from error
        # The primary has become a replica: the name may lead to another server by now.
        demoted = next((one for one in answers if isinstance(one, redis.ReadOnlyError)), None)
        return answers, demoted

    def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Answer]:
        answers = self._talk(connection, [_spelled(one) for one in commands])
        forgotten = [number for number, one in enumerate(answers) if isinstance(one, redis.exceptions.NoScriptError)]
        if forgotten:
            again = self._talk(connection, [_spelled(commands[number], in_full=True) for number in forgotten])
            for number, answer in zip(forgotten, again, strict=True):
                answers[number] = answer
        return answers

    def _talk(self, connection: Any, commands: list[Command]) -> list[Answer]:
        # The last answer proves that all of them are for these questions and nobody else's.
        proof = b"%d" % next(self._numbers)
        connection.send_packed_command(connection.pack_commands([*commands, ("ECHO", proof)]))
        *answers, proven = [_next_answer(connection) for _ in range(len(commands) + 1)]
        if isinstance(proven, redis.ResponseError):
            raise proven
        if proven != proof:
            raise redis.ConnectionError("the answers on this connection were for other questions")
        return answers

    def _read_policy(self) -> None:
        self._is_policy_known = True  # whatever comes of it: it is read once, and by one thread
        try:
            (answer,) = self.try_to_ask([("INFO", "memory")]) or [None]
        except BaseException:
            self._is_policy_known = False
            raise
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        _, _, rest = text.partition("maxmemory_policy:")
        self._policy = rest.split()[0] if rest.split() else None
        if self.is_evicting_any_key and self._warns_of_eviction:
            _logger.warning(
                "Redis at %s evicts any key when it is full (maxmemory-policy %s): sessions may end early, and "
                "destroy_all() is refused, since the list of a user's sessions may be gone. Set maxmemory-policy to "
                "noeviction or to a volatile one, or accept it with RedisStore(..., allow_eviction=True)",
                self.place,
                self._policy,
            )


def _next_answer(connection: Any) -> Answer:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _spelled(command: Command, *, in_full: bool = False) -> Command:
    """Return the command as the server takes it; `in_full` where it does not know the script yet."""
    script, *rest = command
    if not isinstance(script, Script):
        return command
    return ("EVAL", script.source, 1, *rest) if in_full else ("EVALSHA", script.sha, 1, *rest)
