"""Alerts about the node and their messages, refused associations, notices before removal, late orders, re-analyses."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Six new tables."""
    op.create_table(
        "alerts",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("raised_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "alert_messages",
        sa.Column("event_id", sa.String(32), primary_key=True),
        sa.Column("receiver", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
    )
    op.create_table(
        "refusals",
        sa.Column("period", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("why", sa.String, primary_key=True),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "removal_notices",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "late_orders",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("order_key", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "reanalyses",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("per_hour", sa.Float, nullable=False),
        sa.Column("generation", sa.Integer),
        sa.Column("taken_at", sa.Float),
    )
    op.create_index("reanalyses_taken", "reanalyses", ["taken_at"])
