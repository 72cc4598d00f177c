"""The storage commitment reports that the node owes to those who asked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """One new table."""
    op.create_table(
        "owed_reports",
        sa.Column("transaction_uid", sa.String, primary_key=True),
        sa.Column("requester", sa.String(16), primary_key=True),
        sa.Column("objects", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
