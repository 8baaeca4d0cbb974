"""Index the actor of a session, to end an administrator's impersonations."""

from prism_wsgi import migrate

revision = "0005"
down_revision = "0004"


def upgrade(table_name: str) -> None:
    migrate.create_index(f"ix_{table_name}_actor_id", table_name, ["actor_id"], where="actor_id IS NOT NULL")


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_actor_id", table_name)
