"""Studies that a command brings in bulk, from a folder or by a list from the PACS."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """One new table."""
    op.create_table(
        "bulk_studies",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("how", sa.String(16), nullable=False),
        sa.Column("keep", sa.Boolean, nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        sa.Column("begun_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
    )
