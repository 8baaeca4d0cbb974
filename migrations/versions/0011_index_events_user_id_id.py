"""Index the user of events together with their order, to list the newest of many without reading all."""

from prism_wsgi import migrate

revision = "0011"
down_revision = "0010"


def upgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_user_id_id",
        f"{table_name}_events",
        ["user_id", "id"],
        where="user_id IS NOT NULL",
    )


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_user_id_id", f"{table_name}_events")
