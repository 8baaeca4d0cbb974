"""Index the time of events, to delete old ones."""

from prism_wsgi import migrate

revision = "0008"
down_revision = "0007"


def upgrade(table_name: str) -> None:
    migrate.create_index(f"ix_{table_name}_events_timestamp", f"{table_name}_events", ["timestamp"])


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_events_timestamp", f"{table_name}_events")
