"""What a person looks for: whose study it is and who sent it, when each job changed, and which deliveries are open."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Two new tables; indexes of open deliveries and of jobs that have a reason; pages' order with the UID."""
    op.drop_index("studies_last_seen", "studies")
    op.create_index("studies_last_seen", "studies", ["last_seen", "study_uid"])
    given = sa.text("reason IS NOT NULL")
    op.create_index("jobs_reason", "jobs", ["study_uid", "generation"], sqlite_where=given, postgresql_where=given)
    op.create_table(
        "study_labels",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("sender", sa.String(16), nullable=False),
        sa.Column("called", sa.String(16), nullable=False),
        sa.Column("accession_key", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("study_labels_sender", "study_labels", ["sender", "seen_at"])
    op.create_index("study_labels_accession", "study_labels", ["accession_key"])
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("transitions_study", "transitions", ["study_uid", "generation"])
    open_ = sa.text("state IN ('pending', 'failed', 'rejected')")
    op.create_index(
        "deliveries_open", "deliveries", ["destination", "state"], sqlite_where=open_, postgresql_where=open_
    )
