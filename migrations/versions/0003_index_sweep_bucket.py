"""Index the hour of expiry, for the sweeper."""

from prism_wsgi import migrate

revision = "0003"
down_revision = "0002"


def upgrade(table_name: str) -> None:
    migrate.create_index(f"ix_{table_name}_sweep_bucket", table_name, ["sweep_bucket"])


def downgrade(table_name: str) -> None:
    migrate.drop_index(f"ix_{table_name}_sweep_bucket", table_name)
