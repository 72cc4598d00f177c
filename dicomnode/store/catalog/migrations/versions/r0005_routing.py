"""Decisions of routing, and events that somebody is to be told of."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Two new tables."""
    op.create_table(
        "routings",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("decided_at", sa.Float, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("released_at", sa.Float),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.String(32), primary_key=True),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("events_at", "events", ["at"])
