"""Conflicts, storage commitment, workers with leases."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Three new tables, one new column; the first version's own version table goes."""
    op.add_column("deliveries", sa.Column("commitment", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "conflicts",
        sa.Column("sop_instance_uid", sa.String, primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_index("conflicts_study", "conflicts", ["study_uid"])
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String, primary_key=True),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("destination", sa.String, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("answered_at", sa.Float),
    )
    op.create_index("commitments_study", "commitments", ["study_uid", "generation"])
    op.create_table(
        "workers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("beat_at", sa.Float, nullable=False),
    )
    op.execute("DROP TABLE IF EXISTS schema_version")
