"""UPS tasks and performed procedure steps, and how much of them was told."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """One new table."""
    op.create_table(
        "procedure_steps",
        sa.Column("step_uid", sa.String, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("generation", sa.Integer),
        sa.Column("transaction_uid", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("told", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("begun_at", sa.Float),
    )
    op.create_index("procedure_steps_state", "procedure_steps", ["kind", "state"])
    op.create_index("procedure_steps_study", "procedure_steps", ["study_uid", "generation"])
