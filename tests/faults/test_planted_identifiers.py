"""Identifiers that are planted in what a live node receives are searched, as bytes, in all that it tells of it."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.running import Node
from tests.helpers.waiting import until

SCAN = "chest_tiny_cip/ct-64Dicom"
#: No part of the program, of a path or of a random name contains one of these.
PLANTED = {
    "PatientName": "Zyxwquark^Plantina",
    "PatientID": "PLNTD-7731994",
    "OtherPatientIDs": "PLNTD-OTHER-55",
    "AccessionNumber": "ACCPLNT99217",
    "PatientAddress": "Plantgasse 17",
    "ReferringPhysicianName": "Doctorplant^Quentin",
    "StudyDescription": "plantdescribed",
    "PatientComments": "line one plantcomment\n2026-01-01T00:00:00.000Z INFO forged",
}
PRIVATE = "PRIVPLNT8812"
#: Names where UIDs belong.
IN_UIDS = ("Zyxwquark^Plantina", "1.2.PLNTD-7731994", "1.2.3\n2026-01-01T00:00:00.000Z INFO forged plantcomment")
SEARCHED = (
    b"Zyxwquark", b"Plantina", b"PLNTD", b"ACCPLNT", b"Plantgasse", b"Doctorplant", b"plantdescribed", b"plantcomment",
    b"PRIVPLNT",
)  # fmt: skip


@pytest.fixture
def webhook() -> Iterator[tuple[int, list[bytes]]]:
    """A server that keeps what it is told: headers and body."""
    told: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(str(self.headers).encode() + self.path.encode() + body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], told
    server.shutdown()
    server.server_close()


@pytest.fixture
def refusing() -> Iterator[int]:
    """A PACS that refuses every object for good, in words that name the patient."""

    def refuse(_event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status = 0xA900
        answer.ErrorComment = "not Zyxwquark^Plantina PLNTD-7731994"
        return answer

    ae = AE("PACS")
    port = free_port()
    from dicomnode.network import contexts

    ae.supported_contexts = contexts.accepted()
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, refuse)])
    yield port
    server.shutdown()


def plant(path: Path) -> Path:
    dataset = pydicom.dcmread(path)
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
    block = dataset.private_block(0x0099, PRIVATE, create=True)
    block.add_new(1, "LO", PRIVATE)
    dataset.save_as(path)
    return path


def send(port: int, datasets: list[Dataset], called: str = "DICOMNODE") -> list[int]:
    scanner = AE("SCANNER")
    scanner.add_requested_context(
        datasets[0].file_meta.MediaStorageSOPClassUID, datasets[0].file_meta.TransferSyntaxUID
    )
    association = scanner.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    statuses = [int(association.send_c_store(dataset).get("Status", -1)) for dataset in datasets]
    association.release()
    return statuses


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_planted_is_told(
    data: Path, tmp_path: Path, webhook: tuple[int, list[bytes]], refusing: int, peer: Callable[[str, str], str]
) -> None:
    del peer
    hook, told = webhook
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "hook.key").write_text("secret")
    destination = f"""
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {refusing}
[[notify]]
name = "ris"
kind = "webhook"
events = ["delivered", "refused", "failed", "held"]
url = "http://127.0.0.1:{hook}/hook"
secret_file = "hook.key"
[[node.callers]]
ae_title = "SCANNER"
query = true
"""
    extra = "radiomics = false\n[registry]\nrecord = true\n"
    node = Node(tmp_path / "node", destination, extra).start()
    try:
        whole = [plant(path) for path in make_study(data / SCAN, tmp_path / "whole", "planted-whole", 3)]
        few = [plant(path) for path in make_study(data / SCAN, tmp_path / "few", "planted-few", 30)]
        assert set(send(node.port, [pydicom.dcmread(path) for path in whole])) == {0}
        assert set(send(node.port, [pydicom.dcmread(path) for path in few])) == {0}
        assert send(node.port, [pydicom.dcmread(few[0])], called="NOBODY") == []
        _send_what_is_quarantined(node.port, pydicom.dcmread(whole[0]))
        _query(node.port)
        assert node.ended(study_uid("planted-few")) == "refused"
        until("the delivery failed", lambda: node.jobs().get(study_uid("planted-whole")) == "failed")
        until("both were notified", lambda: len(told) >= 2)
        said = [
            done.stdout + done.stderr
            for done in (
                node.cli("jobs", "list", "--json"),
                node.cli("jobs", "show", study_uid("planted-whole"), "--json"),
                node.cli("jobs", "show", study_uid("planted-few")),
                node.cli("jobs", "show", "Zyxwquark"[:4]),
                node.cli("registry", "export", "--out", tmp_path / "export"),
                node.cli("check", "--deep"),
            )
        ]
    finally:
        node.stop()
    places = {"log": node.log().encode(), "commands": "".join(said).encode()}
    places |= {f"notification {n}": content for n, content in enumerate(told)}
    places |= {str(p): p.read_bytes() for p in (node.folder / "var" / "spool" / "quarantine").glob("*.json")}
    places |= {str(p): p.read_bytes() for p in (tmp_path / "export").rglob("*") if p.is_file()}
    places["names of files"] = "\n".join(str(p) for p in node.folder.rglob("*")).encode()
    set_aside = [content for name, content in places.items() if "quarantine" in name]
    assert sum(b"invalid-uid" in content for content in set_aside) == 3 * len(IN_UIDS)
    assert len(set_aside) > 3 * len(IN_UIDS)
    found = {(name, word) for name, content in places.items() for word in SEARCHED if word in content}
    assert found == set()
    assert b"INFO forged" not in places["log"].replace(b"\\n2026", b"")


def _send_what_is_quarantined(port: int, original: Dataset) -> None:
    other = pydicom.dcmread(original.filename)
    other.PixelData = bytes(reversed(other.PixelData))
    assert send(port, [other]) != [0]  # the same SOP Instance UID with other content
    for uid in IN_UIDS:
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            bad = pydicom.dcmread(original.filename)
            with pydicom.config.disable_value_validation():
                setattr(bad, keyword, uid)
                answered = send(port, [bad])
            assert answered != [0], keyword


def _query(port: int) -> None:
    scanner = AE("SCANNER")
    scanner.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = scanner.associate("127.0.0.1", port, ae_title="DICOMNODE")
    assert association.is_established
    for level in ("STUDY", "Zyxwquark^Plantina"):
        question = Dataset()
        question.QueryRetrieveLevel = level
        question.PatientName = PLANTED["PatientName"]
        question.AccessionNumber = PLANTED["AccessionNumber"]
        question.StudyInstanceUID = ""
        list(association.send_c_find(question, StudyRootQueryRetrieveInformationModelFind))
    association.release()


def test_the_search_finds_what_is_there() -> None:
    assert all(any(word in json.dumps([*PLANTED.values(), PRIVATE]).encode() for word in (one,)) for one in SEARCHED)
