"""LiveSession: the name of sessions in Django's admin."""

from typing import ClassVar

from django.db import models


class LiveSession(models.Model):
    """A live session, as Django's permissions know it. It has no table: the admin reads the store."""

    class Meta:
        """No table, and the two permissions that the admin asks for."""

        managed = False
        default_permissions: ClassVar = ("view", "delete")
        verbose_name = "session"
