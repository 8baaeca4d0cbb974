"""`prism-wsgi demo`: a small shop with sessions, served at once."""

import os
import secrets
import shlex
import signal
from pathlib import Path
from socketserver import ThreadingMixIn
from types import FrameType
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import WSGIApplication

import click

from prism_wsgi.cli.options import option
from prism_wsgi.cli.secret import SECRET_BYTES

HOST = "127.0.0.1"
SPARED = 600  # seconds: requests under way may still need a session that has just expired


@click.command
@option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: one that is free.")
@option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("prism-demo.db"),
    show_default=True,
    help="The SQLite file; made if missing. The signing secret goes beside it.",
)
def demo(port: int, database: Path) -> None:
    """Serve a small shop on this computer, whose pages show what its sessions do.

    The sessions outlive a restart: they are in the database, and the secret is in a file beside it.
    """
    from prism_wsgi import SQLAlchemyStore, migrate
    from prism_wsgi.observers.audit import AuditTrail
    from prism_wsgi.sweeper import Sweeper

    try:
        from prism_wsgi.cli.demo.site import DemoSite
    except ModuleNotFoundError as error:
        raise click.ClickException(f"The demo lacks {error.name}; pip install 'prism_wsgi[pages]'") from error
    if not database.absolute().parent.is_dir():
        raise click.ClickException(f"There is no directory {database.absolute().parent}; make it, or see --database")
    url = f"sqlite:///{database.absolute()}"
    migrate.upgrade(url)
    store = SQLAlchemyStore(url)
    trail = AuditTrail(store)
    application = DemoSite(store, _kept_secret(database.with_name(f"{database.name}.secret")), observers=[trail])
    sweepers = [Sweeper(store, older_than=SPARED), Sweeper(trail)]
    with _listen(application, port) as server:
        signal.signal(signal.SIGTERM, _interrupt)
        for sweeper in sweepers:
            sweeper.start()
        try:
            _introduce(f"http://{HOST}:{server.server_port}/", database)
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo(f"\nStopped. The sessions are in {database}; start again to go on.")
    for sweeper in sweepers:
        sweeper.stop()
    store.close()


class _Server(ThreadingMixIn, WSGIServer):
    # Browsers open connections ahead of need; with one thread such a connection would hold up all others.
    daemon_threads = True


def _listen(application: WSGIApplication, port: int) -> WSGIServer:
    try:
        return make_server(HOST, port, application, server_class=_Server)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on port {port} ({error.strerror}); choose another, or a free one by --port 0"
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _kept_secret(path: Path) -> str:
    """Return the secret of the run before, or make and keep one that only this user can read."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text().strip()
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
        return path.read_text().strip()
    except OSError as error:
        raise click.ClickException(f"Cannot keep the secret in {path} ({error.strerror}); see --database") from error


def _introduce(address: str, database: Path) -> None:
    url = shlex.quote(f"sqlite:///{database}")
    click.echo(
        f"""prism_wsgi demo: {address}

Open it in a browser, fill the basket and log in; stop the demo (Ctrl-C) and start it again: it is all still there.
Without a browser:  curl -b jar -c jar {address}visits
In another shell:   prism-wsgi sessions list --url {url}
"""
    )
