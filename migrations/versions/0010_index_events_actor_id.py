"""Index the actor of events, to list and erase a user's events."""

from prism_wsgi import migrate

revision = "0010"
down_revision = "0009"


def upgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_actor_id", f"{table_name}_events", ["actor_id"], where="actor_id IS NOT NULL"
    )


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_actor_id", f"{table_name}_events")
