"""After a crash: spool and catalogue in both directions, and the deep check."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicomnode import config
from dicomnode.network import file_meta
from dicomnode.operations import checks
from dicomnode.reception.reconcile import Reconciled, reconcile
from dicomnode.reception.spooled import digest, read_instance
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text("[analysis]\nradiomics = false\n")
    loaded = config.load(path)
    loaded.storage.state.mkdir(parents=True)
    return loaded


@pytest.fixture
def catalog(settings: config.Config) -> Iterator[Catalog]:
    opened = Catalog.open(settings.catalog_url, settings.storage.state)
    yield opened
    opened.close()


@pytest.fixture
def spool(settings: config.Config) -> Spool:
    return Spool(settings.storage.spool)


def put(spool: Spool, number: int, *, pixels: bytes = b"\0\0", study_uid: str = "1.2", age_s: float = 60) -> Path:
    """A file that is complete in the spool and unknown to the catalogue."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, "1.2.3"
    dataset.add_new(0x7FE00010, "OW", pixels)
    data = encode(dataset, False, True)
    assert data is not None
    meta = file_meta.encode(CTImageStorage, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
    path = spool.store(study_uid, "1.2.3", dataset.SOPInstanceUID, meta, data).path
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_nothing_to_find(spool: Spool, catalog: Catalog) -> None:
    catalog.record(read_instance(put(spool, 1)))
    found = reconcile(spool, catalog, read_instance)
    assert found == Reconciled(0, 0, ())
    assert not found.trouble


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("study_uid", ["1.2", "no plain UID"])
def test_a_complete_file_that_was_not_recorded_is_recorded(spool: Spool, catalog: Catalog, study_uid: str) -> None:
    path = put(spool, 1, study_uid=study_uid)
    assert reconcile(spool, catalog, read_instance) == Reconciled(1, 0, ())
    (instance,) = catalog.instances(study_uid)
    assert (instance.path, instance.sha256, instance.size) == (str(path), digest(path), path.stat().st_size)
    assert [s.study_uid for s in catalog.unsettled(time.time())] == [study_uid]  # it is a new image for its study
    assert reconcile(spool, catalog, read_instance) == Reconciled(0, 0, ())


def test_a_file_on_its_way_to_the_catalogue_is_left_alone(spool: Spool, catalog: Catalog) -> None:
    put(spool, 1, age_s=0)
    assert reconcile(spool, catalog, read_instance) == Reconciled(0, 0, ())
    assert catalog.instances("1.2") == []


def test_other_content_under_a_taken_uid_goes_to_quarantine(spool: Spool, catalog: Catalog) -> None:
    first = put(spool, 1)
    catalog.record(read_instance(first))
    second = put(spool, 1, pixels=b"\1\1")
    assert reconcile(spool, catalog, read_instance) == Reconciled(0, 1, ())
    assert first.exists()
    assert not second.exists()
    assert len(list((spool.root / "quarantine").glob("*.dcm"))) == 1
    assert len(catalog.conflicts("1.2")) == 1


def test_a_file_that_is_no_instance_goes_to_quarantine(spool: Spool, catalog: Catalog) -> None:
    path = put(spool, 1)
    path.write_bytes(b"rubbish")
    os.utime(path, (time.time() - 60,) * 2)
    assert reconcile(spool, catalog, read_instance) == Reconciled(0, 1, ())
    assert not path.exists()


def test_a_recorded_image_without_its_file_is_named_and_a_resend_puts_it_back(spool: Spool, catalog: Catalog) -> None:
    path = put(spool, 1)
    instance = read_instance(path)
    catalog.record(instance)
    path.unlink()
    assert reconcile(spool, catalog, read_instance) == Reconciled(0, 0, ("1.2.3.1",))
    assert catalog.record(read_instance(put(spool, 1))) == "same"
    assert not reconcile(spool, catalog, read_instance).trouble


@pytest.mark.parametrize("damage", ["a bit", "cut off", "gone", "rubbish"])
def test_the_deep_check_finds_every_damage(
    spool: Spool, catalog: Catalog, settings: config.Config, damage: str
) -> None:
    paths = [put(spool, n) for n in range(3)]
    for path in paths:
        catalog.record(read_instance(path))
    (result,) = [r for r in checks.run(settings, deep=True) if r.what == "spool"]
    assert (result.ok, result.text) == (True, "3 files match their digests")
    content = bytearray(paths[1].read_bytes())
    if damage == "a bit":
        content[-1] ^= 1
        paths[1].write_bytes(content)
    elif damage == "cut off":
        paths[1].write_bytes(content[:-1])
    elif damage == "gone":
        paths[1].unlink()
    else:
        paths[1].write_bytes(b"rubbish")
    (result,) = [r for r in checks.run(settings, deep=True) if r.what == "spool"]
    assert not result.ok
    assert "1 of 3 files" in result.text
    assert "1.2.3.1" in result.text
    assert "spool" not in [r.what for r in checks.run(settings)]
