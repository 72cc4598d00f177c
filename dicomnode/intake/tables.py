"""The catalogue's tables, and how a database is opened: SQLite (one machine) or PostgreSQL (several)."""

import sqlite3
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dicomnode.errors import SpoolError

SCHEMA_VERSION = 1
#: How long a writer waits for another process' write before it gives up, seconds.
BUSY_S = 20.0
#: Names the lock under which PostgreSQL makes the tables: two processes may open a new database at once.
_ADVISORY_LOCK = 0x6469636F

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

associations = Table(
    "associations",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("receiver_run", String, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("closed", String(16)),
)
Index("associations_open", associations.c.closed, sqlite_where=associations.c.closed.is_(None))

studies = Table(
    "studies",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("instances", Integer, nullable=False),
)
Index("studies_state_last_seen", studies.c.state, studies.c.last_seen)
Index("studies_last_seen", studies.c.last_seen)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("association_id", ForeignKey("associations.id")),
    Column("patient_hash", String(64), nullable=False),
    Column("modality", String, nullable=False),
    Column("image_type", Text, nullable=False),
    Column("orientation", String, nullable=False),
    Column("slice_position", Float),
)
Index("instances_study", instances.c.study_uid)

jobs = Table(
    "jobs",
    metadata,
    Column("study_uid", ForeignKey("studies.study_uid"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
Index("jobs_state_updated", jobs.c.state, jobs.c.updated_at)
Index("jobs_updated", jobs.c.updated_at)

deliveries = Table(
    "deliveries",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("destination", String, primary_key=True),
    Column("object", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("sop_instance_uid", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", Integer),
    Column("text", Text),
    Column("attempts", Integer, nullable=False),
    Column("updated_at", Float, nullable=False),
)


def open_database(url: str) -> Engine:
    """An engine on a database whose tables exist.

    Raises:
        SpoolError: the database cannot be reached, or was made by a newer dicomnode.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, connect_args={"timeout": BUSY_S}, pool_size=16, max_overflow=64)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            engine = create_engine(parsed, pool_pre_ping=True, pool_size=16, max_overflow=64)
        with engine.begin() as connection:
            _make_tables(connection)
    except (ArgumentError, ImportError) as error:
        raise SpoolError(
            f"the catalogue's URL is not one that works here ({error}); "
            "use sqlite:////absolute/path.db or postgresql+psycopg://…"
        ) from error
    except SQLAlchemyError as error:
        raise database_error(error) from error
    return engine


def database_error(error: SQLAlchemyError) -> SpoolError:
    """The driver's own words, without the statement and its values."""
    cause = getattr(error, "orig", None)
    return SpoolError(
        f"the catalogue's database failed: {cause or type(error).__name__}; check its disk, URL and rights"
    )


def _make_tables(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    metadata.create_all(connection)
    found = connection.execute(select(schema_version.c.version)).scalar()
    if found is None:
        connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))
    elif found != SCHEMA_VERSION:
        raise SpoolError(
            f"the catalogue has schema version {found}, this dicomnode knows {SCHEMA_VERSION}: use the one that made it"
        )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would start its own deferred transactions; _begin_sqlite starts ours.
    connection.isolation_level = None
    # WAL: readers don't wait for the receiver. FULL: a commit is on the disk before the sender hears «success»
    # (NORMAL would lose the last commits in a power cut). About 0.5 ms a commit.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes would fail at once when another process wrote in between, whatever the
    # busy time-out: writers take the lock first.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
