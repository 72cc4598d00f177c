"""Labels are read from the images by the clock, the newest first, and a damaged image stops nobody."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from dicomnode.service.labelling import _OLDER_AT_ONCE, Labelling, read_label
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label
from dicomnode.store.catalog.overview import Wanted
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import results_folder


def image(path: Path, syntax: str = ExplicitVRLittleEndian, **values: str) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(f"sqlite:///{tmp_path}/c.sqlite")


def receive(catalog: Catalog, uid: str, at: float, path: Path) -> None:
    catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.3", str(path), "0" * 64, 10, at, None, "a" * 32))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_what_a_label_says(tmp_path: Path, syntax: str) -> None:
    named = {"PatientID": "Ä-1", "AccessionNumber": "A1", "StudyDate": "20260102", "StudyDescription": "CT Thorax"}
    named |= {"PatientName": "Ä^B=" + "山" * 30, "ReferringPhysicianName": "R^S", "StudyTime": "101500", "StudyID": "7"}
    path = image(tmp_path / "i.dcm", syntax, **named)
    name = named["PatientName"]
    searched = (name, "", "", "101500", "7", "R^S")
    assert read_label(path) == Label("Ä-1", "", "A1", "20260102", "CT Thorax", *searched)
    assert read_label(image(tmp_path / "none.dcm")) == Label(patient_name="")
    several = read_label(image(tmp_path / "several.dcm", syntax, PatientID="A\\B", StudyDescription="CT\\Thorax"))
    assert (several.patient_id, several.description) == ("A\\B", "CT\\Thorax")


def test_new_studies_and_by_and_by_the_old_ones(tmp_path: Path, catalog: Catalog) -> None:
    path = image(tmp_path / "i.dcm", PatientID="P1")
    now = 1e6
    for number in range(2 * _OLDER_AT_ONCE + 1):
        receive(catalog, f"1.{number}", 100.0 + number, path)
    receive(catalog, "2.1", now - 10, path)
    labelling = Labelling(catalog, tmp_path)
    assert [labelling.tick(now) for _ in range(5)] == [1 + _OLDER_AT_ONCE, _OLDER_AT_ONCE, 1, 0, 0]
    assert {row.label.patient_id for row in catalog.overview(Wanted(limit=100))} == {"P1"}


def test_a_damaged_image_is_looked_at_once(tmp_path: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICMPatient^Name")
    receive(catalog, "1.1", 100.0, tmp_path / "damaged.dcm")
    receive(catalog, "1.2", 100.0, image(tmp_path / "i.dcm", PatientID="P1"))
    labelling = Labelling(catalog, tmp_path)
    assert [labelling.tick(110.0), labelling.tick(112.0)] == [2, 0]
    assert sorted(row.label.patient_id for row in catalog.overview(Wanted())) == ["", "P1"]
    assert "Patient^Name" not in caplog.text


def test_a_study_whose_images_have_gone_is_read_from_its_reports(tmp_path: Path, catalog: Catalog) -> None:
    path = image(tmp_path / "i.dcm", PatientID="P1")
    receive(catalog, "1.1", 100.0, path)
    catalog.settle("1.1", 110.0, held=None)
    (study,) = catalog.studies(1)
    assert catalog.release(study, path.unlink)
    image(results_folder(tmp_path / "results", "1.1", 1) / "risk.dcm", PatientID="P1", AccessionNumber="A1")
    assert Labelling(catalog, tmp_path / "results").tick(120.0) == 1
    (row,) = catalog.overview(Wanted(accession_number="A1"))
    assert row.label.patient_id == "P1"
