"""Orders from a real worklist (DCMTK's wlmscpfs) in the reports: the right one, or none with a flag."""

import io
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.acceptance.ris import Peer, Ris, ct_study, text_of
from tests.faults.studies import study_uid
from tests.helpers.running import Node, Orthanc, storescu_process

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう".encode("iso2022_jp")
PROCEDURE = "胸部ＣＴ".encode("iso2022_jp")
#: Of the orders; the tests may run into the day after it.
TODAY = time.strftime("%Y-%m-%d")
DATE = TODAY.replace("-", "").encode()

#: name of the study: (what its images say, what the reports must say: accession number, flag)
CASES = {
    "same-name-1": ({"PatientName": "Same^Name", "PatientID": "P1", "IssuerOfPatientID": "HOSP1"}, "A1"),
    "same-name-2": ({"PatientName": "Same^Name", "PatientID": "P2"}, "A2"),
    "other-issuer": ({"PatientName": "Same^Name", "PatientID": "P3", "IssuerOfPatientID": "HOSP1"}, None),
    "japanese": ({"PatientName": "Yamada^Tarou", "PatientID": "P4"}, "A4"),
    "two-orders": ({"PatientName": "Two^Orders", "PatientID": "P5"}, "A5"),
    "own-study-uid": ({"PatientName": "Two^Orders", "PatientID": "P5"}, None),
    "twice-on-the-list": ({"PatientName": "Twice^Listed", "PatientID": "P7"}, None),
    "named": ({"PatientName": "Named^Already", "PatientID": "P8", "AccessionNumber": "SCANNER8"}, "SCANNER8"),
}
FLAGS = {
    "other-issuer": "order-contradicts",
    "own-study-uid": "order-not-found",
    "twice-on-the-list": "order-ambiguous",
}


@pytest.fixture(scope="module")
def ris(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Ris]:
    running = Ris(tmp_path_factory.mktemp("ris"), peer)
    orders = [
        ("A1", "same-name-1", b"P1", {}),
        ("A2", "same-name-2", b"P2", {}),
        ("A3", "other-issuer", b"P3", {"issuer": b"HOSP2"}),
        (
            "A4",
            "japanese",
            b"P4",
            {"charset": b"\\ISO 2022 IR 87", "name": JAPANESE, "description": PROCEDURE},
        ),
        ("A5", "two-orders", b"P5", {"name": b"Two^Orders"}),
        ("A6", "another", b"P5", {"name": b"Two^Orders", "time": b"153000"}),
        ("A7", "twice-on-the-list", b"P7", {}),
        ("A7B", "twice-on-the-list", b"P7", {}),
        ("A8", "named", b"P8", {}),
    ]
    for accession, name, patient_id, more in orders:
        uid = study_uid(name).encode()
        running.add(accession=accession.encode(), study_uid=uid, patient_id=patient_id, date=DATE, **more)
    running.start()
    yield running
    running.stop()


def write_cases(data: Path, folder: Path) -> None:
    for name, (attributes, _) in CASES.items():
        uid = ct_study(data, folder / name, name, **attributes)
        if name == "named":
            item = Dataset()
            item.AccessionNumber, item.RequestedProcedureID, item.ScheduledProcedureStepID = "SCANNER8", "RP8", "S8"
            for path in (folder / name).iterdir():
                ds = pydicom.dcmread(path)
                ds.RequestAttributesSequence = [item]
                ds.save_as(path)
        assert uid == study_uid(name)


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, ris: Ris, orthanc: Orthanc, data: Path, peer: Peer
) -> Iterator[Node]:
    """A node that has received all the studies."""
    folder = tmp_path_factory.mktemp("worklist")
    running = Node(folder / "node", orthanc.destination(), "radiomics = false\n" + ris.table("every_s = 3600")).start()
    write_cases(data, folder / "studies")
    done = storescu_process(peer("storescu", "dcmtk"), running.port, folder / "studies")
    assert done.returncode == 0, done.stderr
    yield running
    assert running.stop() == 0, running.log()[-4000:]


def reports(orthanc: Orthanc, uid: str) -> list[Dataset]:
    return [d for d in (pydicom.dcmread(io.BytesIO(f)) for f in orthanc.study(uid)) if d.Modality == "SR"]


@pytest.mark.parametrize("name", CASES)
def test_the_reports_name_the_right_order_or_none(name: str, node: Node, orthanc: Orthanc) -> None:
    uid, accession = study_uid(name), CASES[name][1]
    assert node.ended(uid) == "delivered"
    found = reports(orthanc, uid)
    assert len(found) == 2
    findings = json.loads(Path(node.show(uid)["results"], "findings.json").read_text("utf-8"))
    codes = {f["code"] for f in findings["flags"]} & {"order-from-worklist", *FLAGS.values(), "worklist-unreachable"}
    for report in found:
        requests = report.get("ReferencedRequestSequence", [])
        assert [str(r.AccessionNumber) for r in requests] == ([] if accession is None else [accession])
        assert str(report.AccessionNumber or "") == (accession or "")
        assert str(report.PatientID) == CASES[name][0]["PatientID"]
    if name == "named":
        assert codes == set()
        assert found[0].ReferencedRequestSequence[0].RequestedProcedureID == "RP8"
    elif accession is not None:
        assert codes == {"order-from-worklist"}
        (request,) = found[0].ReferencedRequestSequence
        assert request.RequestedProcedureID == f"RP{accession}"
        assert request.PlacerOrderNumberImagingServiceRequest == f"PLACER{accession}"
        assert request.StudyInstanceUID == uid
        (procedure,) = [i for i in found[0].ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
        assert procedure.ConceptCodeSequence[0].CodeValue == "24627-2"
    else:
        assert codes == {FLAGS[name]}
        assert "WARNING" in text_of(found[0])
    assert str(CASES[name][0]["PatientName"]) not in node.log()


def test_japanese_words_of_the_order_arrive_byte_for_byte(node: Node, orthanc: Orthanc) -> None:
    node.ended(study_uid("japanese"))
    for content in orthanc.study(study_uid("japanese")):
        if pydicom.dcmread(io.BytesIO(content)).Modality == "SR":
            assert PROCEDURE in content
            (request,) = pydicom.dcmread(io.BytesIO(content)).ReferencedRequestSequence
            assert request.RequestedProcedureDescription == "胸部ＣＴ"


@pytest.mark.parametrize("name", ["same-name-1", "japanese", "other-issuer"])
def test_dciodvfy_finds_no_error(name: str, node: Node, orthanc: Orthanc, peer: Peer, tmp_path: Path) -> None:
    node.ended(study_uid(name))
    for i, content in enumerate(orthanc.study(study_uid(name))):
        path = tmp_path / f"{i}.dcm"
        path.write_bytes(content)
        done = subprocess.run([peer("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
        assert [x for x in done.stderr.splitlines() if x.startswith("Error")] == []


def test_the_command_shows_the_list_with_what_is_held(node: Node) -> None:
    for name in CASES:
        node.ended(study_uid(name))
    done = node.cli("worklist", "--date", TODAY, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["accession_number"]: row for row in json.loads(done.stdout)}
    assert sorted(rows) == ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A7B", "A8"]
    assert rows["A4"]["patient_name"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert rows["A1"]["state"] == "delivered"
    assert rows["A6"]["state"] == "not received"
    assert {o["study_uid"] for o in rows["A6"]["others"]} == {study_uid("two-orders"), study_uid("own-study-uid")}
    assert rows["A3"]["others"] == []  # the CT of this ID names another issuer: it is somebody else's
    shown = node.cli("worklist", "--date", TODAY)
    assert shown.returncode == 0
    assert "not received" in shown.stdout


def test_an_order_that_came_later_is_found_on_receipt(
    node: Node, ris: Ris, orthanc: Orthanc, data: Path, peer: Peer, tmp_path: Path
) -> None:
    """The broad query runs once an hour here: the order is found by the patient's own query."""
    ris.add(accession=b"A9", study_uid=study_uid("late").encode(), patient_id=b"P9", date=DATE)
    uid = ct_study(data, tmp_path, "late", PatientID="P9")
    storescu_process(peer("storescu", "dcmtk"), node.port, tmp_path)
    assert node.ended(uid) == "delivered"
    assert [r.ReferencedRequestSequence[0].AccessionNumber for r in reports(orthanc, uid)] == ["A9", "A9"]


@pytest.mark.parametrize("how", ["down", "slow"])
def test_a_ris_that_is_away_delays_no_result(
    how: str, orthanc: Orthanc, data: Path, peer: Peer, tmp_path: Path
) -> None:
    away = Ris(tmp_path / "ris", peer)
    if how == "slow":
        away.start("--sleep-before", "120")
    running = Node(
        tmp_path / "node", orthanc.destination(), "radiomics = false\n" + away.table("timeout_s = 2"), bundle=""
    )
    running.start()
    try:
        uid = ct_study(data, tmp_path / "study", f"ris-{how}", PatientID="P1", PatientName="Waits^Not")
        storescu_process(peer("storescu", "dcmtk"), running.port, tmp_path / "study")
        assert running.ended(uid) == "delivered"
        for report in reports(orthanc, uid):
            assert "ReferencedRequestSequence" not in report
            assert "could not be queried" in text_of(report)
        assert "the order of study" in running.log()
    finally:
        running.stop()
        away.stop()
