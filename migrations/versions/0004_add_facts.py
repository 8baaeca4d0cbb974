"""Add columns for the last use, the user's proof, the actor, the client and the device."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from prism_wsgi import migrate

revision = "0004"
down_revision = "0003"

COLUMNS: dict[str, TypeEngine[Any]] = {
    "last_seen_at": sa.BigInteger(),
    "authenticated_at": sa.BigInteger(),
    "auth_method": sa.String(64),
    "actor_id": sa.String(255),
    "client_address": sa.String(64),
    "user_agent": sa.String(256),
    "device_key": sa.LargeBinary().with_variant(sa.VARBINARY(72), "mysql", "mariadb"),
}


def upgrade(table_name: str) -> None:
    migrate.add_columns(table_name, COLUMNS)


def downgrade(table_name: str) -> None:
    migrate.drop_columns(table_name, list(COLUMNS))
