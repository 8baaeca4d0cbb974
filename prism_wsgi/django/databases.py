"""The URL of a database in Django's `DATABASES`."""

import sys
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+mysqldb"}
_FOR_LIBPQ = frozenset(
    {"options", "passfile", "service", "sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs"}
)
"""The OPTIONS of a PostgreSQL database that say how to reach the server."""


def database_url(alias: str) -> str:
    """Return the URL of the database of an alias; "memory" where `is_in_memory`. Raises ImproperlyConfigured."""
    if alias not in connections:
        raise ImproperlyConfigured(
            f"PRISM_SESSION_STORE = {alias!r} is neither a URL nor the alias of one of your DATABASES "
            f"({', '.join(sorted(connections))})"
        )
    if is_in_memory(alias):
        return "memory"
    connection = connections[alias]
    given, name = connection.settings_dict, str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(name)}"
    if connection.vendor not in _DRIVERS:
        raise ImproperlyConfigured(
            f"PRISM_SESSION_STORE = {alias!r} is a database of {connection.display_name}, which cannot hold "
            "sessions; name the URL of another store"
        )
    return _server_url(connection.vendor, given, name)


def is_in_memory(alias: str) -> bool:
    """Tell whether the sessions of an alias are kept in memory: those of a test run, and of a database in memory.

    Only Django's connection sees the writes that a test rolls back, or a database in memory. Another connection would
    also keep the test run from dropping its database.
    """
    connection: Any = connections[alias]
    return _is_test_run() or (connection.vendor == "sqlite" and connection.is_in_memory_db())


def _is_test_run() -> bool:
    # `manage.py test` and pytest-django call setup_test_environment(), which sets this attribute.
    test_utils = sys.modules.get("django.test.utils")
    return hasattr(getattr(test_utils, "_TestState", None), "saved_data")


def _server_url(vendor: str, given: dict[str, Any], name: str) -> str:
    driver = _DRIVERS[vendor]
    if vendor == "mysql" and find_spec("MySQLdb") is None:
        driver = "mysql+pymysql"
    who = quote(given.get("USER") or "", safe="")
    if given.get("PASSWORD"):
        who += f":{quote(given['PASSWORD'], safe='')}"
    host, port, options = given.get("HOST") or "", str(given.get("PORT") or ""), given.get("OPTIONS", {})
    query = {key: str(value) for key, value in options.items() if key in _FOR_LIBPQ and vendor == "postgresql"}
    if host.startswith("/"):
        query["host" if vendor == "postgresql" else "unix_socket"] = host
        host = ""
    place = f"{who}@{host}" if who else host
    if port:
        place += f":{port}"
    return f"{driver}://{place}/{quote(name, safe='')}" + (f"?{urlencode(query)}" if query else "")
