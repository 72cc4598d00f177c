"""In which order labels were noted, so that who remembers them reads only what is new."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """One new column with its index; labels that are there get numbers in the order of their images."""
    op.add_column("study_labels", sa.Column("noted", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE study_labels SET noted = numbered.number FROM"
        " (SELECT study_uid, row_number() OVER (ORDER BY seen_at, study_uid) AS number FROM study_labels) AS numbered"
        " WHERE numbered.study_uid = study_labels.study_uid"
    )
    op.create_index("study_labels_noted", "study_labels", ["noted"])
