"""Which commits wait for the disk, and that the plain statements do what SQLAlchemy's do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.errors import DatabaseError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

FULL, NORMAL = 2, 1  # PRAGMA synchronous


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite")
    yield opened
    opened.close()


def image(number: int, **changes: object) -> Instance:
    fields = {
        "sop_instance_uid": f"1.2.3.{number}", "sop_class_uid": "1", "study_uid": "1.2", "series_uid": "1.2.3",
        "path": f"/x/{number}", "sha256": f"{number:064}", "size": 8, "received_at": 100.0 + number,
        "association_id": None, "patient_hash": "p" * 32,
    }  # fmt: skip
    return Instance(**{**fields, **changes})  # type: ignore[arg-type]


def test_only_the_rows_of_new_images_do_not_wait_for_the_disk(catalog: Catalog) -> None:
    assert catalog.record(image(1)) == "new"
    assert catalog._new_rows is not None
    quick = catalog._new_rows._opened
    assert quick is not None
    assert quick.execute("PRAGMA synchronous").fetchone() == (NORMAL,)
    with catalog._write() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == FULL
    before = quick.total_changes
    assert catalog.record(image(1, received_at=200.0)) == "same"
    assert catalog.record(image(1, sha256="f" * 64)) == "conflict"
    assert quick.total_changes == before


def test_both_ways_write_the_same_rows(catalog: Catalog, tmp_path: Path) -> None:
    other = Catalog.open(f"sqlite:///{tmp_path}/other.sqlite")
    other._new_rows = None  # as on PostgreSQL
    for one in (catalog, other):
        association = one.begin_association("run", "A", "B", "127.0.0.1", 99.0)
        for number in range(3):
            assert one.record(image(number, association_id=association, slice_position=float(number))) == "new"
        one.settle("1.2", 110.0, None)
        assert one.record(image(7)) == "new"
    assert catalog.instances("1.2") == other.instances("1.2")
    assert catalog.study("1.2") == other.study("1.2")
    other.close()


def test_a_row_that_cannot_be_written_leaves_the_way_free(catalog: Catalog) -> None:
    with pytest.raises(DatabaseError, match="the catalogue's database failed: FOREIGN KEY"):
        catalog.record(image(1, association_id=99))
    assert catalog.record(image(1)) == "new"
