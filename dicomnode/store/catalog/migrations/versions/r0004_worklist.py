"""Orders of the worklist, and prior scans that are fetched."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Three new tables."""
    op.create_table(
        "orders",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("patient_hash", sa.String(64), nullable=False),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("accession_number", sa.String, nullable=False),
        sa.Column("scheduled", sa.String, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    for column, name in (("patient_hash", "patient"), ("study_uid", "study"), ("scheduled", "scheduled")):
        op.create_index(f"orders_{name}", "orders", [column])
    op.create_table(
        "priors",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("patient_hash", sa.String(64), nullable=False),
        sa.Column("method", sa.String(64), nullable=False),
        sa.Column("series_uids", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("asked_at", sa.Float, nullable=False),
    )
    op.create_index("priors_patient", "priors", ["patient_hash"])
    op.create_table(
        "awaited",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("prior_uid", sa.String, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_index("awaited_prior", "awaited", ["prior_uid"])
