"""Odd values, no File Meta Information, lossy images, objects between the images: by the real commands."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dicomnode.store.catalog.catalog import Catalog
from tests.acceptance.validators import Peer, errors, said
from tests.helpers.receiving import Receiving
from tests.helpers.running import Orthanc, dicomnode
from tests.helpers.waiting import until

RTSTRUCT, CHEST_CAD, PRIVATE = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.88.65", "1.3.12.2.1107.5.9.1"
CONFIG = "[analysis]\nradiomics = false\n"


def images(data: Path) -> list[Dataset]:
    """The tiny chest, with values of its own for what a scanner states."""
    found = []
    for path in sorted((data / "chest_tiny_cip" / "ct-64Dicom").glob("*.dcm")):
        image = pydicom.dcmread(path)
        image.remove_private_tags()
        image.SliceThickness, image.PatientBirthDate, image.SeriesDescription = "9.98", "19600102", "Lung"
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.append(image)
    return found


def decimal_comma(image: Dataset) -> bytes:
    return to_file(image).replace(b"DS\x04\x009.98", b"DS\x04\x009,98")


def no_file_meta(image: Dataset) -> bytes:
    made = DicomBytesIO()
    made.is_little_endian, made.is_implicit_VR = True, True
    write_dataset(made, image)
    return made.getvalue()


def derived_and_lossy(image: Dataset) -> bytes:
    image.ImageType, image.LossyImageCompression = ["DERIVED", "PRIMARY", "AXIAL"], "01"
    return to_file(image)


def to_file(image: Dataset) -> bytes:
    made = DicomBytesIO()
    image.save_as(made, enforce_file_format=True)
    return made.getvalue()


@pytest.mark.parametrize(
    ("form", "flag"), [(decimal_comma, "values-repaired"), (no_file_meta, ""), (derived_and_lossy, "lossy")]
)
def test_analyze_takes_what_a_person_can_read(
    form: Callable[[Dataset], bytes], flag: str, data: Path, tmp_path: Path, peer: Peer
) -> None:
    folder, out, config = tmp_path / "in", tmp_path / "out", tmp_path / "ae_config.toml"
    folder.mkdir()
    config.write_text(CONFIG, encoding="utf-8")
    for number, image in enumerate(images(data)):
        (folder / f"{number:03}.dcm").write_bytes(form(image))
    done = dicomnode("analyze", folder, "--out", out, "--config", config)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "findings.json").read_text("utf-8"))
    assert not flag or flag in {f["code"] for f in found["flags"]}
    dciodvfy = peer("dciodvfy", "dicom3tools")
    for name in ("seg.dcm", "measurements.dcm", "summary.dcm"):
        checked = subprocess.run(
            [dciodvfy, "-new", out / name], capture_output=True, text=True, errors="replace", check=False
        )
        assert errors(checked.stderr + checked.stdout) == []


def with_others(data: Path, folder: Path, *classes: str) -> tuple[str, int]:
    """Write the study with an object of each of these classes between its images; its UID, and how many there are.

    Its UIDs are its own: the PACS of all tests may hold the same images, and results made of them.
    """
    folder.mkdir()
    every = images(data)
    study_uid, series_uid = generate_uid(), generate_uid()
    for number, image in enumerate(every):
        image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = study_uid, series_uid, generate_uid()
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        (folder / f"{number:04}.dcm").write_bytes(to_file(image))
    for sop_class in classes:
        among = Dataset()
        among.SOPClassUID, among.SOPInstanceUID, among.SeriesInstanceUID = sop_class, generate_uid(), generate_uid()
        among.StudyInstanceUID, among.PatientID, among.Modality = every[0].StudyInstanceUID, every[0].PatientID, "OT"
        among.file_meta = FileMetaDataset()
        among.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        (folder / f"0039-{sop_class}.dcm").write_bytes(to_file(among))
    return every[0].StudyInstanceUID, len(every) + len(classes)


def all_arrive(node: Receiving, study_uid: str, number: int) -> None:
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    until("all arrived", lambda: len(catalog.instances(study_uid)) == number, 20)
    catalog.close()


def test_storescu_sends_the_whole_study_with_objects_among_the_images(data: Path, tmp_path: Path, peer: Peer) -> None:
    study_uid, number = with_others(data, tmp_path / "in", RTSTRUCT, CHEST_CAD)
    node = Receiving(tmp_path / "node")
    try:
        said([peer("storescu", "dcmtk"), "-aec", "NODE", "127.0.0.1", str(node.port), "+sd", str(tmp_path / "in")])
        all_arrive(node, study_uid, number)
    finally:
        node.stop()


def test_a_job_of_orthanc_sends_the_whole_study_with_objects_among_the_images(
    data: Path, tmp_path: Path, orthanc: Orthanc
) -> None:
    study_uid, number = with_others(data, tmp_path / "in", RTSTRUCT, CHEST_CAD, PRIVATE)
    for path in sorted((tmp_path / "in").iterdir()):
        orthanc.client.post("/instances", content=path.read_bytes()).raise_for_status()
    node = Receiving(tmp_path / "node", node=f'private_storage = ["{PRIVATE}"]')
    try:
        where = {"AET": "NODE", "Host": "127.0.0.1", "Port": node.port}
        orthanc.client.put("/modalities/node", json=where).raise_for_status()
        query = {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}}
        found = orthanc.client.post("/tools/find", json=query).raise_for_status().json()
        job = {"Resources": found, "Synchronous": True}
        done = orthanc.client.post("/modalities/node/store", json=job, timeout=60).raise_for_status().json()
        assert done["FailedInstancesCount"] == 0, done
        all_arrive(node, study_uid, number)
    finally:
        node.stop()
