"""The Redis servers of a store: several commands in one round trip, each to the server of its key."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from prism_wsgi.errors import StoreUnavailable
from prism_wsgi.retry import attempts
from prism_wsgi.stores.redis.fields import Value
from prism_wsgi.stores.redis.nodes import Node, Nodes

MAX_ATTEMPTS = 3

_SCANNED = 1000

_logger = logging.getLogger("prism_wsgi")

_FoundT = TypeVar("_FoundT")


class Script:
    """A Lua script, the first word of a command; the second is the one key that it works on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


Answer = Any
Command = tuple[Value | Script, ...]
"""The words of a command, the second of which is its key."""


@dataclass(frozen=True, slots=True)
class Once:
    """A command that must not be repeated blindly.

    If its answer was lost, `was_done` tells whether the command took effect.
    """

    command: Command
    was_done: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Copied:
    """A command that is answered only when a replica has its effect too.

    It makes a difference only if keys are on several servers: a replica of a single server has its writes in order.
    """

    command: Command


DONE = object()
"""The answer to a command of `Once` that took effect although its answer was lost."""

NOT_SENT = object()
"""The answer to a command of a stage that did not begin."""

_PENDING = object()

Request = Command | Once | Copied


@dataclass(slots=True, eq=False)
class _Task:
    """A command that is being carried out, and its answer."""

    command: Command
    was_done: Callable[[], bool] | None = None
    is_copied: bool = False
    node: Node = None
    """The server for a command without a key."""
    has_key: bool = True
    redirect: Node = None
    """The server that another one named for the next attempt."""
    is_asking: bool = False
    """Whether the key is moving to that server, which then serves it only after ASKING."""
    is_lost: bool = False
    """Whether a connection broke before its answer."""
    answer: Answer = _PENDING


class Server:
    """The servers of a store, and the commands sent to them.

    `place` is their address without a password. `timeout` (seconds) limits how long a command is repeated.
    """

    def __init__(self, nodes: Nodes, place: str, timeout: float, *, warns_of_eviction: bool) -> None:
        self.nodes = nodes
        self.place = place
        self._timeout = timeout
        self._warns_of_eviction = warns_of_eviction
        self._numbers = itertools.count(1)
        self._policy: str | None = None
        self._is_policy_known = False

    def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Return the answer to each command. Raises StoreUnavailable if one of them is an error."""
        return self.checked(self.try_to_ask(commands)) if commands else []

    def try_to_ask(self, commands: Sequence[Request]) -> list[Answer]:
        """Return the answer to each command, an error of the server as a `redis.ResponseError`.

        Commands for different servers take effect in any order. Repeating a command must be harmless, unless it is in
        a `Once`. Raises StoreUnavailable when a server does not answer.
        """
        if not self._is_policy_known:
            self._read_policy()
        return self._carry_out([_task_of(one) for one in commands])

    def ask_in_order(self, *stages: Sequence[Request]) -> list[Answer]:
        """Return the answer to each command of several stages; each stage begins when the one before has succeeded.

        A single server runs commands in their order, so all stages are one round trip. With several servers, the
        commands of a stage that did not begin have the answer NOT_SENT.
        """
        if self.nodes.is_one:
            return self.try_to_ask(list(itertools.chain.from_iterable(stages)))
        answers: list[Answer] = []
        for stage in stages:
            # A script answers with a word if it refuses.
            is_over = any(one is NOT_SENT or isinstance(one, redis.RedisError | bytes) for one in answers)
            answers += [NOT_SENT] * len(stage) if is_over else self.try_to_ask(stage)
        return answers

    def ask_each(self, *command: Value) -> list[Answer]:
        """Return the answer of every server that holds keys to a command without a key."""
        return self._carry_out([_Task(command, node=node, has_key=False) for node in self._masters()])

    def ask_once_at(self, node: Node, commands: Sequence[Command]) -> list[Answer]:
        """Return the answers of a server, none if it does not answer or no longer holds the keys."""
        tasks = [_Task(one, node=node, has_key=False) for one in commands]
        return [one.answer for one in tasks] if self._attempt(node, tasks) is None else []

    def node_of(self, key: str | bytes) -> Node:
        """Return the server that holds the key. Raises StoreUnavailable if no server tells."""
        return self._found(lambda: self.nodes.node_of(key))

    def key_on_each(self, start: str) -> list[str]:
        """Return keys whose names begin with `start`, one for every server."""
        keys: dict[Node, str] = {}
        wanted = set(self._masters())
        for number in itertools.count():
            if wanted <= set(keys):
                break
            key = f"{start}{number or ''}"
            keys.setdefault(self.node_of(key), key)
        return list(keys.values())

    def scan(self, match: str) -> Iterator[list[bytes]]:
        """Yield the names of keys that match, on every server, some of them twice.

        Only the server that gave a cursor can continue from it. So the scan begins again after a broken connection,
        because the next one may lead to another server.
        """
        failure: Exception = TimeoutError()
        for _ in attempts(MAX_ATTEMPTS):
            failure_now = yield from self._scan_all(match)
            if failure_now is None:
                return
            failure = failure_now
        raise self.unavailable(failure) from failure

    def checked(self, answers: list[Answer]) -> list[Answer]:
        """Return the answers. Raises StoreUnavailable if one of them is an error."""
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise self.unavailable(answer) from answer
        return answers

    def unavailable(self, error: BaseException) -> StoreUnavailable:
        """Return the error to raise, with the server's place and message."""
        # A server that does not know a command quotes its arguments, which may be a session's data.
        message = str(error).partition(", with args beginning with")[0]
        if isinstance(error, redis.exceptions.AskError) and self.nodes.is_one:
            message += "; it belongs to a cluster, so begin the URL with redis+cluster://"
        return StoreUnavailable(f"Redis at {self.place} failed: {type(error).__name__}: {message}")

    @property
    def eviction_policy(self) -> str | None:
        """The worst `maxmemory-policy` of the servers, read once; None if one of them does not tell it."""
        if not self._is_policy_known:
            self._read_policy()
        return self._policy

    @property
    def is_evicting_any_key(self) -> bool:
        """Whether a full server also deletes keys that have no expiry."""
        return (self.eviction_policy or "").startswith("allkeys-")

    # Finding the servers

    def _masters(self) -> Sequence[Node]:
        return self._found(self.nodes.masters)

    def _found(self, look: Callable[[], _FoundT]) -> _FoundT:
        """Return the result of `look`, tried again until the servers answer."""
        failure: Exception = TimeoutError()
        for _ in attempts(self.nodes.max_attempts, seconds=self._timeout):
            try:
                return look()
            except redis.ConnectionError as error:
                failure = error
        raise self.unavailable(failure) from failure

    def _by_node(self, tasks: Sequence[_Task]) -> dict[Node, list[_Task]]:
        groups: dict[Node, list[_Task]] = {}
        for task in tasks:
            node = task.redirect
            if node is None:
                node = self.nodes.node_of(_key_of(task.command)) if task.has_key else task.node
                task.is_asking = False
            task.redirect = None
            groups.setdefault(node, []).append(task)
        return groups

    # Sending commands

    def _carry_out(self, tasks: list[_Task]) -> list[Answer]:
        """Return the answer to every task, and follow its key to other servers."""
        failure: Exception = TimeoutError()
        left = tasks
        for number in attempts(self.nodes.max_attempts, seconds=self._timeout):
            if number:
                for task in left:
                    if task.is_lost and task.was_done is not None and task.was_done():
                        task.answer = DONE
                left = [one for one in left if one.answer is _PENDING]
            try:
                groups = self._by_node(left)
            except redis.ConnectionError as error:
                failure = error
                continue
            for node, group in groups.items():
                failure = self._attempt(node, group) or failure
            left = [one for one in left if one.answer is _PENDING]
            if not left:
                return [one.answer for one in tasks]
        raise self.unavailable(failure) from failure

    def _attempt(self, node: Node, tasks: Sequence[_Task]) -> Exception | None:
        """Send tasks to a server, and give them its answers; return the failure if some have no answer yet."""
        try:
            lease = self.nodes.connections(node).acquire()
        except TimeoutError as error:
            raise self.unavailable(error) from error
        except redis.RedisError as error:
            self.nodes.note_failure(node)
            if isinstance(error, redis.ConnectionError):
                return error
            raise self.unavailable(error) from error
        failure: Exception | None
        with lease:
            try:
                failure = self._give_answers(
                    tasks, self._exchange(lease.connection, tasks, self.nodes.has_replica(node))
                )
                # The primary has become a replica; its name may lead to another server now.
                is_broken = isinstance(failure, redis.ReadOnlyError)
            except (redis.ConnectionError, OSError) as error:
                failure, is_broken = error, True
                for task in tasks:
                    task.is_lost = True
            except redis.RedisError as error:
                lease.is_broken = True
                self.nodes.note_failure(node)
                raise self.unavailable(error) from error
            lease.is_broken = is_broken
        if is_broken:
            self.nodes.note_failure(node)
        return failure

    def _give_answers(self, tasks: Sequence[_Task], answers: Sequence[Answer]) -> Exception | None:
        """Give tasks their answers, except those for which another server must answer; return one of those."""
        failure: Exception | None = None
        for task, answer in zip(tasks, answers, strict=True):
            if isinstance(answer, redis.exceptions.AskError) and not self.nodes.is_one:
                task.redirect = self.nodes.note_redirect(answer)
                task.is_asking = not isinstance(answer, redis.exceptions.MovedError)
                failure = answer
            elif isinstance(answer, redis.ReadOnlyError | redis.exceptions.ClusterDownError):
                self.nodes.note_redirect(None)
                failure = answer
            else:
                task.answer = answer
        return failure

    def _exchange(self, connection: Any, tasks: Sequence[_Task], has_replica: bool) -> list[Answer]:
        answers = self._say(connection, tasks, has_replica=has_replica)
        forgotten = [number for number, one in enumerate(answers) if isinstance(one, redis.exceptions.NoScriptError)]
        if forgotten:
            again = self._say(connection, [tasks[number] for number in forgotten], in_full=True)
            for number, answer in zip(forgotten, again, strict=True):
                answers[number] = answer
        return answers

    def _say(
        self, connection: Any, tasks: Sequence[_Task], *, in_full: bool = False, has_replica: bool = False
    ) -> list[Answer]:
        commands: list[Command] = []
        places, waits = [], []
        for task in tasks:
            if task.is_asking:
                commands.append(("ASKING",))
            places.append(len(commands))
            commands.append(_spelled(task.command, in_full=in_full))
            if task.is_copied and has_replica:
                waits.append(len(commands))
                # Half of the timeout; then the login goes on, because a lost replica must not stop every login.
                commands.append(("WAIT", 1, int(self._timeout * 500)))
        answers = self._talk(connection, commands)
        for place in waits:
            if isinstance(answers[place], redis.RedisError):
                answers[place - 1] = answers[place]
            elif answers[place] < 1:
                self.nodes.note_redirect(None)  # the next login finds out whether there is a replica still
        return [answers[place] for place in places]

    def _talk(self, connection: Any, commands: list[Command]) -> list[Answer]:
        # The last answer proves that all answers belong to these commands.
        proof = b"%d" % next(self._numbers)
        connection.send_packed_command(connection.pack_commands([*commands, ("ECHO", proof)]))
        *answers, proven = [_next_answer(connection) for _ in range(len(commands) + 1)]
        if isinstance(proven, redis.ResponseError):
            raise proven
        if proven != proof:
            raise redis.ConnectionError("the answers on this connection belong to other commands")
        return answers

    def _scan_all(self, match: str) -> Generator[list[bytes], None, Exception | None]:
        """Yield the names of keys on every server; return the failure that ended it early."""
        for node in self._masters():
            cursor: Value = 0
            while True:
                task = _Task(("SCAN", cursor, "MATCH", match, "COUNT", _SCANNED), node=node, has_key=False)
                failure = self._attempt(node, [task])
                if failure is not None:
                    return failure
                ((cursor, found),) = self.checked([task.answer])
                yield found
                if int(cursor) == 0:
                    break
        return None

    def _read_policy(self) -> None:
        self._is_policy_known = True  # first, so that one thread reads it once
        try:
            answers = self.ask_each("INFO", "memory")
        except BaseException:
            self._is_policy_known = False
            raise
        policies = [_policy_in(one) for one in answers]
        self._policy = next((one for one in policies if one is None or one.startswith("allkeys-")), policies[0])
        if self.is_evicting_any_key and self._warns_of_eviction:
            _logger.warning(
                "Redis at %s evicts any key when it is full (maxmemory-policy %s): sessions may end early, and "
                "destroy_all() is refused, since the list of a user's sessions may be gone. Set maxmemory-policy to "
                "noeviction or to a volatile policy, or accept this one with RedisStore(..., allow_eviction=True)",
                self.place,
                self._policy,
            )


def _policy_in(answer: Answer) -> str | None:
    """Return the `maxmemory-policy` in an answer to INFO, None for an error."""
    text = answer.decode() if isinstance(answer, bytes) else str(answer)
    _, _, rest = text.partition("maxmemory_policy:")
    return rest.split()[0] if rest.split() else None


def _task_of(request: Request) -> _Task:
    if isinstance(request, Once):
        return _Task(request.command, request.was_done)
    return _Task(request.command, is_copied=True) if isinstance(request, Copied) else _Task(request)


def _next_answer(connection: Any) -> Answer:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _key_of(command: Command) -> str | bytes:
    key = command[1]
    assert isinstance(key, str | bytes)
    return key


def _spelled(command: Command, *, in_full: bool = False) -> Command:
    """Return the command for the server; `in_full` sends a script that the server does not know yet."""
    script, *rest = command
    if not isinstance(script, Script):
        return command
    return ("EVAL", script.source, 1, *rest) if in_full else ("EVALSHA", script.sha, 1, *rest)
