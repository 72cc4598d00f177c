"""Brings the catalogue's tables up to date when a database is opened; safe when two processes start at once."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from dicomnode.errors import SpoolError

#: The newest revision in `migrations/versions`; a test compares.
HEAD = "0009"
#: Names the lock under which PostgreSQL changes the tables. SQLite's writers take turns anyway.
_ADVISORY_LOCK = 0x6469636F


def bring_up_to_date(engine: Engine) -> None:
    """Run the migrations that the database lacks, all in one transaction.

    Raises:
        SpoolError: a newer dicomnode has changed the tables in a way that this one does not know.
    """
    with engine.execution_options(reading=True).begin() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = _revision(connection)
        if found is not None and found > HEAD:
            raise SpoolError(
                f"the catalogue has revision {found}, but this dicomnode supports {HEAD}: use the version that made it"
            )
        if found != HEAD:
            _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # Here, because it takes a quarter of a second, and nearly every start finds nothing to do.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
