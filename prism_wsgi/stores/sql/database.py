"""Database URLs and engines, with a clear error message for each wrong one."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from prism_wsgi.errors import ConfigError, StoreUnavailable

CredentialProvider = Callable[[], tuple[str, str]]
"""A function that returns the user and the password for the next connection."""

_DRIVER_EXTRAS = {"psycopg": "postgresql", "pymysql": "mariadb", "MySQLdb": "mysqlclient"}


def parse_url(given: str | URL) -> URL:
    """Return a parsed database URL. Raises ConfigError, whose message never shows a password."""
    try:
        url = make_url(given)
        if "@" in (url.host or ""):
            raise ValueError  # SQLAlchemy takes the end of an unencoded password for the host
    except (ArgumentError, ValueError, AttributeError):
        # Not chained: a URL that cannot be parsed may have its password in any part.
        raise ConfigError(
            "The database URL cannot be read; write it like postgresql://user:password@host/database or "
            "sqlite:////path/to/sessions.db, with %40 for an @ in the password"
        ) from None
    try:
        if url.drivername == "postgresql" and url.get_dialect().driver != "psycopg":
            url = url.set(drivername="postgresql+psycopg")  # SQLAlchemy 2.0 would use psycopg2
        url.get_dialect()
    except NoSuchModuleError as error:
        hint = "write postgresql://" if url.drivername == "postgres" else "check the part before ://"
        raise ConfigError(f"SQLAlchemy knows no database called {url.drivername!r}; {hint}") from error
    return url


def make_engine(
    url: URL,
    *,
    connect_args: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Engine:
    """Return an engine, not connected yet, whose errors show no parameters.

    `connect_args` are the driver's; psycopg uses UTF-8, and prepares nothing on the server unless the URL or these
    say so. `options` are those of `sqlalchemy.create_engine`. Raises ConfigError for a missing driver.
    """
    arguments = dict(connect_args)
    if url.get_dialect().driver == "psycopg":
        arguments = {"prepare_threshold": None, **arguments}
        if "client_encoding" not in url.query:
            arguments["client_encoding"] = "utf8"  # from a database in SQL_ASCII, texts would come as bytes
        if "prepare_threshold" in url.query:
            arguments["prepare_threshold"] = _threshold(url.query["prepare_threshold"])
    try:
        return create_engine(url, hide_parameters=True, connect_args=arguments, **options)
    except ImportError as error:
        raise ConfigError(_missing_driver(url, error)) from error
    except ArgumentError:
        raise ConfigError(
            f"{place(url)} is no URL for this database; SQLite takes sqlite:///relative.db or "
            "sqlite:////absolute/path.db, the others name://user:password@host/database"
        ) from None


def _threshold(value: object) -> int | None:
    try:
        return None if value in ("", "None", "none") else int(str(value))
    except ValueError:
        raise ConfigError(f"prepare_threshold in the URL must be a whole number, not {value!r}") from None


def ask_for_credentials(engine: Engine, provider: CredentialProvider | None) -> None:
    """Make the engine ask `provider` before each connection, after the listeners of SQLAlchemy's `do_connect`."""
    if provider is None:
        return

    def connect_with_credentials(connect: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        given = provider()
        if not isinstance(given, tuple) or [type(one) for one in given] != [str, str]:
            raise StoreUnavailable("credential_provider must return a tuple of two texts: (user, password)")
        named.pop("passwd", None)  # another name of `password` for mysqlclient
        return connect(*arguments, **named | dict(zip(("user", "password"), given, strict=True)))

    connect_by(engine, connect_with_credentials)


def connect_by(engine: Engine, connect: Callable[..., Any]) -> None:
    """Make an engine connect by `connect`, whose first argument is the function that it used before.

    A listener to SQLAlchemy's `do_connect` would not do: once one has returned a connection, no other is called.
    """
    engine.dialect.connect = partial(connect, engine.dialect.connect)  # type: ignore[method-assign]


def place(url: URL) -> str:
    """Return a URL to show: without the password and the options."""
    return url.set(query={}).render_as_string(hide_password=True)


def _missing_driver(url: URL, error: ImportError) -> str:
    extra = _DRIVER_EXTRAS.get(error.name or "")
    if extra is None:
        return f"The driver for {url.drivername}:// cannot be loaded ({error}); install it"
    other = f", or write {url.get_backend_name()}+pymysql:// for PyMySQL" if extra == "mysqlclient" else ""
    return f"The driver for {url.drivername}:// is not installed; pip install 'prism_wsgi[{extra}]'{other}"
