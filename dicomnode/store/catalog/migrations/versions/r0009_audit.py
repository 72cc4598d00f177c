"""The audit trail's outbox, and what an association has brought found by its row."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Two new tables and an index."""
    op.create_table(
        "audit_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("message_id", sa.String(32), unique=True),
        sa.Column("event", sa.String(8), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("xml", sa.Text, nullable=False),
        sa.Column("sent_at", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_outbox_sent", "audit_outbox", ["sent_at", "id"])
    op.create_table(
        "audit_tallies",
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("sop_class_uid", sa.String, primary_key=True),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("first_at", sa.Float, nullable=False),
        sa.Column("last_at", sa.Float, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("patient_id", sa.String, nullable=False),
        sa.Column("patient_name", sa.String, nullable=False),
    )
    op.create_index("instances_association", "instances", ["association_id"])
