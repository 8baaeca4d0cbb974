"""Drop the index of the actor of events, which the one with their order replaces."""

from prism_wsgi import migrate

revision = "0014"
down_revision = "0013"


def upgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_actor_id", f"{table_name}_events")


def downgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_actor_id", f"{table_name}_events", ["actor_id"], where="actor_id IS NOT NULL"
    )
