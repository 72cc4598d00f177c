"""Whose a study is, kept when its images are removed."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """One new table, filled for the studies that still have their images."""
    op.create_table(
        "patients",
        sa.Column("study_uid", sa.String, primary_key=True),
        sa.Column("patient_hash", sa.String(64)),
    )
    op.create_index("patients_hash", "patients", ["patient_hash"])
    # The longest hash is the one with the issuer. Two patients in a study, or no ID: nobody's.
    known = sa.text(
        "INSERT INTO patients (study_uid, patient_hash) SELECT study_uid, CASE "
        "WHEN COUNT(DISTINCT SUBSTR(patient_hash, 1, 32)) = 1 "
        "AND COUNT(DISTINCT NULLIF(SUBSTR(patient_hash, 33), '')) < 2 "
        "AND MIN(SUBSTR(patient_hash, 1, 32)) <> :no_id "
        "THEN MAX(patient_hash) END FROM instances GROUP BY study_uid"
    )
    op.execute(known.bindparams(no_id=hashlib.sha256(b"").hexdigest()[:32]))
