"""`prism-wsgi doctor`: what is wrong with a deployment, and what to type to mend it."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from json import dumps
from typing import TYPE_CHECKING, Any

import click

from prism_wsgi.cli.options import database_options, json_option, open_store
from prism_wsgi.cli.text import instant, one_line, span
from prism_wsgi.errors import PrismError, StoreUnavailable
from prism_wsgi.settings import secret_weakness

if TYPE_CHECKING:
    from prism_wsgi import SQLAlchemyStore

SECRET_VARIABLE = "SESSION_SECRET"  # noqa: S105
MAX_SKEW_SECONDS = 5.0
MAX_LAG_MS = 24 * 3600 * 1000

_NEW_SECRET = f'export {SECRET_VARIABLE}="$(prism-wsgi secret)"'

# What the server's clock says, in Unix seconds. SQLite has none but ours.
_CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(sysdate(6))",
    "mariadb": "SELECT unix_timestamp(sysdate(6))",
}


class Level(StrEnum):
    """How bad it is; only FAIL fails the command."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is what to type, empty where nothing is to be done."""

    check: str
    level: Level
    message: str
    fix: str = ""


@click.command
@database_options
@json_option
@click.pass_context
def doctor(context: click.Context, url: str, table_name: str, json: bool) -> None:
    """Check a deployment and say how to mend it.

    Looks at the database, its schema and clock, the lag of the sweeper, and the secret: the environment
    variable SESSION_SECRET, which is not shown.

    \b
    Exit codes:
      0  nothing has failed (there may be warnings)
      1  something has; its line says what to type
      2  wrong usage
    """
    findings = [*_database(url, table_name), _secret(os.environ.get(SECRET_VARIABLE, ""))]
    ok = all(finding.level is not Level.FAIL for finding in findings)
    if json:
        click.echo(dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            click.echo(_line(finding))
    context.exit(0 if ok else 1)


def _line(finding: Finding) -> str:
    advice = f"; {finding.fix}" if finding.fix else ""
    return f"{finding.level:<4}  {finding.check:<8}  {one_line(finding.message)}{advice}"


def _database(url: str, table_name: str) -> Iterator[Finding]:
    try:
        with open_store(url, table_name) as store:
            yield _connection(store)
            yield _journal(store) if store.engine.dialect.name == "sqlite" else _clock(store)
            schema = _schema(url, table_name)
            yield schema
            if schema.level is not Level.FAIL:
                yield _sweeper(store)
    except (PrismError, click.ClickException) as error:
        yield Finding("database", Level.FAIL, str(error), _advice(error))


def _advice(error: Exception) -> str:
    # Other errors end with it already.
    return "start it, or correct --url or PRISM_DATABASE_URL" if isinstance(error, StoreUnavailable) else ""


def _connection(store: "SQLAlchemyStore") -> Finding:
    _ask(store, "SELECT 1")
    dialect = store.engine.dialect
    return Finding("database", Level.OK, f"{dialect.name} answers, by {dialect.driver}")


def _schema(url: str, table_name: str) -> Finding:
    from prism_wsgi import migrate

    found = migrate.check(url, table_name=table_name)
    if found.ok:
        return Finding("schema", Level.OK, f"at {found.head}, the newest")
    if found.current != found.head:
        message = f"at {found.current or 'none'}, not at {found.head}"
        return Finding("schema", Level.FAIL, message, "run `prism-wsgi db upgrade`")
    message = f"changed by hand: {'; '.join(found.differences)}"
    return Finding("schema", Level.WARN, message, "undo that, or see `prism-wsgi db check`")


def _journal(store: "SQLAlchemyStore") -> Finding:
    # Each connection of the store asks for WAL: another mode means that this file cannot have it.
    mode = _ask(store, "PRAGMA journal_mode")
    if mode in ("wal", "memory"):
        return Finding("journal", Level.OK, f"journal_mode is {mode}")
    return Finding(
        "journal",
        Level.WARN,
        f"journal_mode is {mode}, so that readers and the writer wait for each other",
        "keep the file on a local disk where the application may write",
    )


def _clock(store: "SQLAlchemyStore") -> Finding:
    statement = _CLOCKS.get(store.engine.dialect.name)
    if statement is None:
        return Finding("clock", Level.OK, f"not compared: no query for {store.engine.dialect.name}")
    asked = time.time()
    theirs = float(_ask(store, statement))
    skew = theirs - (asked + time.time()) / 2
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Finding("clock", Level.OK, f"within {MAX_SKEW_SECONDS:g} s of the database's")
    direction = "ahead of" if skew > 0 else "behind"
    return Finding(
        "clock",
        Level.WARN,
        f"the database is {abs(skew):.0f} s {direction} this host, and sessions expire by the host's clock",
        "synchronise both: `timedatectl set-ntp true`",
    )


def _sweeper(store: "SQLAlchemyStore") -> Finding:
    stats = store.stats()
    if stats.oldest_expired is None:
        return Finding("sweeper", Level.OK, "nothing waits for a sweep")
    lag = time.time() * 1000 - stats.oldest_expired
    message = f"{stats.expired} expired, the oldest at {instant(stats.oldest_expired)} ({span(lag)} ago)"
    if lag <= MAX_LAG_MS:
        return Finding("sweeper", Level.OK, message)
    return Finding("sweeper", Level.WARN, message, "run `prism-wsgi sweep`, and then daily or with --every 300")


def _secret(secret: str) -> Finding:
    if not secret:
        message = f"not checked: {SECRET_VARIABLE} is not set here"
        return Finding("secret", Level.WARN, message, f"where the application has no other secret: {_NEW_SECRET}")
    weakness = secret_weakness(os.fsencode(secret))
    if weakness is not None:
        return Finding("secret", Level.FAIL, f"{SECRET_VARIABLE} {weakness}", f"make another: {_NEW_SECRET}")
    return Finding("secret", Level.OK, f"{SECRET_VARIABLE} is long and varied enough")


def _ask(store: "SQLAlchemyStore", statement: str) -> Any:
    """Return the one value a statement selects. Raises StoreUnavailable."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: TID251 - inside a function: loaded when asked

    try:
        with store.engine.connect() as connection:
            return connection.exec_driver_sql(statement).scalar_one()
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"The database does not answer: {getattr(error, 'orig', None) or error}") from error
