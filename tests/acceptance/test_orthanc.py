"""The main job against a real PACS: real studies go in by DCMTK's storescu, Orthanc holds the results."""

import io
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from tests.helpers.running import Node, Orthanc, dicomnode

STUDIES = {"chest_tiny_cip": "chest_tiny_cip/ct-64Dicom", "chest_lidc0314_every4th": "chest_lidc0314_every4th"}
CARRIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def source_header(folder: Path) -> pydicom.Dataset:
    return pydicom.dcmread(next(p for p in sorted(folder.iterdir()) if p.suffix == ".dcm"), stop_before_pixels=True)


@pytest.mark.parametrize("name", STUDIES)
def test_results_of_a_real_study_arrive(
    name: str, data: Path, node: Node, orthanc: Orthanc, storescu: Callable[..., subprocess.CompletedProcess[str]],
    peer: Callable[[str, str], str], tmp_path: Path,
) -> None:  # fmt: skip
    folder = data / STUDIES[name]
    header = source_header(folder)
    sent = storescu(node, folder)
    assert sent.returncode == 0, sent.stderr
    assert node.ended(header.StudyInstanceUID) == "delivered", node.show(header.StudyInstanceUID)

    files = orthanc.study(header.StudyInstanceUID)
    objects = [pydicom.dcmread(io.BytesIO(f)) for f in files]
    assert Counter(o.Modality for o in objects) == {"SEG": 1, "SR": 2, "OT": 1}
    for o, content in zip(objects, files, strict=True):
        for keyword in CARRIED:
            assert str(o.get(keyword) or "") == str(header.get(keyword) or ""), keyword
        path = tmp_path / f"{o.SOPInstanceUID}.dcm"
        path.write_bytes(content)
        verdict = subprocess.run(
            [peer("dciodvfy", "dicom3tools"), str(path)], capture_output=True, text=True, check=False
        )
        assert [x for x in verdict.stderr.splitlines() if x.startswith("Error")] == [], o.Modality
    seg = next(o for o in objects if o.Modality == "SEG")
    referenced = {r.ReferencedSOPInstanceUID for r in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    sources = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in folder.glob("*.dcm")}
    assert referenced <= sources
    assert {o.SeriesInstanceUID for o in objects}.isdisjoint({header.SeriesInstanceUID})


def test_sent_again_changes_nothing(
    data: Path, node: Node, orthanc: Orthanc, storescu: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = data / STUDIES["chest_tiny_cip"]
    study_uid = source_header(folder).StudyInstanceUID
    storescu(node, folder)
    node.ended(study_uid)
    before = {pydicom.dcmread(io.BytesIO(f)).SOPInstanceUID for f in orthanc.study(study_uid)}
    generation = node.show(study_uid)["generation"]
    assert storescu(node, folder).returncode == 0
    assert node.show(study_uid)["generation"] == generation
    assert {pydicom.dcmread(io.BytesIO(f)).SOPInstanceUID for f in orthanc.study(study_uid)} == before


def test_echo_and_send_by_command(data: Path, node: Node) -> None:
    here = f"DICOMNODE@127.0.0.1:{node.port}"
    assert node.cli("echo", "pacs").returncode == 0
    assert dicomnode("echo", here).returncode == 0
    header = source_header(data / STUDIES["chest_tiny_cip"])
    done = dicomnode("send", here, data / STUDIES["chest_tiny_cip"])
    assert done.returncode == 0, done.stderr
    assert "stored 79 of 79" in done.stdout
    assert node.ended(header.StudyInstanceUID) == "delivered"


def test_echo_says_what_is_wrong(node: Node) -> None:
    wrong = dicomnode("echo", f"NOBODY@127.0.0.1:{node.port}")
    assert wrong.returncode == 6
    assert "NOBODY" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_check_answers_for_a_running_node(node: Node) -> None:
    done = node.cli("check")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("demo-synthetic", "golden case", "C-ECHO", "is running"):
        assert part in done.stdout
