"""Find the tasks of a rare provider in a large table by an index.

It is partial: PiAPI's tasks, of which there are most where they are at all, are not in it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
readable_from = "0007"

_IS_OF_ANOTHER = sa.text("provider <> 'piapi'")
_NAME = "ix_task_other_provider"


def upgrade() -> None:
    columns = ["organization_id", "provider", "id"]
    op.create_index(_NAME, "task", columns, sqlite_where=_IS_OF_ANOTHER, postgresql_where=_IS_OF_ANOTHER)


def downgrade() -> None:
    op.drop_index(_NAME, table_name="task")
