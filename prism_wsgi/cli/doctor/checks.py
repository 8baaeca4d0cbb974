"""The checks of `prism-wsgi doctor`: the database, its schema, clock and sweeper, Redis, and the secret."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import click

from prism_wsgi.cli.doctor.findings import Finding, Level
from prism_wsgi.cli.options import open_database, open_store
from prism_wsgi.cli.text import instant, one_line, span
from prism_wsgi.clock import Clock, milliseconds, system_clock
from prism_wsgi.errors import PrismError, SchemaMissing, SerializationError, StoreUnavailable
from prism_wsgi.persistence.document import Codec
from prism_wsgi.persistence.login import unseen_user_key
from prism_wsgi.serializers import TypedSerializer
from prism_wsgi.settings import DEFAULT_MAX_SIZE, secret_weakness
from prism_wsgi.stores.url_settings import DEFAULT_TABLE_NAME
from prism_wsgi.stores.urls import is_redis
from prism_wsgi.tokens import ID_LENGTH, TIME_BYTES

if TYPE_CHECKING:
    from prism_wsgi import RedisStore, SQLAlchemyStore

SECRET_VARIABLE = "SESSION_SECRET"  # noqa: S105
_Check: TypeAlias = "Callable[[SQLAlchemyStore], Finding]"

MAX_SKEW_SECONDS = 5.0
MAX_LAG_MS = 24 * 3600 * 1000
LATELY_MS = 24 * 3600 * 1000
"""The age in ms of the sessions that are searched for logins; older ones may be from before a mended setting."""
LOOKED_AT = 200

_DENIED = re.compile(r"permission denied|command denied|access denied", re.IGNORECASE)
_NEW_SECRET = f'export {SECRET_VARIABLE}="$(prism-wsgi secret)"'


def check_database(url: str, table_name: str | None, clock: Clock = system_clock) -> Iterator[Finding]:
    """Yield the findings on the database; the last one is a failure if it ends the checks."""
    if is_redis(url):
        yield check_redis(url)
        return
    try:
        with open_database(url, table_name, clock=clock) as store:
            yield _connection(store)
            checks: list[_Check] = [partial(_clock, clock=clock), _isolation]
            if store.engine.dialect.name == "sqlite":
                checks = [_journal]
            checks += [partial(_schema, url), _writes, partial(_sweeper, clock=clock)]
            for check in checks:
                found = _allowed(check, store)
                yield found
                if found.check == "schema" and found.level is Level.FAIL:
                    return
            yield from _unseen_logins(store, clock)
    except (PrismError, click.ClickException) as error:
        yield Finding("database", Level.FAIL, str(error), _advice(error))


def _allowed(check: "_Check", store: "SQLAlchemyStore") -> Finding:
    """Return the finding of a check, or a warning that the database's role lacks the right."""
    try:
        return check(store)
    except PrismError as error:
        if not _DENIED.search(str(error)):
            raise
        name = getattr(check, "func", check).__name__.removeprefix("_")
        message = f"not checked: this role lacks the right ({one_line(str(error))[:200]})"
        return Finding(name, Level.WARN, message, "let an owner run what `prism-wsgi db grants --app ROLE` prints")


def check_redis(url: str) -> Finding:
    """Return whether a Redis answers, takes writes and keeps them; it needs neither schema nor sweeper."""
    try:
        with open_store(url, None) as store:
            redis = cast("RedisStore", store)
            redis.ping()
            policy = redis.eviction_policy
    except (PrismError, click.ClickException) as error:
        return Finding("redis", Level.FAIL, str(error), "start it, or correct --url or PRISM_DATABASE_URL")
    if (policy or "").startswith("allkeys-"):
        message = f"maxmemory-policy is {policy}: when it is full, it deletes sessions, and lists of users' sessions"
        return Finding("redis", Level.FAIL, message, "set maxmemory-policy to noeviction or to a volatile policy")
    message = "it answers and takes writes; there is no schema to check, and nothing to sweep"
    if policy is None:
        message += "; it does not tell its maxmemory-policy: make sure that it is noeviction"
    return Finding("redis", Level.OK, message)


def _advice(error: Exception) -> str:
    # Other errors end with their advice.
    is_down = isinstance(error, StoreUnavailable) and not isinstance(error, SchemaMissing)
    return "start it, or correct --url or PRISM_DATABASE_URL" if is_down else ""


def _connection(store: "SQLAlchemyStore") -> Finding:
    store.server_time()  # whatever connecting raises is then an error of the store
    dialect = store.engine.dialect
    return Finding("database", Level.OK, f"{dialect.name} answers, by {dialect.driver}")


def _schema(url: str, store: "SQLAlchemyStore") -> Finding:
    from prism_wsgi import migrate

    table_name = store.table.name
    found = migrate.check(url, table_name=table_name)
    if found.ok:
        return Finding("schema", Level.OK, f"at {found.head}, the newest, table and indexes as they should be")
    if found.current != found.head:
        message = f"at {found.current or 'none'}, not at {found.head}"
        return Finding("schema", Level.FAIL, message, "run `prism-wsgi db upgrade`")
    if any(difference == f"table {table_name} is missing" for difference in found.differences):
        _refused_write(store)  # MariaDB and MySQL hide a table from those who have no right to it
        message = f"at {found.head}, but the table {table_name} was dropped"
        own = "" if table_name == DEFAULT_TABLE_NAME else f"_{table_name}"
        fix = f"run `DROP TABLE {migrate.VERSION_TABLE}{own}` in the database, then `prism-wsgi db upgrade`"
        return Finding("schema", Level.FAIL, message, fix)
    message = f"changed by hand: {'; '.join(found.differences)}"
    return Finding("schema", Level.WARN, message, "undo that, or see `prism-wsgi db check`")


def _writes(store: "SQLAlchemyStore") -> Finding:
    refusal = _refused_write(store)
    if refusal is None:
        return Finding("writes", Level.OK, "the table takes them")
    return Finding("writes", Level.FAIL, one_line(str(refusal)), "let --url name a server that takes writes")


def _refused_write(store: "SQLAlchemyStore") -> StoreUnavailable | None:
    """Return why the table takes no writes, None if it takes them. Raises it if this role lacks the right."""
    try:
        store.ping()
    except StoreUnavailable as error:
        if _DENIED.search(str(error)):
            raise
        return error
    return None


def _journal(store: "SQLAlchemyStore") -> Finding:
    # Each connection of the store asks for WAL. If the mode is another, this file cannot have WAL.
    mode = _ask(store, "PRAGMA journal_mode")
    if mode in ("wal", "memory"):
        return Finding("journal", Level.OK, f"journal_mode is {mode}")
    return Finding(
        "journal",
        Level.WARN,
        f"journal_mode is {mode}, so that readers and the writer wait for each other",
        "keep the file on a local disk where the application may write",
    )


def _clock(store: "SQLAlchemyStore", clock: Clock) -> Finding:
    asked = clock()
    theirs = store.server_time()
    if theirs is None:
        return Finding("clock", Level.OK, f"not compared: no query for {store.engine.dialect.name}")
    skew = theirs - (asked + clock()) / 2
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Finding("clock", Level.OK, f"within {MAX_SKEW_SECONDS:g} s of the database's")
    direction = "ahead of" if skew > 0 else "behind"
    return Finding(
        "clock",
        Level.WARN,
        f"the database is {abs(skew):.0f} s {direction} this host, and sessions expire by the host's clock",
        "synchronise both: `timedatectl set-ntp true`",
    )


def _isolation(store: "SQLAlchemyStore") -> Finding:
    # Most statements of the store are single transactions; a few lock the rows that they read.
    if store.engine.dialect.name == "postgresql":
        level = str(_ask(store, "SHOW default_transaction_isolation"))
        fix = "`ALTER DATABASE ... SET default_transaction_isolation = 'read committed'`"
    elif store.engine.dialect.name in ("mysql", "mariadb"):
        # The variable has one name, the other, or both, depending on the version.
        found = _ask(
            store, "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')", column=1
        )
        level = str(found).replace("-", " ").lower()
        fix = "`SET GLOBAL TRANSACTION ISOLATION LEVEL READ COMMITTED`, and in the server's configuration"
    else:
        return Finding("isolation", Level.OK, f"not checked: no query for {store.engine.dialect.name}")
    if level in ("read committed", "repeatable read"):
        return Finding("isolation", Level.OK, level)
    worse = "requests see unsaved sessions" if level == "read uncommitted" else "requests fail or wait"
    return Finding("isolation", Level.WARN, f"{level}, with which {worse}", fix)


def _sweeper(store: "SQLAlchemyStore", clock: Clock) -> Finding:
    oldest, last = store.oldest_expired(milliseconds(clock)), _last_sweep(store)
    if oldest is None:
        return Finding("sweeper", Level.OK, f"nothing waits for a sweep; {last}")
    lag = clock() * 1000 - oldest
    message = f"the oldest expired session ended at {instant(oldest)} ({span(lag)} ago); {last}"
    if lag <= MAX_LAG_MS:
        return Finding("sweeper", Level.OK, message)
    return Finding("sweeper", Level.WARN, message, "run `prism-wsgi sweep`, and then daily or with --every 300")


def _last_sweep(store: "SQLAlchemyStore") -> str:
    try:
        last = next(iter(store.last_sweeps()), None)
    except StoreUnavailable:
        return "the record of sweeps cannot be read: `prism-wsgi db grants` says which right is missing"
    if last is None:
        return "no sweep has ever run"
    return f"the last one ended at {instant(last.ended_at)}: {last.outcome.replace('_', ' ')}, {last.deleted} deleted"


def _unseen_logins(store: "SQLAlchemyStore", clock: Clock) -> Iterator[Finding]:
    """Yield a hint if the latest sessions name users of whom prism_wsgi has not been told."""
    codec = Codec(TypedSerializer(), DEFAULT_MAX_SIZE)
    since = f"{milliseconds(clock) - LATELY_MS:0{2 * TIME_BYTES}x}".ljust(ID_LENGTH, "0")
    try:
        sessions = store.find_all(limit=LOOKED_AT, after=since)
    except StoreUnavailable:
        return  # this role may not read the sessions
    keys: Counter[str] = Counter()
    for session in sessions:
        with suppress(SerializationError):  # encrypted
            key = None if session.user is not None else unseen_user_key(codec.decode(session).values)
            keys.update([] if key is None else [key])
    for key, count in keys.most_common(1):
        message = f"{count} of {len(sessions)} sessions have a user under {key!r}, and nobody is logged in to them"
        fix = f"set user_id_key={key!r}, so that a login gets a new id and can be listed and ended"
        yield Finding("logins", Level.WARN, message, fix)


def check_secret(secret: str) -> Finding:
    """Return whether the secret is strong; an empty one is missing."""
    if not secret:
        message = f"not checked: {SECRET_VARIABLE} is not set here"
        return Finding("secret", Level.WARN, message, f"if the application has no other secret: {_NEW_SECRET}")
    weakness = secret_weakness(os.fsencode(secret))
    if weakness is not None:
        return Finding("secret", Level.FAIL, f"{SECRET_VARIABLE} {weakness}", f"make another: {_NEW_SECRET}")
    return Finding("secret", Level.OK, f"{SECRET_VARIABLE} is long and varied enough")


def _ask(store: "SQLAlchemyStore", statement: str, column: int = 0) -> Any:
    """Return a column of the first row that a statement selects. Raises StoreUnavailable."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: TID251 - inside a function: loaded when asked

    try:
        with store.engine.connect() as connection:
            return connection.exec_driver_sql(statement).fetchone()[column]  # type: ignore[index]
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"The database does not answer: {getattr(error, 'orig', None) or error}") from error
