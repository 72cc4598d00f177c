"""The registry: what training may use of each scan, under pseudonyms."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Four new tables."""
    op.create_table(
        "registry_scans",
        sa.Column("scan", sa.String(32), primary_key=True),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("date", sa.String(10), nullable=False),
        sa.Column("age_years", sa.Float),
        sa.Column("sex", sa.String(1), nullable=False),
        sa.Column("manufacturer", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("kernel", sa.String, nullable=False),
        sa.Column("kernel_family", sa.String(16), nullable=False),
        sa.Column("slice_thickness_mm", sa.Float),
        sa.Column("spacing_z_mm", sa.Float, nullable=False),
        sa.Column("segmenter", sa.String, nullable=False),
        sa.Column("software_version", sa.String, nullable=False),
        sa.Column("algorithm_digest", sa.String(64), nullable=False),
        sa.Column("doubts", sa.String, nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("volume", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.Float, nullable=False),
    )
    op.create_index("registry_scans_patient", "registry_scans", ["patient"])
    op.create_table(
        "registry_outcomes",
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("death_date", sa.String(10), nullable=False),
        sa.Column("last_contact_date", sa.String(10), nullable=False),
        sa.Column("transplant_date", sa.String(10), nullable=False),
        sa.Column("imported_at", sa.Float, nullable=False),
    )
    op.create_table(
        "registry_forgotten",
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("forgotten_at", sa.Float, nullable=False),
    )
    op.create_table(
        "registry_risks",
        sa.Column("scan", sa.String(32), primary_key=True),
        sa.Column("bundle_sha256", sa.String(64), primary_key=True),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("bundle", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("served", sa.Boolean, nullable=False),
        sa.Column("risk", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.Float, nullable=False),
    )
    op.create_index("registry_risks_patient", "registry_risks", ["patient"])
