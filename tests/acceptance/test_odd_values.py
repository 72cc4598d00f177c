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
from tests.helpers.running import dicomnode
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


@pytest.mark.parametrize("sop_class", [RTSTRUCT, CHEST_CAD, PRIVATE])
def test_storescu_sends_the_whole_study_with_an_object_among_the_images(
    sop_class: str, data: Path, tmp_path: Path, peer: Peer
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    every = images(data)
    for number, image in enumerate(every):
        (folder / f"{number:04}.dcm").write_bytes(to_file(image))
    among = Dataset()
    among.SOPClassUID, among.SOPInstanceUID, among.SeriesInstanceUID = sop_class, generate_uid(), generate_uid()
    among.StudyInstanceUID, among.PatientID, among.Modality = every[0].StudyInstanceUID, every[0].PatientID, "OT"
    among.file_meta = FileMetaDataset()
    among.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    (folder / "0039a.dcm").write_bytes(to_file(among))
    node = Receiving(tmp_path / "node", node=f'private_storage = ["{PRIVATE}"]')
    try:
        told = ["-aec", "NODE", "127.0.0.1", str(node.port), "+sd", str(folder)]
        # Only with -R does it propose what it does not know.
        said([peer("storescu", "dcmtk"), *(["-R"] if sop_class == PRIVATE else []), *told])
        catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
        until("all arrived", lambda: len(catalog.instances(every[0].StudyInstanceUID)) == len(every) + 1, 20)
        catalog.close()
    finally:
        node.stop()
