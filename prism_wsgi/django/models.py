"""The model that names sessions in Django's admin."""

from typing import ClassVar

from django.db import models


class LiveSession(models.Model):
    """A live session, for Django's permissions. It has no table, because the admin reads the store."""

    class Meta:
        """No table, and the two permissions that the admin asks for."""

        managed = False
        default_permissions: ClassVar = ("view", "delete")
        verbose_name = "session"
