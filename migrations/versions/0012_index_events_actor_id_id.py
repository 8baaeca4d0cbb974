"""Index the actor of events together with their order, to list the newest of many without reading all."""

from prism_wsgi import migrate

revision = "0012"
down_revision = "0011"


def upgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_actor_id_id",
        f"{table_name}_events",
        ["actor_id", "id"],
        where="actor_id IS NOT NULL",
    )


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_actor_id_id", f"{table_name}_events")
