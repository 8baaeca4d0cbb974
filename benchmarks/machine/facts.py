"""Facts about the machine on which the figures were measured."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("prism_wsgi", "sqlalchemy", "psycopg", "mysqlclient", "msgpack", "webob", "gunicorn"),
    *("beaker", "django", "flask", "flask-session", "flask-sqlalchemy", "pyramid", "pyramid_session_redis", "redis"),
)


def machine() -> dict[str, Any]:
    """Return the processor, the system, the versions, and how busy it is."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": {package: found for package in PACKAGES if (found := _version(package))},
        "load_average": list(os.getloadavg()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
