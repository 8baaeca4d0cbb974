"""Database URLs and engines, with a clear sentence for each way in which one cannot be used."""

from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from prism_wsgi.errors import ConfigError

_DRIVER_EXTRAS = {"psycopg": "postgresql", "pymysql": "mariadb", "MySQLdb": "mysqlclient"}


def parse_url(given: str | URL) -> URL:
    """Return a database URL parsed. Raises ConfigError, never showing what may be a password."""
    try:
        url = make_url(given)
        if "@" in (url.host or ""):
            raise ValueError  # the end of a password: SQLAlchemy lets it begin the host
    except (ArgumentError, ValueError, AttributeError):
        # Not chained, since what cannot be parsed may have its password in any part.
        raise ConfigError(
            "The database URL cannot be read; write it like postgresql://user:password@host/database or "
            "sqlite:////path/to/sessions.db, with %40 for an @ in the password"
        ) from None
    try:
        url.get_dialect()
    except NoSuchModuleError as error:
        hint = "write postgresql://" if url.drivername == "postgres" else "check the part before ://"
        raise ConfigError(f"SQLAlchemy knows no database called {url.drivername!r}; {hint}") from error
    return url


def make_engine(url: URL, **options: Any) -> Engine:
    """Return an engine that keeps parameters out of its errors; nothing is connected yet.

    `options` are those of `sqlalchemy.create_engine`. Raises ConfigError for a missing driver.
    """
    try:
        return create_engine(url, hide_parameters=True, **options)
    except ImportError as error:
        raise ConfigError(_missing_driver(url, error)) from error
    except ArgumentError:
        raise ConfigError(
            f"{place(url)} is no URL for this database; SQLite takes sqlite:///relative.db or "
            "sqlite:////absolute/path.db, the others name://user:password@host/database"
        ) from None


def place(url: URL) -> str:
    """Return a URL as it may be shown: without password, and without options."""
    return url.set(query={}).render_as_string(hide_password=True)


def _missing_driver(url: URL, error: ImportError) -> str:
    extra = _DRIVER_EXTRAS.get(error.name or "")
    if extra is None:
        return f"The driver for {url.drivername}:// cannot be loaded ({error}); install it"
    other = f", or write {url.get_backend_name()}+pymysql:// for PyMySQL" if extra == "mysqlclient" else ""
    return f"The driver for {url.drivername}:// is not installed; pip install 'prism_wsgi[{extra}]'{other}"
