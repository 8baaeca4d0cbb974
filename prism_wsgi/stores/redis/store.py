"""The store in Redis or Valkey, which delete expired sessions by themselves."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import ConfigError, SessionConflict, SessionExists, SessionGone, StoreUnavailable
from prism_wsgi.fork import notify_after_fork
from prism_wsgi.stores.base import KEPT_EXPIRED_MS, StoredSession, StoreStats, checked_owner, measured, was_saved
from prism_wsgi.stores.url_settings import takes_settings_in_url

try:
    import redis
except ImportError as error:
    raise ImportError('RedisStore needs redis-py; install it: pip install "prism_wsgi[redis]"') from error

from prism_wsgi.stores.kept import MAX_CONNECTIONS, MAX_IDLE, KeptConnections, check_limits
from prism_wsgi.stores.redis.addresses import Kind, place_of, target_of
from prism_wsgi.stores.redis.cluster import Cluster
from prism_wsgi.stores.redis.connections import PooledConnections, keep_connections
from prism_wsgi.stores.redis.fields import USE, Value, fields_of, ids_in, named, present_and_absent, session_of
from prism_wsgi.stores.redis.nodes import Nodes, OneServer
from prism_wsgi.stores.redis.scripts import END, SAVE, TOUCH, UNDO
from prism_wsgi.stores.redis.sentinel import MasterConnections
from prism_wsgi.stores.redis.server import DONE, MAX_ATTEMPTS, Answer, Command, Copied, Once, Request, Server
from prism_wsgi.stores.redis.upkeep import Upkeep, glob

MARGIN_MS = 60_000
"""The time in ms for which an index entry outlives its session, since servers' clocks differ. A marker's time too."""

_BATCH = 200
_SCANNED = 1000

_META = ("version", "created_at", "expires_at", "user", "superseded", "actor")


class RedisStore:
    """A store in Redis or Valkey (6.2 or newer), which deletes sessions ten minutes after they expired.

    `url_or_client` is a URL, or your `redis.Redis` client, which must not decode responses. URLs begin with
    `redis://`, `rediss://` for TLS, `unix://`, `redis+sentinel://host,host2/service` for a master that sentinels
    watch, or `redis+cluster://host,host2` for a cluster; `valkey` may stand for `redis`. `prefix` begins the name of
    every key. `timeout` (seconds) limits connecting, waiting for a connection, waiting for an answer, and waiting for
    a failover. A process opens at most `max_connections` connections, to each master of a cluster; if the server
    allows fewer, requests wait for one of these. A connection that was idle for more than `max_idle` seconds is
    closed and not used again. Your client keeps its limits.

    Each verb in a request is one round trip to a single server. A full server whose `maxmemory-policy` is one of
    `allkeys-*` deletes any key: it ends sessions early, and may forget which sessions a user has. The store warns of
    it once, and `destroy_all` raises ConfigError there unless `allow_eviction` is set. Redis answers before it has
    written to disk or to a replica, so a crash or a failover may lose the last writes: a session that has just ended
    may come back.

    Nothing is connected before the first use. Raises ConfigError for a URL, client or setting that cannot work.
    """

    @takes_settings_in_url
    def __init__(
        self,
        url_or_client: "str | redis.Redis",
        *,
        prefix: str = "prism:",
        timeout: float = 5.0,
        max_connections: int = MAX_CONNECTIONS,
        max_idle: float = MAX_IDLE,
        allow_eviction: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        check_limits(timeout=timeout, max_idle=max_idle, max_connections=max_connections)
        if not isinstance(prefix, str) or not prefix or not prefix.isprintable():
            raise ConfigError(f'prefix must be printable text such as "prism:", not {prefix!r}')
        if not isinstance(allow_eviction, bool):
            raise ConfigError(f"allow_eviction must be True or False, not {allow_eviction!r}")
        if isinstance(url_or_client, str):
            nodes, place = _nodes_of(
                url_or_client, {"max_connections": max_connections, "max_idle": max_idle, "timeout": timeout}
            )
        else:
            if (max_connections, max_idle) != (MAX_CONNECTIONS, MAX_IDLE):
                raise ConfigError("max_connections and max_idle go with a URL; your own client has its own pool")
            pool = _pool_of_client(url_or_client)
            nodes = OneServer(PooledConnections(pool), MAX_ATTEMPTS)
            # A pool of redis-py's Sentinel knows the address by the name of a service.
            place = place_of(pool.connection_kwargs, getattr(pool, "service_name", None))
        self._server = Server(nodes, place, timeout, warns_of_eviction=not allow_eviction)
        self._prefix = prefix
        self._clock = clock
        self._allow_eviction = allow_eviction
        self._upkeep = Upkeep(f"{prefix}user=", MARGIN_MS)
        notify_after_fork(self)

    def __repr__(self) -> str:
        return f"<RedisStore {self._server.place}>"

    def close(self) -> None:
        """Close the connections of the store; a client of the application stays as it is."""
        self._server.nodes.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._server.nodes.abandon()

    @property
    def eviction_policy(self) -> str | None:
        """The server's `maxmemory-policy`, read once; None if the server does not tell it."""
        return self._server.eviction_policy

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session, or None when it is unknown or expired."""
        session = self._stored(session_id)
        return None if session is None or session.is_expired(self._now()) else session

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        # The index entry is no script, so a server that has lost its scripts still lists the session before it saves
        # it.
        answers = self._server.ask_in_order(self._listing(session), [self._saving(session)])
        *_, outcome = self._server.checked(answers)
        _check(session, outcome)
        self._keep_up(session)

    def destroy(self, session_id: str) -> None:
        """Delete the session, also if it has moved."""
        _, markers = self._end(session_id, "anybody")
        # The markers last: as long as they are stored, a failed call can be repeated.
        self._delete(markers)

    def touch(self, session: StoredSession) -> bool:
        """Record the use of the session if the loaded version is stored; see `TouchingStore.touch`."""
        present, absent = present_and_absent(session, USE)
        limits = (session.version, session.expires_at, _forgotten_at(session))
        touching = (TOUCH, self._session_key(session.id), *limits, len(present) // 2, *present, *absent)
        *_, was_touched = self._server.checked(self._server.ask_in_order(self._listing(session), [touching]))
        return bool(was_touched)

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither: if only one was saved, undo it."""

        def has_moved() -> bool:
            return self._holds(old)

        def has_begun_to_move() -> bool:
            # Another request may have followed the marker and ended the new session, which must not be saved again.
            return has_moved() or self._holds(new)

        # The new one first: as long as the old one is stored, nothing is lost.
        stages = [self._saving(new, has_begun_to_move)], [self._saving(old, has_moved)]
        answers = self._server.ask_in_order(self._listing(new, old), *stages)
        *listed, of_new, of_old = answers
        saved = [(one, of) for one, of in ((new, of_new), (old, of_old)) if of is DONE or isinstance(of, list)]
        if len(saved) < 2 or any(isinstance(one, redis.RedisError) for one in listed):
            self._undo(saved)
            self._server.checked(answers)
            _check(new, of_new)
            _check(old, of_old)
        self._keep_up(new)

    def find(self, *, user: str, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of a user in the order of their ids; see `IndexedStore.find`."""
        ids = {one for some in self._listed(checked_owner(user)) for one in some}
        return self._page((one for one in self._live(ids, after) if one.concerns(user)), limit)

    def find_all(self, *, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return the live sessions of everybody in the order of their ids; reads the names of all keys."""
        return self._page(self._live(self._all_ids(), after), limit)

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user, or in which the user is the actor, but `except_id`; return how many.

        Raises ConfigError if the server may have evicted the list of these sessions; see `allow_eviction`.
        """
        owner, key = named(checked_owner(user)), self._user_key(user)
        if self._server.is_evicting_any_key and not self._allow_eviction:
            raise ConfigError(
                f"destroy_all() may miss sessions where maxmemory-policy is {self.eviction_policy}: set it to "
                "noeviction or to a volatile policy, or accept this one with RedisStore(..., allow_eviction=True)"
            )
        destroyed = 0
        for some in self._listed(user):
            ids = [one for one in some if one != except_id]
            answers = self._server.ask([(END, self._session_key(one), "concerned", owner) for one in ids])
            over = [one for one, answer in zip(ids, answers, strict=True) if answer == 1]
            destroyed += len(over)
            for marker in (one for one, answer in zip(ids, answers, strict=True) if isinstance(answer, list)):
                was_there, _ = self._end(marker, "concerned", owner, spare=except_id)
                destroyed += was_there
            if over:
                # These ids are deleted for good, so no save under way can have listed them again.
                self._server.ask([("ZREM", key, *over)])
        return destroyed

    def revoke(self, session_id: str, *, user: str) -> bool:
        """Delete the session if it is this user's, or if this user is its actor; see `RevokingStore.revoke`."""
        was_there, markers = self._end(session_id, "concerned", named(checked_owner(user)))
        if was_there:
            self._delete(markers)
        return was_there

    def count(self, *, user: str | None = None) -> int:
        """Return how many live sessions there are, in all or of one user; reads each session except its data."""
        ids = self._all_ids() if user is None else {one for some in self._listed(user) for one in some}
        now = self._now()
        return sum(
            not one.superseded and not one.is_expired(now) and (user is None or one.concerns(user))
            for _, one in self._measured(ids)
        )

    def estimate(self) -> int:
        """Return how many keys the database holds: sessions, markers, indexes, and other programs' keys."""
        return sum(self._server.checked(self._server.ask_each("DBSIZE")))

    def ping(self) -> None:
        """Prove that each server can be read and takes writes, by a key that is deleted again."""
        for key in self._server.key_on_each(f"{self._prefix}ping"):
            self._server.ask([("SET", key, "", "PX", 10_000), ("GET", key), ("DEL", key)])

    def stats(self) -> StoreStats:
        """Measure the sessions that are stored now; reads every session except its data."""
        return measured(self._measured(self._all_ids()), self._now())

    # Saving

    def _saving(self, session: StoredSession, was_done: Callable[[], bool] | None = None) -> Once:
        """Return the command that saves a session; with `was_done`, one that is part of a move and can be undone."""
        how = (session.version, _forgotten_at(session), int(was_done is not None))
        saving = (SAVE, self._session_key(session.id), *how, *fields_of(session))
        return Once(saving, was_done or partial(self._holds, session))

    def _holds(self, session: StoredSession) -> bool:
        """Tell whether a save whose answer was lost took effect."""
        return was_saved(session, self._stored(session.id))

    def _undo(self, saved: Iterable[tuple[StoredSession, Answer]]) -> None:
        """Undo saves. The answer to a save is the hash that was stored before, empty for a new session."""
        undoing: list[Command] = []
        for session, before in saved:
            if before is not DONE or session.version == 0:
                how = (session.version + 1, KEPT_EXPIRED_MS, *(() if before is DONE else before))
                undoing.append((UNDO, self._session_key(session.id), *how))
        self._server.ask(undoing)

    def _end(
        self, session_id: str | None, whose: str, owner: bytes = b"", *, spare: str | None = None
    ) -> tuple[bool, list[str]]:
        """Delete a session, or the one to which markers lead; return whether there was one, and these markers.

        `whose` and `owner` say whose session it must be; see the script. Markers are followed within one user's
        sessions.
        """
        markers: list[str] = []
        while session_id is not None and session_id != spare and session_id not in markers:
            (answer,) = self._server.ask([(END, self._session_key(session_id), whose, owner)])
            if not isinstance(answer, list):
                return bool(answer), markers
            left_by, data = answer
            if whose == "anybody":
                whose, owner = "user", left_by
            elif left_by != owner:
                break
            markers.append(session_id)
            session_id = data.hex() or None
        return False, markers

    def _delete(self, markers: list[str]) -> None:
        if markers:
            self._server.ask([("DEL", self._session_key(one)) for one in markers])

    # The indexes, which may list more than is stored

    def _listing(self, *sessions: StoredSession) -> list[Request]:
        """Return the commands that list the sessions under their users; they run before the save."""
        entries: dict[str, list[Value]] = {}
        for session in sessions:
            for user in {session.user, session.actor} - {None}:
                entries.setdefault(user or "", []).extend((_forgotten_at(session) + MARGIN_MS, session.id))
        is_new = any(one.version == 0 for one in sessions)
        commands: list[Request] = []
        for user, scored in entries.items():
            key = self._user_key(user)
            # An entry's moment never moves back. PERSIST, since older releases gave indexes a TTL.
            adding = ("ZADD", key, "GT", *scored)
            commands += [Copied(adding) if is_new else adding, ("PERSIST", key)]
        return commands

    def _keep_up(self, session: StoredSession) -> None:
        """Remove old index entries after a login; if the server fails, the next login removes them."""
        if session.version == 0 and session.user is not None:
            index = self._user_key(session.user)
            with suppress(StoreUnavailable):
                node = self._server.node_of(index)
                self._upkeep.note(node, self._server.ask_once_at(node, self._upkeep.commands(node, index)))

    def _listed(self, user: str) -> Iterator[list[str]]:
        """Yield the ids in the index of a user in parts, so that a long index does not block the server.

        The entries come in the order of their moments, which never move back. So none is missed, even if entries are
        added or removed meanwhile, or another server answers next.
        """
        since, seen, limit = b"-inf", set[bytes](), _SCANNED
        while True:
            part = ("BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
            (answer,) = self._server.ask([("ZRANGE", self._user_key(user), since, "+inf", *part)])
            entries = _pairs(answer)
            yield ids_in(name for name, _ in entries if name not in seen)
            if len(entries) < limit:
                return
            latest, seen = entries[-1][1], {name for name, _ in entries}
            limit = 2 * limit if latest == since else _SCANNED
            since = latest

    # Searches

    def _live(self, ids: Iterable[str], after: str | None) -> Iterator[StoredSession]:
        now = self._now()
        behind = sorted(one for one in ids if after is None or one > after)
        for some in _batches(behind):
            answers = self._server.try_to_ask([("HGETALL", self._session_key(one)) for one in some])
            for session_id, answer in zip(some, answers, strict=True):
                session = _as_session(session_id, answer)
                if session is not None and not session.superseded and not session.is_expired(now):
                    yield session

    def _page(self, sessions: Iterator[StoredSession], limit: int) -> list[StoredSession]:
        return list(itertools.islice(sessions, limit))

    def _measured(self, ids: Iterable[str]) -> Iterator[tuple[int, StoredSession]]:
        """Yield the size of each session's data in bytes, and the session without it."""
        for some in _batches(list(ids)):
            keys = [self._session_key(one) for one in some]
            sizes = self._server.try_to_ask([("HSTRLEN", key, "data") for key in keys])
            values = self._server.try_to_ask([("HMGET", key, *_META) for key in keys])
            for session_id, size, given in zip(some, sizes, values, strict=True):
                if isinstance(size, int) and isinstance(given, list):
                    names = (name.encode() for name in _META)
                    fields = {name: value for name, value in zip(names, given, strict=True) if value is not None}
                    session = session_of(session_id, {b"data": b"", **fields})
                    if session is not None:
                        yield size, session

    def _all_ids(self) -> set[str]:
        start = self._session_key("").encode()
        names = itertools.chain.from_iterable(self._server.scan(glob(start.decode())))
        return set(ids_in(name[len(start) :] for name in names))

    def _stored(self, session_id: str) -> StoredSession | None:
        """Return what is stored under the id, expired or not; None if there is nothing, or nothing readable."""
        return _as_session(session_id, self._server.ask([("HGETALL", self._session_key(session_id))])[0])

    def _session_key(self, session_id: str) -> str:
        return f"{self._prefix}session:{session_id}"

    def _user_key(self, user: str) -> bytes:
        return f"{self._prefix}user".encode() + named(user)

    def _now(self) -> int:
        return milliseconds(self._clock)


def _forgotten_at(session: StoredSession) -> int:
    """Return when Redis may delete the session (Unix ms): after its expiry, so that a slow request can save it."""
    return session.expires_at + (MARGIN_MS if session.superseded else KEPT_EXPIRED_MS)


def _check(session: StoredSession, outcome: Answer) -> None:
    if outcome == b"exists":
        raise SessionExists(f"Session {session.id} is already stored")
    if outcome == b"gone":
        raise SessionGone(f"Session {session.id} is not stored")
    if outcome == b"conflict":
        raise SessionConflict(f"Session {session.id} has been saved by another request")


def _as_session(session_id: str, answer: Answer) -> StoredSession | None:
    """Return the session in a hash, None for a key of another kind, which another program has stored."""
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    # An application's client may speak RESP3, which has maps.
    return session_of(session_id, answer) if isinstance(answer, dict) else None


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))


def _pairs(answer: list[Any]) -> list[tuple[Any, Any]]:
    """Return the members of a sorted set with their scores."""
    # An application's client may speak RESP3, which has pairs.
    if answer and isinstance(answer[0], list):
        return [(name, score) for name, score in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))


def _nodes_of(url: str, limits: dict[str, Any]) -> tuple[Nodes, str]:
    """Return the servers that a URL names, and their address without the password."""
    target = target_of(url, limits["timeout"])

    def keep(connect: Callable[[], Any]) -> KeptConnections[Any]:
        return keep_connections(connect, **limits)

    nodes: Nodes
    if target.kind is Kind.CLUSTER:
        nodes = Cluster(target, keep, limits["timeout"])
    elif target.kind is Kind.SENTINEL:
        # A failover takes longer than a few attempts; the timeout limits them.
        nodes = OneServer(MasterConnections(target, **limits), sys.maxsize)
    else:
        nodes = OneServer(keep(target.dial.connect), MAX_ATTEMPTS)
    return nodes, target.place


def _pool_of_client(client: object) -> "redis.ConnectionPool":
    if not isinstance(client, redis.Redis):
        raise ConfigError(f"url_or_client must be a URL or a redis.Redis, not {type(client).__name__}")
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise ConfigError(
            "url_or_client must not decode responses, since sessions are bytes; give the store another client, "
            "without decode_responses=True"
        )
    return client.connection_pool
