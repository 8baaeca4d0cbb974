"""`prism-wsgi import`: the import of other packages' sessions into our store."""

from collections.abc import Callable
from enum import IntEnum
from json import dumps
from typing import Any, TypedDict, TypeVar, Unpack

import click

from prism_wsgi.cli.options import json_option, open_store, option, refuse_missing_file, store_options
from prism_wsgi.cli.progress import Progress
from prism_wsgi.compat.importing.beaker import BeakerPeer
from prism_wsgi.compat.importing.django import DjangoPeer
from prism_wsgi.compat.importing.flask_session import FlaskSessionPeer
from prism_wsgi.compat.importing.importing import ImportResult, import_sessions
from prism_wsgi.compat.importing.peer import HARMLESS, Peer, Skip
from prism_wsgi.settings import DEFAULT_MAX_SIZE

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])

_REASONS = {
    Skip.EXPIRED: "expired",
    Skip.ALREADY_IMPORTED: "imported before",
    Skip.EMPTY: "empty",
    Skip.NO_SESSION: "cached values, not sessions",
    Skip.WEAK_KEY: "under a key that the package does not make; check --key-prefix",
    Skip.BAD_SIGNATURE: "not signed with the secret keys given",
    Skip.UNVERIFIED_LOGIN: "logged in, and not verified; give --user-table or --trust-logins",
    Skip.ENDED_LOGIN: "logged in until the password was changed or the user deleted",
    Skip.PICKLED: "pickled, and nothing is ever unpickled",
    Skip.UNREADABLE: "in an unknown format, or encrypted",
    Skip.UNSTORABLE: "with a value that cannot be stored",
    Skip.TOO_LARGE: "larger than --max-size",
    Skip.BAD_USER: "with a user that is no text of up to 255 characters",
}


class ImportExit(IntEnum):
    """The command's exit codes."""

    COMPLETE = 0
    FAILED = 1
    INCOMPLETE = 3


class ImportOptions(TypedDict):
    """The options that each import has."""

    url: str
    table_name: str | None
    source: str
    table: str
    user_key: str | None
    max_size: int
    dry_run: bool
    json: bool
    show_progress: bool | None


@click.group("import")
def imports() -> None:
    """Import the sessions that another package stored.

    Visitors keep their sessions by their old cookies, once `cookie_fallbacks` names them. Sessions that cannot be
    read are counted, and nothing is ever unpickled. You can repeat an import: no session is imported twice, and one
    that still waits for its visitor is ended if the package has ended it. The other package's table is only read.

    \b
    Exit codes:
      0  each session that is still valid is in the store; with --dry-run: could be
      1  a database failed; the sessions imported until then stay
      2  wrong usage
      3  some valid sessions could not be imported; the reasons are counted
    """


def import_options(table: str, user_key: str | None) -> Callable[[_CommandT], _CommandT]:
    """Add the options that each import has, with the package's defaults for --table and --user-key."""

    def add(command: _CommandT) -> _CommandT:
        for one in reversed(
            (
                store_options,
                option(
                    "--from",
                    "source",
                    envvar="PRISM_IMPORT_FROM",
                    required=True,
                    help="The other package's database; a URL like --url.",
                ),
                option(
                    "--table", default=table, show_default=True, help="Its table, perhaps with a schema: web.name."
                ),
                option(
                    "--user-key",
                    default=user_key,
                    show_default=user_key is not None,
                    help="The key of the user in the package's sessions, for `sessions list --user`.",
                ),
                option(
                    "--max-size",
                    type=click.IntRange(min=1),
                    default=DEFAULT_MAX_SIZE,
                    show_default=True,
                    help="The largest session to import, in bytes; the max_size of your SessionMiddleware.",
                ),
                option("--dry-run", is_flag=True, help="Count what would be imported; store nothing."),
                json_option,
                option(
                    "--progress/--no-progress",
                    "show_progress",
                    default=None,
                    help="Show the progress on standard error each second.  [default: if that is a terminal]",
                ),
            )
        ):
            command = one(command)
        return command

    return add


@imports.command
@option("--secret-key", envvar="DJANGO_SECRET_KEY", required=True, help="Django's SECRET_KEY.")
@option("--secret-key-fallback", multiple=True, help="One of SECRET_KEY_FALLBACKS; can be given again.")
@option(
    "--user-table",
    help="Django's table of users (auth_user, unless you have your own), to verify logins: Django ends them when the "
    "password changes.",
)
@option("--trust-logins", is_flag=True, help="Import logins without verifying them.")
@import_options("django_session", "_auth_user_id")
def django(
    secret_key: str,
    secret_key_fallback: tuple[str, ...],
    user_table: str | None,
    trust_logins: bool,
    **common: Unpack[ImportOptions],
) -> None:
    """Import from Django's database-backed sessions, stored as JSON.

    Sessions with a login are skipped, unless --user-table verifies them or you trust them all with --trust-logins.
    """
    if user_table is not None and trust_logins:
        raise click.UsageError("--user-table verifies logins, and --trust-logins does not; give one of them")
    passwords = None if user_table is None else _passwords(common["source"], user_table)
    _import(DjangoPeer([secret_key, *secret_key_fallback], passwords, trusts_logins=trust_logins), **common)


def _passwords(source: str, user_table: str) -> dict[str, str]:
    from prism_wsgi.compat.importing.tables import read_rows
    from prism_wsgi.stores.sql.database import parse_url

    refuse_missing_file(parse_url(source), "--from", "the directory, which decides what a relative path means")
    rows = read_rows(source, user_table, ("id", "password"), "id")
    return {str(row["id"]): row["password"] for row in rows if isinstance(row["password"], str)}


@imports.command("flask-session")
@option("--key-prefix", default="session:", show_default=True, help="Flask-Session's SESSION_KEY_PREFIX.")
@import_options("sessions", "_user_id")
def flask_session(key_prefix: str, **common: Unpack[ImportOptions]) -> None:
    """Import from Flask-Session's SQLAlchemy sessions, stored as msgpack or JSON."""
    _import(FlaskSessionPeer(key_prefix), **common)


@imports.command
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Beaker's session.timeout in seconds. Without it, imported sessions wait 30 days for their visitors.",
)
@import_options("beaker_cache", None)
def beaker(timeout: float | None, **common: Unpack[ImportOptions]) -> None:
    """Import from Beaker's ext:database sessions with data_serializer = json."""
    _import(BeakerPeer(timeout), **common)


def _import(peer: Peer, **given: Unpack[ImportOptions]) -> None:
    from prism_wsgi.compat.importing.tables import read_rows
    from prism_wsgi.stores.sql.database import parse_url

    source, dry_run, progress = given["source"], given["dry_run"], Progress(given["show_progress"])
    refuse_missing_file(parse_url(source), "--from", "the directory, which decides what a relative path means")
    with open_store(given["url"], given["table_name"]) as store:
        result = import_sessions(
            peer,
            read_rows(source, given["table"], peer.columns, peer.order),
            store,
            user_key=given["user_key"],
            max_size=given["max_size"],
            dry_run=dry_run,
            on_row=lambda result: progress.show(f"{result.read} read, {result.imported} imported"),
        )
        progress.done()
    click.echo(_as_json(result, dry_run) if given["json"] else _as_text(result, dry_run))
    click.get_current_context().exit(ImportExit.COMPLETE if result.is_complete else ImportExit.INCOMPLETE)


def _as_json(result: ImportResult, dry_run: bool) -> str:
    skipped = {reason.value: count for reason, count in sorted(result.skipped.items())}
    return dumps(
        {
            "read": result.read,
            "imported": result.imported,
            "ended": result.ended,
            "skipped": skipped,
            "dry_run": dry_run,
        }
    )


def _as_text(result: ImportResult, dry_run: bool) -> str:
    verb = "would be imported" if dry_run else "imported"
    lines = [f"{result.imported} of {result.read} {verb}"]
    if result.ended:
        verb = "would be ended" if dry_run else "ended"
        lines.append(f"  {result.ended:>8}  imported before and {verb}, because the package has ended them")
    for reason in sorted(result.skipped, key=lambda reason: (reason not in HARMLESS, reason)):
        mark = " " if reason in HARMLESS else "!"
        lines.append(f"{mark} {result.skipped[reason]:>8}  {_REASONS[reason]}")
    return "\n".join(lines)
