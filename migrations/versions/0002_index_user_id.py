"""Index the user of a session, to list and end a user's sessions."""

from prism_wsgi import migrate

revision = "0002"
down_revision = "0001"


def upgrade(table_name: str) -> None:
    migrate.create_index(f"ix_{table_name}_user_id", table_name, ["user_id"], where="user_id IS NOT NULL")


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_user_id", table_name)
