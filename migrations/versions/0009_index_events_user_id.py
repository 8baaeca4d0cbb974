"""Index the user of events, to list a user's events in their order and to erase them."""

from prism_wsgi import migrate

revision = "0009"
down_revision = "0008"


def upgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_user_id", f"{table_name}_events", ["user_id"], where="user_id IS NOT NULL"
    )


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_user_id", f"{table_name}_events")
