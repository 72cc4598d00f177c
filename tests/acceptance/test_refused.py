"""What cannot be analysed is refused with its reasons, visibly, and the node goes on."""

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.helpers.running import Node, Orthanc, dicomnode
from tests.helpers.waiting import until

Storescu = Callable[..., subprocess.CompletedProcess[str]]


def study_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)


def truncated(data: Path, folder: Path) -> Path:
    """A chest series one of whose images has lost the second half of its pixels."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    for i, path in enumerate(sorted((data / "chest_tiny_cip" / "ct-64Dicom").glob("*.dcm"))):
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        if i == 40:
            ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
        ds.save_as(folder / path.name)
    return folder


def copied(source: Path, folder: Path, names: str = "*.dcm") -> Path:
    folder.mkdir()
    for path in source.glob(names):
        shutil.copyfile(path, folder / path.name)
    return folder


CASES = {
    "two slices without a modality": (
        lambda d, t: copied(d / "lungmask_2slices", t),
        {"no-modality", "too-few-slices"},
    ),
    "gantry tilt": (lambda d, t: copied(d / "nonstandard_ct_dicom2nifti/gantrytilting/001", t), {"gantry-tilt"}),
    "missing slice": (lambda d, t: copied(d / "nonstandard_ct_dicom2nifti/001", t), {"missing-slices"}),
    "truncated image": (truncated, {"truncated"}),
    "no chest CT": (lambda d, t: copied(d / "seg_sr_examples/sr-example", t, "s*.dcm"), {"not-ct"}),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_reasons(
    case: str, data: Path, node: Node, orthanc: Orthanc, storescu: Storescu, tmp_path: Path
) -> None:
    make, codes = CASES[case]
    folder = make(data, tmp_path / "study")
    done = storescu(node, folder)
    assert done.returncode == 0, done.stderr
    study_uid = study_of(folder)
    assert node.ended(study_uid) == "refused"
    shown = node.show(study_uid)
    told = " ".join(s["decided"] for s in shown["series"])
    for code in codes:
        assert code in told, told
        assert code in shown["reason"]
    assert orthanc.study(study_uid) == []


def test_the_node_goes_on(data: Path, node: Node, storescu: Storescu) -> None:
    folder = data / "chest_tiny_cip" / "ct-64Dicom"
    assert storescu(node, folder).returncode == 0
    assert node.ended(study_of(folder)) == "delivered"


def test_a_destination_may_ask_for_the_reason(data: Path, orthanc: Orthanc, storescu: Storescu, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc.destination('refused_report = true\nobjects = ["summary", "pdf"]')).start()
    try:
        folder = data / "nonstandard_ct_dicom2nifti" / "gantrytilting" / "001"
        assert storescu(node, folder).returncode == 0
        assert node.ended(study_of(folder)) == "refused"
        # The structured report always; the page and the PDF, because the destination takes them.
        held = until("the reports in the PACS", lambda: reports(orthanc, study_of(folder), 3), 60)
        assert set(held) == {"SR", "OT", "DOC"}
        report = held["SR"]
        assert "NUM" not in {i.ValueType for i in items(report)}
        assert "gantry" in " ".join(str(i.get("TextValue", "")) for i in items(report)).lower()
    finally:
        node.stop()


def reports(orthanc: Orthanc, study_uid: str, count: int) -> dict[str, pydicom.Dataset]:
    """What the PACS holds, by modality; nothing while there is less than `count`."""
    held = [pydicom.dcmread(io.BytesIO(content)) for content in orthanc.study(study_uid)]
    return {str(d.Modality): d for d in held} if len(held) == count else {}


def items(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [x for i in dataset.get("ContentSequence", []) for x in (i, *items(i))]


@pytest.mark.parametrize("source", ["lungmask_2slices", "nonstandard_ct_dicom2nifti/gantrytilting", "odd_pydicom"])
def test_analyze_refuses_with_exit_status_3(source: str, data: Path, tmp_path: Path) -> None:
    done = dicomnode("analyze", data / source, "--out", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "out" / "findings.json").exists()
    assert not (tmp_path / "out" / "seg.dcm").exists()
