"""`manage.py prism`: the command line of prism_wsgi, for the store of this project."""

import os
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from prism_wsgi.cli import commands
from prism_wsgi.django.databases import database_url
from prism_wsgi.django.site import database_alias, store_setting


class Command(BaseCommand):
    """The command `manage.py prism`."""

    help = "Run prism-wsgi for the store of this project: sweep, sessions, events, stats, doctor, db, import ..."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass the arguments on unchanged: `manage.py prism sweep --every 300`."""
        alias = database_alias()
        url = store_setting() if alias is None else database_url(alias)
        if not isinstance(url, str):
            raise CommandError("PRISM_SESSION_STORE is a store, not a URL or an alias; use prism-wsgi --url")
        os.environ.setdefault("PRISM_DATABASE_URL", url)
        arguments = argv[2:]
        defaults = {"import": {"django": _import_defaults(alias or DEFAULT_DB_ALIAS, arguments)}}
        commands(arguments, prog_name="manage.py prism", default_map=defaults)


def _import_defaults(alias: str, arguments: list[str]) -> dict[str, Any]:
    """Return the defaults of an import, from this project's settings of Django's sessions and users."""
    found = {
        "source": database_url(alias),
        "secret_key": settings.SECRET_KEY,
        "secret_key_fallback": settings.SECRET_KEY_FALLBACKS,
    }
    return found if "--trust-logins" in arguments else {**found, "user_table": get_user_model()._meta.db_table}
