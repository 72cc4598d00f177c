"""A started node, DCMTK and Orthanc: studies that come again, corrected, and what the PACS then holds."""

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.store.catalog.catalog import Catalog
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected, rejected_by, rejection_note, said, screenshot
from tests.helpers.running import Node, Orthanc
from tests.helpers.waiting import until

CALLERS = """
[[node.callers]]
ae_title = "ORTHANC"
on_conflict = "newest"
[[node.callers]]
ae_title = "STORESCU"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[Node]:
    destination = orthanc.destination("reject_old = true\n")
    more = "radiomics = false\n[registry]\nrecord = true\n"
    running = Node(tmp_path_factory.mktemp("correcting"), destination, more, CALLERS).start()
    yield running
    assert running.stop() == 0, running.log()[-4000:]


@pytest.fixture
def source(data: Path) -> Path:
    return data / "chest_tiny_cip" / "ct-64Dicom"


@pytest.fixture
def store(peer: Callable[[str, str], str], node: Node) -> Callable[[Path], "subprocess.CompletedProcess[str]"]:
    """DCMTK's storescu, which stops at the first refused image."""

    def send(folder: Path) -> subprocess.CompletedProcess[str]:
        program = peer("storescu", "dcmtk")
        command = [program, "-R", "+sd", "+r", "-aec", "DICOMNODE", "127.0.0.1", str(node.port), str(folder)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)

    return send


def delivered(node: Node, uid: str, generation: int) -> None:
    """Wait for a generation's end."""
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)

    def look() -> bool:
        study, job = catalog.study(uid), catalog.job(uid, generation)
        return (
            study is not None
            and study.generation == generation
            and job is not None
            and job.state
            in (
                "delivered",
                "refused",
            )
        )

    try:
        until(f"generation {generation} of {uid}", look, 120)
    except BaseException:
        print(node.log()[-6000:])
        raise
    finally:
        catalog.close()


def results(orthanc: Orthanc, uid: str) -> list[Dataset]:
    return [pydicom.dcmread(io.BytesIO(content)) for content in orthanc.study(uid)]


def decide(node: Node, *arguments: str) -> str:
    done = node.cli("jobs", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_screenshot_without_a_patient_id_and_then_with_one(
    node: Node, orthanc: Orthanc, store: Callable[..., "subprocess.CompletedProcess[str]"], source: Path, tmp_path: Path
) -> None:
    uid = study_uid("mixed")
    files = make_study(source, tmp_path / "first", "mixed", every=2)
    screenshot(files[0], tmp_path / "first" / "900.dcm", "")
    assert store(tmp_path / "first").returncode == 0
    delivered(node, uid, 1)
    (report,) = [d for d in results(orthanc, uid) if "Measures" in d.SeriesDescription]
    assert "no Patient ID" in said(report)
    cured = screenshot(files[0], tmp_path / "cured" / "900.dcm", "TEST-mixed")
    assert store(tmp_path / "cured").returncode != 0
    shown = decide(node, "accept", uid, "--dry-run")
    assert "PatientID" in shown
    assert "TEST-mixed" not in shown
    assert "TEST-mixed" in decide(node, "accept", uid, "--dry-run", "--values")
    decide(node, "accept", uid, "--object", pydicom.dcmread(cured).SOPInstanceUID)
    delivered(node, uid, 2)
    (last,) = [d for d in results(orthanc, uid) if "Measures v2" in d.SeriesDescription]
    assert "no Patient ID" not in said(last)


def test_a_corrected_patient_id_by_hand(
    node: Node, orthanc: Orthanc, store: Callable[..., "subprocess.CompletedProcess[str]"], source: Path, tmp_path: Path
) -> None:
    uid = study_uid("wrong")
    files = make_study(source, tmp_path / "wrong", "wrong", every=2)
    assert store(tmp_path / "wrong").returncode == 0
    delivered(node, uid, 1)
    old = {d.SOPInstanceUID for d in results(orthanc, uid)}
    before = patients(node)
    corrected(files, tmp_path / "right", PatientID="RIGHT", PatientName="Right^One")
    assert store(tmp_path / "right").returncode != 0
    assert decide(node, "list", "--json").count("accept or reject") == 1
    assert "PatientName, PatientID" in decide(node, "accept", uid)
    assert store(tmp_path / "right").returncode == 0
    until("all are here", lambda: whose(node, uid) == {"RIGHT"}, 30)
    until("encoded anew", lambda: any(d.PatientID == "RIGHT" for d in results(orthanc, uid)), 120)
    until("rejected", lambda: "113037" in rejected_by(notes(orthanc, uid)), 60)
    new = [d for d in results(orthanc, uid) if d.SOPInstanceUID not in old and d.Modality != "KO"]
    assert Counter(d.Modality for d in new) == {"SEG": 1, "SR": 2, "OT": 1}
    assert {d.PatientID for d in new} == {"RIGHT"}
    assert all("v2, replaces v1" in d.SeriesDescription for d in new)
    assert rejected_by(notes(orthanc, uid)) == {"113037": old}
    assert "encoded from the findings of g1" in node.log()
    assert patients(node) - before
    shown = node.show(uid)
    assert sum(c["objects"] for c in shown["corrections"]) == len(files)


def test_a_wrong_correction_is_turned_back_by_one_decision(
    node: Node, orthanc: Orthanc, store: Callable[..., "subprocess.CompletedProcess[str]"], source: Path, tmp_path: Path
) -> None:
    uid = study_uid("back")
    files = make_study(source, tmp_path / "true", "back", every=2)
    assert store(tmp_path / "true").returncode == 0
    delivered(node, uid, 1)
    corrected(files, tmp_path / "wrong", PatientID="WRONG")
    assert store(tmp_path / "wrong").returncode != 0
    decide(node, "accept", uid)
    assert store(tmp_path / "wrong").returncode == 0
    until("all are wrong", lambda: whose(node, uid) == {"WRONG"}, 30)
    assert store(tmp_path / "true").returncode != 0
    assert "1 object would be replaced" in decide(node, "accept", uid, "--dry-run")
    decide(node, "accept", uid)
    assert store(tmp_path / "true").returncode == 0, "one decision for the whole series"
    until("all are true again", lambda: whose(node, uid) == {"TEST-back"}, 30)
    assert store(tmp_path / "wrong").returncode != 0
    decide(node, "reject", uid)
    until("no other patient is left", lambda: not node.show(uid)["conflicts"], 30)


def test_a_pacs_that_coerces_and_one_that_rejects(
    node: Node, orthanc: Orthanc, store: Callable[..., "subprocess.CompletedProcess[str]"], source: Path, tmp_path: Path
) -> None:
    uid = study_uid("coerced")
    files = make_study(source, tmp_path / "first", "coerced", every=2)
    assert store(tmp_path / "first").returncode == 0
    delivered(node, uid, 1)
    old = {d.SOPInstanceUID for d in results(orthanc, uid)}
    modality = {"AET": "DICOMNODE", "Host": "127.0.0.1", "Port": node.port}
    orthanc.client.put("/modalities/correcting", json=modality).raise_for_status()
    ids = []
    for path in corrected(files, tmp_path / "again", InstitutionName="A hospital"):
        done = orthanc.client.post("/instances", content=path.read_bytes()).raise_for_status().json()
        ids.append(done["ID"])
    orthanc.client.post("/modalities/correcting/store", json=ids, timeout=120).raise_for_status()
    delivered(node, uid, 2)
    images = {i for path in files for i in [str(pydicom.dcmread(path).SOPInstanceUID)]}
    assert {d.SOPInstanceUID for d in results(orthanc, uid)} - images == old  # no report shows the institution
    rejection_note(files, tmp_path / "note" / "note.dcm", "113001", "Rejected for Quality Reasons")
    assert store(tmp_path / "note").returncode == 0
    delivered(node, uid, 3)
    until("rejected", lambda: "113001" in rejected_by(notes(orthanc, uid)), 60)
    assert rejected_by(notes(orthanc, uid)) == {"113001": old}


def notes(orthanc: Orthanc, uid: str) -> list[Dataset]:
    return [d for d in results(orthanc, uid) if d.Modality == "KO"]


def whose(node: Node, uid: str) -> set[str]:
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        return {str(pydicom.dcmread(i.path, specific_tags=["PatientID"]).PatientID) for i in catalog.instances(uid)}
    finally:
        catalog.close()


def patients(node: Node) -> set[str]:
    """Pseudonyms in the registry."""
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        return {scan.patient for scan in catalog.registry_scans()}
    finally:
        catalog.close()
