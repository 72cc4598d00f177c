"""The catalogue's tables come about by migrations, on both databases, also when two processes start at once."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from dicomnode.errors import SpoolError
from dicomnode.registry_format.identity import NO_PATIENT_ID
from dicomnode.store.catalog import migrate
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.database import _use_wal
from dicomnode.store.catalog.tables import metadata

MIGRATIONS = Path(migrate.__file__).with_name("migrations")
FIRST_TABLES = {"associations", "studies", "instances", "jobs", "deliveries"}


def test_migrated_tables_are_those_of_the_metadata(url: str) -> None:
    catalog = Catalog.open(url)
    with catalog._engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    catalog.close()


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == migrate.HEAD


def test_a_database_of_the_first_version_keeps_its_rows(url: str) -> None:
    """What the first release made: its tables, and a version table of its own instead of alembic's."""
    catalog = Catalog.open(url)
    catalog.close()
    first = Catalog.open(url)
    with first._engine.begin() as connection:
        for table in {*metadata.tables, "alembic_version"} - FIRST_TABLES:
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("DROP INDEX instances_association"))
        connection.execute(text("ALTER TABLE deliveries DROP COLUMN commitment"))
        connection.execute(text("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)"))
        connection.execute(
            text("INSERT INTO studies VALUES ('1.2', 1, 'delivered', 10.0, 20.0, 3)"),
        )
        connection.execute(text("INSERT INTO jobs VALUES ('1.2', 1, 'delivered', NULL, 20.0, 30.0)"))
        connection.execute(
            text("INSERT INTO deliveries VALUES ('1.2', 1, 'p', 'seg', '1', '2', '/x', 'delivered', 0, '', 1, 30.0)")
        )
        a, b, issuer = "a" * 32, "b" * 32, "c" * 32
        of_study = [
            ("1.4", a + issuer),
            ("1.4", a),
            ("1.5", a + issuer),
            ("1.6", a),
            ("1.6", b),
            ("1.7", NO_PATIENT_ID),
        ]
        of_study.append(("1.8", NO_PATIENT_ID))
        for number, (study_uid, patient_hash) in enumerate(of_study):
            values = f"'{number}', '1', '{study_uid}', '2', '/x', 'd', 1, 1.0, NULL, '{patient_hash}', '', '', '', NULL"
            connection.execute(text(f"INSERT INTO instances VALUES ({values})"))
    first.close()
    upgraded = Catalog.open(url)
    (study,) = upgraded.studies(10)
    assert (study.study_uid, study.instances) == ("1.2", 3)
    assert upgraded.other_studies("1.4") == ["1.5"]
    assert upgraded.other_studies("1.6") == upgraded.other_studies("1.7") == []
    (delivery,) = upgraded.deliveries("1.2", 1)
    assert (delivery.state, delivery.commitment) == ("delivered", False)
    upgraded.close()


def _open(url: str, started: "multiprocessing.synchronize.Barrier") -> None:
    started.wait()
    Catalog.open(url).close()


def _prepare(path: Path, started: "multiprocessing.synchronize.Barrier") -> None:
    connection = sqlite3.connect(path)
    started.wait()
    _use_wal(connection)
    connection.close()


@pytest.mark.slow
def test_a_new_sqlite_file_opened_at_once(tmp_path: Path) -> None:
    """Without patience, one of ten openings failed with «database is locked»."""
    method = multiprocessing.get_context("fork")
    for attempt in range(40):
        barrier = method.Barrier(3)
        openers = [method.Process(target=_prepare, args=(tmp_path / f"{attempt}.db", barrier)) for _ in range(3)]
        for process in openers:
            process.start()
        for process in openers:
            process.join(60)
        assert [process.exitcode for process in openers] == [0, 0, 0]


@pytest.mark.slow
def test_several_starters_at_once(url: str) -> None:
    method = multiprocessing.get_context("spawn")
    barrier = method.Barrier(3)
    starters = [method.Process(target=_open, args=(url, barrier)) for _ in range(3)]
    for process in starters:
        process.start()
    for process in starters:
        process.join(60)
    assert [process.exitcode for process in starters] == [0, 0, 0]
    catalog = Catalog.open(url)
    assert catalog.studies(1) == []
    catalog.close()


def test_a_catalogue_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    Catalog.open(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SpoolError, match="revision 9999"):
        Catalog.open(f"sqlite:///{path}")
