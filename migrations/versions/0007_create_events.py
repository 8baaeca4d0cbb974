"""Create the table of the events of logins and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade(table_name: str) -> None:
    op.create_table(
        f"{table_name}_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("session_id", sa.LargeBinary(32).with_variant(sa.BINARY(32), "mysql", "mariadb")),
        sa.Column("previous_id", sa.LargeBinary(32).with_variant(sa.BINARY(32), "mysql", "mariadb")),
        sa.Column("user_id", sa.String(255)),
        sa.Column("actor_id", sa.String(255)),
        sa.Column("client_address", sa.String(64)),
        sa.Column("user_agent", sa.String(256)),
        sa.Column("author", sa.String(255)),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
        # It may exist already: from an interrupted run, or from before the sessions table was dropped by hand.
        if_not_exists=True,
    )


def downgrade(table_name: str) -> None:
    op.drop_table(f"{table_name}_events", if_exists=True)
