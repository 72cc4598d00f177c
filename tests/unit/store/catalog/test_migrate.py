"""The catalogue's tables come about by migrations, on both databases, also when two processes start at once."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, text

from dicomnode.errors import SpoolError
from dicomnode.registry_format.identity import NO_PATIENT_ID, patient_hash
from dicomnode.store.catalog import migrate
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.database import _use_wal
from dicomnode.store.catalog.tables import metadata, orders
from dicomnode.store.patient_key import KEY_FILE, PatientKey
from dicomnode.store.records import Lease

MIGRATIONS = Path(migrate.__file__).with_name("migrations")
AFTER_0010 = (
    "alerts", "alert_messages", "refusals", "removal_notices", "late_orders", "reanalyses", "study_labels",
    "transitions", "console_users", "console_sessions", "console_tokens", "bulk_studies",
)  # fmt: skip
#: Of tables that were there before.
LATER_INDEXES = ("deliveries_open", "deliveries_instance", "jobs_reason")
FIRST_TABLES = {"associations", "studies", "instances", "jobs", "deliveries"}


def test_migrated_tables_are_those_of_the_metadata(url: str, tmp_path: Path) -> None:
    catalog = Catalog.open(url, tmp_path)
    with catalog._engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    catalog.close()


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == migrate.HEAD


def test_a_database_of_the_first_version_keeps_its_rows(url: str, tmp_path: Path) -> None:
    """What the first release made: its tables, and a version table of its own instead of alembic's."""
    catalog = Catalog.open(url, tmp_path)
    catalog.close()
    first = Catalog.open(url, tmp_path)
    with first._engine.begin() as connection:
        for table in {*metadata.tables, "alembic_version"} - FIRST_TABLES:
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("DROP INDEX instances_association"))
        for index in LATER_INDEXES:
            connection.execute(text(f"DROP INDEX {index}"))
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
    upgraded = Catalog.open(url, tmp_path)
    (study,) = upgraded.studies(10)
    assert (study.study_uid, study.instances) == ("1.2", 3)
    assert upgraded.other_studies("1.4") == ["1.5"]
    assert upgraded.other_studies("1.6") == upgraded.other_studies("1.7") == []
    (delivery,) = upgraded.deliveries("1.2", 1)
    assert (delivery.state, delivery.commitment) == ("delivered", False)
    upgraded.close()


def _open(url: str, state: Path, started: "multiprocessing.synchronize.Barrier") -> None:
    started.wait()
    Catalog.open(url, state).close()


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
def test_several_starters_at_once(url: str, tmp_path: Path) -> None:
    method = multiprocessing.get_context("spawn")
    barrier = method.Barrier(3)
    starters = [method.Process(target=_open, args=(url, tmp_path, barrier)) for _ in range(3)]
    for process in starters:
        process.start()
    for process in starters:
        process.join(60)
    assert [process.exitcode for process in starters] == [0, 0, 0]
    catalog = Catalog.open(url, tmp_path)
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


PLAIN = patient_hash(b"12345", b"HOSP")
ORDER = "0" * 63 + "1"


def _before_keys(url: str, state: Path) -> Lease:
    """A catalogue as of revision 0009, with rows and a worker; its lease."""
    catalog = Catalog.open(url, state)
    lease = catalog.register_worker("w", "1")
    assert catalog.beat(lease)
    with catalog._engine.begin() as connection:
        for table in ("patient_keys", "corrections", "acceptances", *AFTER_0010):
            connection.execute(text(f"DROP TABLE {table}"))
        for index in LATER_INDEXES:
            connection.execute(text(f"DROP INDEX {index}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0009'"))
        for number, plain in enumerate((PLAIN, PLAIN, NO_PATIENT_ID)):
            values = f"'{number}', '1', '1.{number}', '2', '/x', 'd', 1, 1.0, NULL, '{plain}', '', '', '', NULL"
            connection.execute(text(f"INSERT INTO instances VALUES ({values})"))
            connection.execute(text(f"INSERT INTO patients VALUES ('1.{number}', '{plain}')"))
        connection.execute(text("INSERT INTO patients VALUES ('1.9', NULL)"))
        order = insert(orders).values(
            key=ORDER, patient_hash=PLAIN, study_uid="1.0", accession_number="", scheduled="", content=b"", seen_at=1.0
        )
        connection.execute(order)
        connection.execute(text(f"INSERT INTO priors VALUES ('1.1', '{PLAIN}', 'm', '1', 'fetched', NULL, 1.0)"))
    catalog.close()
    (state / KEY_FILE).unlink()
    return lease


def test_rows_of_before_are_keyed_once(url: str, tmp_path: Path) -> None:
    lease = _before_keys(url, tmp_path)
    for _ in range(2):
        catalog = Catalog.open(url, tmp_path)
        key = catalog.patient_key
        assert key == PatientKey((tmp_path / KEY_FILE).read_bytes())
        keyed = key.keyed(PLAIN)
        with catalog._engine.begin() as connection:
            for table in ("instances", "patients", "orders", "priors"):
                found = set(connection.execute(text(f"SELECT patient_hash FROM {table}")).scalars())
                assert found - {NO_PATIENT_ID, None} == {keyed}, table
        assert catalog.other_studies("1.0") == ["1.1"]
        prior = catalog.prior("1.1")
        assert prior is not None
        assert prior.patient_hash == keyed
        (order,) = catalog.orders_like(keyed, "", "")
        # A workflow that was queued before names the order by its old key.
        assert order.key == key.order(ORDER)
        assert not catalog.beat(lease)  # that worker knows nothing of keys
        assert catalog.order(ORDER) == catalog.order(order.key) == order
        catalog.close()


def test_rows_are_keyed_all_or_not_at_all(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the last moment, the next start does all of it, with the same key."""
    _before_keys(url, tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PatientKey, "fingerprint", property(killed))
        with pytest.raises(KeyboardInterrupt):
            Catalog.open(url, tmp_path)
    made = (tmp_path / KEY_FILE).read_bytes()
    catalog = Catalog.open(url, tmp_path)
    assert catalog.patient_key.key == made
    assert {i.patient_hash for i in catalog.instances("1.0")} == {catalog.patient_key.keyed(PLAIN)}
    catalog.close()


def test_a_process_with_another_key_does_not_start(url: str, tmp_path: Path) -> None:
    Catalog.open(url, tmp_path).close()
    elsewhere = tmp_path / "another machine"
    elsewhere.mkdir()
    with pytest.raises(SpoolError, match=r"patient\.key is missing"):
        Catalog.open(url, elsewhere)
    (elsewhere / KEY_FILE).write_bytes(b"k" * 32)
    with pytest.raises(SpoolError, match="not the key of this catalogue"):
        Catalog.open(url, elsewhere)
    (elsewhere / KEY_FILE).write_bytes((tmp_path / KEY_FILE).read_bytes())
    Catalog.open(url, elsewhere).close()


def test_a_lost_key_can_be_given_up(url: str, tmp_path: Path) -> None:
    catalog = Catalog.open(url, tmp_path)
    with catalog._engine.begin() as connection:
        connection.execute(text("DELETE FROM patient_keys"))
    catalog.close()
    (tmp_path / KEY_FILE).unlink()
    for _ in range(2):
        again = Catalog.open(url, tmp_path)
        assert again.patient_key != catalog.patient_key
        again.close()
