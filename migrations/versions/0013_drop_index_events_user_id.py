"""Drop the index of the user of events, which the one with their order replaces."""

from prism_wsgi import migrate

revision = "0013"
down_revision = "0012"


def upgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_user_id", f"{table_name}_events")


def downgrade(table_name: str) -> None:
    migrate.create_index(
        f"ix_{table_name}_events_user_id", f"{table_name}_events", ["user_id"], where="user_id IS NOT NULL"
    )
