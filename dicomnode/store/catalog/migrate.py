"""Brings the catalogue's tables up to date when a database is opened; safe when two processes start at once."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text

from dicomnode.errors import SpoolError
from dicomnode.store import patient_key
from dicomnode.store.catalog.tables import patient_keys
from dicomnode.store.patient_key import PatientKey

#: The newest revision in `migrations/versions`; a test compares.
HEAD = "0019"
#: Names the lock under which PostgreSQL changes the tables. SQLite's writers take turns anyway.
_ADVISORY_LOCK = 0x6469636F


def bring_up_to_date(engine: Engine, state: Path) -> PatientKey:
    """Run the migrations that the database lacks, all in one transaction; return the key of its patients.

    Args:
        engine: the database's.
        state: the folder of the key.

    Raises:
        SpoolError: a newer dicomnode has changed the tables in a way that this one does not know, or the key is not
            that of the database.
    """
    with engine.execution_options(reading=True).begin() as connection:
        if _revision(connection) == HEAD and (fingerprint := _fingerprint(connection)):
            return patient_key.load(state, fingerprint)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = _revision(connection)
        if found is not None and found > HEAD:
            raise SpoolError(
                f"the catalogue has revision {found}, but this dicomnode supports {HEAD}: use the version that made it"
            )
        fingerprint = _fingerprint(connection)
        # The file is there for good before a row is keyed with it.
        key = patient_key.load(state, fingerprint)
        if found != HEAD:
            _upgrade(connection, key)
        if fingerprint is None:
            connection.execute(patient_keys.insert().values(fingerprint=key.fingerprint))
        return key


def require_up_to_date(engine: Engine, state: Path) -> PatientKey:
    """Return the key of the database's patients; arguments as of `bring_up_to_date`, and nothing is changed.

    Raises:
        SpoolError: the tables are not those of this dicomnode, or as there.
    """
    with engine.execution_options(reading=True).begin() as connection:
        found = _revision(connection)
        if found == HEAD and (fingerprint := _fingerprint(connection)):
            return patient_key.load(state, fingerprint)
    if found is None or found < HEAD:
        raise SpoolError(
            f"the catalogue has revision {found or 'none'}, this dicomnode needs {HEAD}: `dicomnode serve` brings it "
            "up to date"
        )
    raise SpoolError(
        f"the catalogue has revision {found}, but this dicomnode supports {HEAD}: use the version that made it"
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _fingerprint(connection: Connection) -> str | None:
    if not inspect(connection).has_table(patient_keys.name):
        return None
    return connection.execute(select(patient_keys.c.fingerprint)).scalar()


def _upgrade(connection: Connection, key: PatientKey) -> None:
    # Here, because it takes a quarter of a second, and nearly every start finds nothing to do.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    config.attributes["patient_key"] = key
    command.upgrade(config, "head")
