"""A patient's follow-up scans through a running node: the change in the results is the phantom's."""

import io
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from tests.helpers.running import Node, Orthanc, storescu_process
from tests.helpers.serial_scans import FINE, Scan, scan
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow
#: How far the measured change may lie from the phantom's own: what the segmentation adds or leaves out at the edges.
BOUNDS = {"CHG_VOLUME": 70.0, "CHG_HAA": 1.5, "CHG_MEAN": 8.0}


@dataclass(frozen=True)
class Followed:
    """Three scans of a patient and one of a patient with the same ID elsewhere, and what the PACS holds of each."""

    scans: Mapping[str, Scan]
    before: Mapping[str, frozenset[bytes]]
    after: Mapping[str, frozenset[bytes]]

    def one(self, name: str, modality: str, kind: str = "") -> Dataset:
        found = [pydicom.dcmread(io.BytesIO(content)) for content in self.after[name]]
        (only,) = [d for d in found if d.Modality == modality and d.SeriesDescription.startswith(kind)]
        return only


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[Node]:
    running = Node(tmp_path_factory.mktemp("change-node"), orthanc.destination(), "radiomics = false").start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def followed(
    node: Node, orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]
) -> Followed:
    folder = tmp_path_factory.mktemp("scans")
    scans = {
        "first": scan_of_the_patient(folder / "first", "20240110", 0.15, seed=7),
        "elsewhere": scan_of_the_patient(folder / "elsewhere", "20240601", 0.9, seed=8, issuer="OTHER", person=4),
        "second": scan_of_the_patient(folder / "second", "20250110", 0.35, seed=9),
        "third": scan_of_the_patient(folder / "third", "20260110", 0.5, seed=10),
    }
    before = {}
    for name, one in scans.items():
        done = storescu_process(peer("storescu", "dcmtk"), node.port, one.folder)
        assert done.returncode == 0, done.stderr
        assert node.ended(one.study_uid) == "delivered", node.show(one.study_uid)
        before[name] = frozenset(orthanc.study(one.study_uid))
    return Followed(scans, before, {name: frozenset(orthanc.study(one.study_uid)) for name, one in scans.items()})


def scan_of_the_patient(
    folder: Path, date: str, severity: float, *, seed: int, issuer: str = "HOSPITAL", person: int = 3
) -> Scan:
    """With what dciodvfy wants of a CT image."""
    return scan(
        folder,
        f"follow-up {date}",
        severity,
        date,
        grid=FINE,
        seed=seed,
        person=person,
        PatientID="FOLLOW-1",
        IssuerOfPatientID=issuer,
        AccessionNumber=f"A{date}",
        ReferringPhysicianName="",
        SeriesNumber=2,
        ManufacturerModelName="phantom",
        PositionReferenceIndicator="",
    )


def numbers(item: Dataset) -> dict[str, float]:
    """Concept and value of every NUM item; of each concept the last (of both lungs)."""
    found: dict[str, float] = {}
    for child in item.get("ContentSequence", ()):
        if child.ValueType == "NUM":
            found[child.ConceptNameCodeSequence[0].CodeValue] = float(child.MeasuredValueSequence[0].NumericValue)
        found |= numbers(child)
    return found


@pytest.mark.parametrize(("name", "since", "days"), [("second", "first", 366), ("third", "second", 365)])
def test_the_change_is_the_phantoms(followed: Followed, name: str, since: str, days: int) -> None:
    found = numbers(followed.one(name, "SR", "Measures"))
    now, then = followed.scans[name], followed.scans[since]
    assert found["CHG_INTERVAL"] == days
    truth = {
        "CHG_VOLUME": now.volume_ml - then.volume_ml,
        "CHG_HAA": now.haa_percent - then.haa_percent,
        "CHG_MEAN": now.mean_hu - then.mean_hu,
    }
    for concept, bound in BOUNDS.items():
        assert found[concept] == pytest.approx(truth[concept], abs=bound), concept
    assert found["CHG_VOLUME"] < 0 < found["CHG_HAA"]
    assert found["CHY_HAA"] == pytest.approx(found["CHG_HAA"] * 365.25 / days, abs=0.11)


def test_prior_results_are_untouched(followed: Followed) -> None:
    assert followed.before == followed.after
    assert all(len(objects) == 4 for objects in followed.after.values())


@pytest.mark.parametrize("name", ["first", "elsewhere"])
def test_who_has_no_prior_scan_has_no_change(followed: Followed, node: Node, name: str) -> None:
    """The same Patient ID from another issuer is another patient."""
    assert not any(concept.startswith("CH") for concept in numbers(followed.one(name, "SR", "Measures")))
    findings = json.loads(findings_path(node, followed.scans[name]).read_text())
    assert (findings["change"], findings["trend"]) == (None, [])


def test_the_prior_reports_are_named_and_in_the_pacs(followed: Followed) -> None:
    report = followed.one("third", "SR", "Measures")
    named = {
        reference.ReferencedSOPInstanceUID
        for study in report.PertinentOtherEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert named == {followed.one(name, "SR", "Measures").SOPInstanceUID for name in ("first", "second")}


def test_structures_are_tracked_over_time(followed: Followed) -> None:
    tracked = [
        [segment.TrackingUID for segment in followed.one(name, "SEG").SegmentSequence]
        for name in ("first", "second", "third", "elsewhere")
    ]
    assert tracked[0] == tracked[1] == tracked[2]
    assert not set(tracked[0]) & set(tracked[3])


def test_the_trend_is_in_the_findings_and_on_the_page(followed: Followed, node: Node) -> None:
    findings = json.loads(findings_path(node, followed.scans["third"]).read_text())
    assert [point["study_date"] for point in findings["trend"]] == ["20240110", "20250110"]
    assert [point["doubts"] for point in findings["trend"]] == [[], []]
    first, second, third = (followed.one(name, "OT").Rows for name in ("first", "second", "third"))
    assert first < second == third  # the trend has its place below


def test_analysed_again_with_the_same_prior_scans_it_is_the_same_result(
    followed: Followed, node: Node, orthanc: Orthanc
) -> None:
    one = followed.scans["third"]
    folder = findings_path(node, one).parent
    made = {path.name: path.read_bytes() for path in folder.glob("*.dcm")}
    assert node.cli("jobs", "retry", one.study_uid).returncode == 0
    again = folder.parent / "g2"
    until("analysed again", (again / "findings.json").exists)
    assert node.ended(one.study_uid) == "delivered"
    assert {path.name: path.read_bytes() for path in again.glob("*.dcm")} == made
    assert frozenset(orthanc.study(one.study_uid)) == followed.after["third"]


@pytest.mark.parametrize("modality", ["SR", "SEG", "OT"])
def test_dciodvfy_finds_no_error_in_the_follow_up(
    followed: Followed, modality: str, tmp_path: Path, peer: Callable[[str, str], str]
) -> None:
    for number, content in enumerate(followed.after["third"]):
        if pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).Modality == modality:
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(content)
            done = subprocess.run([peer("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
            assert [x for x in done.stderr.splitlines() if x.startswith("Error")] == []


def findings_path(node: Node, one: Scan) -> Path:
    return node.config.storage.results / one.study_uid / "g1" / "findings.json"
