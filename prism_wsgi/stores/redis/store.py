"""RedisStore: sessions in Redis or Valkey, which forget expired ones by themselves."""

import math
import re
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.errors import ConfigError, SessionConflict, SessionExists, SessionGone, StoreUnavailable
from prism_wsgi.retry import pause
from prism_wsgi.stores.base import AGE_LIMITS, StoredSession, StoreStats, checked_user
from prism_wsgi.stores.redis import scripts
from prism_wsgi.stores.redis.scripts import FIELDS
from prism_wsgi.stores.url_settings import takes_settings_in_url

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ImportError('RedisStore needs redis-py; install it: pip install "prism_wsgi[redis]"') from error

MAX_ATTEMPTS = 3
_BATCH = 500

_ResultT = TypeVar("_ResultT")


class RedisStore:
    """Keeps sessions in a Redis or Valkey server, which deletes them a minute after they expired: nothing to sweep.

    `url_or_client` is a URL (`redis://`, `rediss://` for TLS, `unix://`; `valkey://` and `valkeys://` too), or a
    `redis.Redis` client of yours, which must not decode responses. `prefix` begins the name of every key.
    `timeout` (seconds) bounds connecting and waiting for an answer; a client of yours keeps its own bounds and
    its own way of retrying.

    Each verb on the path of a request is one round trip. Give the server `maxmemory-policy noeviction`: one that
    throws keys away ends sessions early, and may forget which sessions a user has. Redis answers before it has
    written to disk or to a replica, so a crash or a failover may lose the last moments: a session that
    somebody had just ended may be back. Redis Cluster is not supported.

    Nothing is connected before the first use. Raises ConfigError for a URL, client or setting that cannot work.
    """

    @takes_settings_in_url
    def __init__(
        self,
        url_or_client: "str | redis.Redis",
        *,
        prefix: str = "prism:",
        timeout: float = 5.0,
        clock: Clock = system_clock,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ConfigError(f"timeout must be a positive number of seconds, not {timeout!r}")
        if not isinstance(prefix, str) or not prefix or not prefix.isprintable():
            raise ConfigError(f'prefix must be printable text such as "prism:", not {prefix!r}')
        self._owns_client = isinstance(url_or_client, str)
        self._client = (
            _client(url_or_client, timeout) if isinstance(url_or_client, str) else _checked_client(url_or_client)
        )
        self._prefix = prefix
        self._timeout = timeout
        self._clock = clock
        self._save = self._client.register_script(scripts.SAVE)
        self._touch = self._client.register_script(scripts.TOUCH)
        self._destroy = self._client.register_script(scripts.DESTROY)
        self._find = self._client.register_script(scripts.FIND)
        self._destroy_all = self._client.register_script(scripts.DESTROY_ALL)

    def __repr__(self) -> str:
        return f"<RedisStore {self._place}>"

    def close(self) -> None:
        """Close the connections of the store's own client; a client of yours stays as it is."""
        if self._owns_client:
            self._client.close()

    def load(self, session_id: str) -> StoredSession | None:
        """Return the session, or None when it is unknown or expired."""
        key = self._session_key(session_id)
        fields = self._run(lambda: self._client.execute_command("HMGET", key, *FIELDS))  # type: ignore[no-untyped-call]
        session = _stored_session(session_id, fields)
        return None if session is None or session.is_expired(self._now()) else session

    def save(self, session: StoredSession) -> None:
        """Insert or replace by compare-and-swap; see `SessionStore.save`."""
        self._save_all(session)

    def destroy(self, session_id: str) -> None:
        """Delete the session if it is there, or where it has moved."""
        keys, arguments = [self._session_key(session_id)], [*self._common(), session_id]
        self._run(lambda: self._destroy(keys, arguments))

    def touch(self, session_id: str, expires_at: int) -> bool:
        """Move the expiry to `expires_at`, never back; False when the session is gone."""
        keys, arguments = [self._session_key(session_id)], [*self._common(), session_id, expires_at]
        return bool(self._run(lambda: self._touch(keys, arguments)))

    def replace(self, old: StoredSession, new: StoredSession) -> None:
        """Save both or neither, in one script."""
        self._save_all(old, new)

    def find(self, *, user: str | None = None, limit: int = 100, after: str | None = None) -> list[StoredSession]:
        """Return live sessions in the order of their ids; see `IndexedStore.find`.

        A user's are looked up. Without `user` the names of all keys are read, of which Redis has no order.
        """
        if user is None:
            return list(islice(self._all_live(after or ""), limit))
        keys, arguments = [self._user_key(user)], [*self._common(), _named(user), limit, after or ""]
        found = self._run(lambda: self._find(keys, arguments))
        return [session for name, fields in found if (session := _stored_session(name.decode(), fields))]

    def destroy_all(self, user: str, except_id: str | None = None) -> int:
        """Delete every session of the user but `except_id`; return how many."""
        checked_user(user)
        keys, arguments = [self._user_key(user)], [*self._common(), _named(user), except_id or ""]
        return int(self._run(lambda: self._destroy_all(keys, arguments)))

    def stats(self) -> StoreStats:
        """Count what is stored now; reads every session but its data.

        What expired more than a minute ago is gone, and so not counted.
        """
        now = self._now()
        sizes_and_sessions = list(self._all_measured())
        unexpired = [(size, one) for size, one in sizes_and_sessions if not one.is_expired(now)]
        expired = [one.expires_at for _, one in sizes_and_sessions if one.is_expired(now)]
        live = [(size, one) for size, one in unexpired if not one.superseded]
        ages = Counter(bisect_right(AGE_LIMITS, (now - one.created_at) / 1000) for _, one in live)
        return StoreStats(
            live=len(live),
            expired=len(expired),
            superseded=len(unexpired) - len(live),
            logged_in=sum(one.user is not None for _, one in live),
            data_bytes=sum(size for size, _ in sizes_and_sessions),
            oldest_expired=min(expired, default=None),
            saved_once=sum(one.version == 1 for _, one in live),
            largest=max((size for size, _ in live), default=0),
            ages=tuple(ages[number] for number in range(len(AGE_LIMITS) + 1)),
        )

    def _save_all(self, *sessions: StoredSession) -> None:
        keys = [self._session_key(session.id) for session in sessions]
        arguments = self._common()
        for session in sessions:
            arguments += [
                session.id,
                session.version,
                session.version + 1,
                session.data,
                session.created_at,
                session.expires_at,
                b"" if session.user is None else _named(session.user),
                int(session.superseded),
            ]
        answer = self._run(lambda: self._save(keys, arguments), is_done=lambda: self._is_saved(sessions[-1]))
        if answer is None:
            return
        outcome, number = answer
        if outcome == b"saved":
            return
        session_id = sessions[number - 1].id
        if outcome == b"exists":
            raise SessionExists(f"Session {session_id} is already stored")
        if outcome == b"gone":
            raise SessionGone(f"Session {session_id} is not stored")
        raise SessionConflict(f"Session {session_id} has been saved by another request")

    def _is_saved(self, session: StoredSession) -> bool:
        """Tell whether a save whose answer was lost took effect."""
        stored = self.load(session.id)
        return stored is not None and (stored.version, stored.data) == (session.version + 1, session.data)

    # Going through all sessions

    def _all_live(self, after: str) -> Iterator[StoredSession]:
        ids = sorted(one for one in self._all_ids() if one > after)
        now = self._now()
        for some in _batches(ids):
            for session_id, fields in zip(some, self._fetch(some, FIELDS), strict=True):
                session = _stored_session(session_id, fields)
                if session is not None and not session.superseded and not session.is_expired(now):
                    yield session

    def _all_measured(self) -> Iterator[tuple[int, StoredSession]]:
        """Yield each session without its data, and how many bytes that has."""
        for some in _batches(list(self._all_ids())):
            sizes = self._pipelined([("HSTRLEN", self._session_key(one), "data") for one in some])
            for session_id, size, fields in zip(some, sizes, self._fetch(some, FIELDS[1:]), strict=True):
                session = _stored_session(session_id, [b"", *fields])
                if session is not None:
                    yield size, session

    def _all_ids(self) -> set[str]:
        start = self._session_key("")
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
        names = self._run(lambda: list(self._client.scan_iter(pattern, count=_BATCH)))
        return {name.decode()[len(start) :] for name in names}

    def _fetch(self, ids: Sequence[str], fields: Sequence[str]) -> list[Any]:
        return self._pipelined([("HMGET", self._session_key(one), *fields) for one in ids])

    def _pipelined(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        def run() -> Any:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                return pipeline.execute()

        answers: list[Any] = self._run(run)
        return answers

    # Asking the server

    def _run(self, work: Callable[[], _ResultT], *, is_done: Callable[[], bool] | None = None) -> Any:
        """Do `work`, again after failures that allow it; None when `is_done` finds that it took effect.

        `is_done` is asked when the connection broke; without it the work can be repeated without harm.
        """
        deadline = time.monotonic() + self._timeout
        for attempt in range(MAX_ATTEMPTS):
            try:
                return work()
            except redis.ReadOnlyError as error:
                # The primary has become a replica: the name may lead to another server by now.
                self._client.connection_pool.disconnect(inuse_connections=False)
                failure: redis.RedisError = error
            except redis.ConnectionError as error:
                failure = error
                if is_done is not None and attempt < MAX_ATTEMPTS - 1 and is_done():
                    return None
            except redis.RedisError as error:
                raise self._unavailable(error) from error
            if time.monotonic() > deadline:
                break
            pause(attempt)
        raise self._unavailable(failure) from failure

    def _unavailable(self, error: redis.RedisError) -> StoreUnavailable:
        return StoreUnavailable(f"Redis at {self._place} failed: {type(error).__name__}: {error}")

    @property
    def _place(self) -> str:
        """Where the server is; without a password, which a URL may have."""
        where = self._client.connection_pool.connection_kwargs
        address = where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
        return f"{address}/{where.get('db', 0)}"

    def _common(self) -> list[str | bytes | int]:
        return [self._prefix, self._now()]

    def _session_key(self, session_id: str) -> str:
        return f"{self._prefix}session:{session_id}"

    def _user_key(self, user: str) -> bytes:
        return f"{self._prefix}user".encode() + _named(user)

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _client(url: str, timeout: float) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            re.sub(r"^valkey(?=s?://)", "redis", url),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # saving again blindly would take our own save for a rival's
            protocol=2,
            decode_responses=False,
        )
    except ValueError:
        # Without the cause: its message may quote the part of the URL where the password stands.
        raise ConfigError(
            "url_or_client must be a URL such as redis://localhost:6379/0, rediss://... or unix://...; "
            "percent-encode special characters in the password"
        ) from None


def _checked_client(client: object) -> redis.Redis:
    if not isinstance(client, redis.Redis):
        raise ConfigError(f"url_or_client must be a URL or a redis.Redis, not {type(client).__name__}")
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise ConfigError(
            "url_or_client must not decode responses, since sessions are bytes; give the store a client of its own "
            "without decode_responses=True"
        )
    return client


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))


def _named(user: str) -> bytes:
    return b"=" + user.encode()


def _stored_session(session_id: str, fields: Sequence[bytes | None]) -> StoredSession | None:
    data, version, created_at, expires_at, user, superseded = fields
    if data is None or version is None or created_at is None or expires_at is None:
        return None
    return StoredSession(
        session_id,
        data,
        int(version),
        int(created_at),
        int(expires_at),
        user[1:].decode() if user else None,
        superseded == b"1",
    )
