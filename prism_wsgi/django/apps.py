"""The application for `INSTALLED_APPS`: system checks, `migrate`, the admin and `manage.py prism`."""

import sys
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate

from prism_wsgi import migrate
from prism_wsgi.django.checks import check_settings
from prism_wsgi.django.databases import database_url, is_in_memory
from prism_wsgi.django.site import database_alias


class SessionsConfig(AppConfig):
    """The application `prism_wsgi.django`."""

    name = "prism_wsgi.django"
    label = "prism_wsgi"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Register the system checks, and let `manage.py migrate` bring the tables of the sessions."""
        checks.register(check_settings)
        post_migrate.connect(bring_tables, sender=self, dispatch_uid="prism_wsgi.django")


def bring_tables(*, using: str, verbosity: int = 1, **_: Any) -> None:
    """Upgrade the tables of the sessions to the newest revision, in the database that `PRISM_SESSION_STORE` names."""
    if using != database_alias() or is_in_memory(using):
        return
    steps = migrate.upgrade(database_url(using))
    if steps and verbosity:
        sys.stdout.write(f"  Brought the tables of prism_wsgi to revision {steps[-1]}\n")
