"""Patients are known by a keyed hash; a table says by which key."""

import sqlalchemy as sa
from alembic import context, op

from dicomnode.store.patient_key import PatientKey

revision = "0010"
down_revision = "0009"

#: As they are at this revision.
_COLUMNS = (
    ("instances", "patient_hash"),
    ("patients", "patient_hash"),
    ("orders", "patient_hash"),
    ("priors", "patient_hash"),
    ("orders", "key"),
)
_BATCH = 10_000


def upgrade() -> None:
    """One new table; every hash gets its keyed form, in the migrations' one transaction: all of them or none."""
    op.create_table("patient_keys", sa.Column("fingerprint", sa.String(64), primary_key=True))
    key: PatientKey = context.config.attributes["patient_key"]
    connection = op.get_bind()
    # A table of the few different values, not an update for each: no column but these is indexed, and rows are many.
    connection.execute(
        sa.text("CREATE TEMPORARY TABLE rekeyed (old VARCHAR(64) PRIMARY KEY, new VARCHAR(64) NOT NULL)")
    )
    for table, column in _COLUMNS:
        keyed = key.order if column == "key" else key.keyed
        found = sa.text(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL")  # noqa: S608  (ours)
        pairs = [{"old": old, "new": keyed(old)} for old in connection.execute(found).scalars()]
        for start in range(0, len(pairs), _BATCH):
            connection.execute(sa.text("INSERT INTO rekeyed VALUES (:old, :new)"), pairs[start : start + _BATCH])
        changed = f"UPDATE {table} SET {column} = (SELECT new FROM rekeyed WHERE old = {table}.{column})"  # noqa: S608
        connection.execute(sa.text(f"{changed} WHERE {column} IS NOT NULL"))
        connection.execute(sa.text("DELETE FROM rekeyed"))
    connection.execute(sa.text("DROP TABLE rekeyed"))
    # Workers of before would take the keyed hashes for plain ones, and make other pseudonyms of them: their leases end.
    connection.execute(sa.text("UPDATE workers SET epoch = epoch + 1, state = 'dead' WHERE state = 'alive'"))
