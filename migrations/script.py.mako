"""${message}."""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


# One DDL statement a revision: MariaDB commits each at once, and the run after an interrupted one continues there.
def upgrade(table_name: str) -> None:
    ${upgrades if upgrades else "pass"}


def downgrade(table_name: str) -> None:
    ${downgrades if downgrades else "pass"}
