"""The tables of the first version. A database that has them is older than the migrations: it stays as it is."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first five tables."""
    if sa.inspect(op.get_bind()).has_table("studies"):
        return
    _intake()
    _work()


def _intake() -> None:
    op.create_table(
        "associations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("receiver_run", sa.String, nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("called_ae", sa.String(16), nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("closed", sa.String(16)),
    )
    op.create_index("associations_open", "associations", ["closed"], sqlite_where=sa.text("closed IS NULL"))
    op.create_table(
        "studies",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("first_seen", sa.Float, nullable=False),
        sa.Column("last_seen", sa.Float, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
    )
    op.create_index("studies_state_last_seen", "studies", ["state", "last_seen"])
    op.create_index("studies_last_seen", "studies", ["last_seen"])
    op.create_table(
        "instances",
        sa.Column("sop_instance_uid", sa.String, primary_key=True),
        sa.Column("sop_class_uid", sa.String, nullable=False),
        sa.Column("study_uid", sa.String, nullable=False),
        sa.Column("series_uid", sa.String, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column(
            "association_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("associations.id")
        ),
        sa.Column("patient_hash", sa.String(64), nullable=False),
        sa.Column("modality", sa.String, nullable=False),
        sa.Column("image_type", sa.Text, nullable=False),
        sa.Column("orientation", sa.String, nullable=False),
        sa.Column("slice_position", sa.Float),
    )
    op.create_index("instances_study", "instances", ["study_uid"])


def _work() -> None:
    op.create_table(
        "jobs",
        sa.Column("study_uid", sa.String, sa.ForeignKey("studies.study_uid"), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_index("jobs_state_updated", "jobs", ["state", "updated_at"])
    op.create_index("jobs_updated", "jobs", ["updated_at"])
    op.create_table(
        "deliveries",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("destination", sa.String, primary_key=True),
        sa.Column("object", sa.String, primary_key=True),
        sa.Column("sop_class_uid", sa.String, nullable=False),
        sa.Column("sop_instance_uid", sa.String, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("text", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
