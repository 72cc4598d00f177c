"""By what programs are known to DICOMweb, and what a search over studies looks for."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """One new table, one new column; all labels are made anew, by and by, since they hold more than before."""
    op.create_table(
        "console_tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
    )
    op.add_column("study_labels", sa.Column("study_date", sa.String(8), nullable=False, server_default=""))
    op.execute("UPDATE study_labels SET generation = -1")
