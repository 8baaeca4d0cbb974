"""Create the sessions table."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.mysql import LONGBLOB

revision = "0001"
down_revision = None


def upgrade(table_name: str) -> None:
    op.create_table(
        table_name,
        sa.Column("id", sa.LargeBinary(32).with_variant(sa.BINARY(32), "mysql", "mariadb"), primary_key=True),
        sa.Column("data", sa.LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("sweep_bucket", sa.Integer, nullable=False),
        sa.Column("superseded", sa.Boolean, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
        # On an engine where a run can be interrupted before its revision is recorded, the table may exist already.
        # On the others, a table of this name belongs to another program, and the statement must fail.
        if_not_exists=not context.is_transactional_ddl(),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {table_name} SET (fillfactor = 85)")


def downgrade(table_name: str) -> None:
    op.drop_table(table_name, if_exists=not context.is_transactional_ddl())
