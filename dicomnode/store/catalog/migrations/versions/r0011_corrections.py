"""Decisions about objects that came again with other content, or that are taken out of their study."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Two new tables."""
    op.create_table(
        "corrections",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("sop_instance_uid", sa.String, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("successor", sa.String(64), nullable=False),
        sa.Column("patient_hash", sa.String(64), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("followed", sa.Boolean, nullable=False),
    )
    op.create_index("corrections_study", "corrections", ["study_uid"])
    op.create_index("corrections_instance", "corrections", ["sop_instance_uid"])
    op.create_index("corrections_followed", "corrections", ["followed"])
    op.create_table(
        "acceptances",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("patient_hash", sa.String(64), nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
    )
