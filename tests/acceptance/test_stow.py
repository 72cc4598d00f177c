"""Results by STOW-RS: Orthanc's DICOMweb takes them, and another client (dicomweb-client) finds them there."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.tag import Tag

from dicomnode.network.association import Peer, send
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Delivery
from tests.helpers.running import Node, Orthanc
from tests.helpers.serial_scans import Scan, scan
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Delivered:
    """A node with two STOW destinations, of which the second has a wrong URL, and a study that it has analysed."""

    node: Node
    scan: Scan
    root: str


@pytest.fixture(scope="module")
def delivered(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("stow")
    root = f"http://127.0.0.1:{orthanc.http}/dicom-web"
    (folder / "token").write_text("a-token")
    tables = (
        f'[[destination]]\nname = "web"\nkind = "stow"\nurl = "{root}"\ntoken = "file:../token"\n'
        f'[[destination]]\nname = "wrong"\nkind = "stow"\nurl = "{root}-wrong"\nobjects = ["summary"]\n'
    )
    node = Node(folder / "node", tables, "radiomics = false").start()
    try:
        one = scan(folder / "scan", "stow", 0.4, "20260201", PatientID="STOW-1")
        send(Peer("node", "DICOMNODE", "127.0.0.1", node.port), sorted(one.folder.iterdir()))
        assert node.ended(one.study_uid) == "failed"  # by the second destination; the first may still be at it
        until("delivered", lambda: not pending(node, one.study_uid))
        yield Delivered(node, one, root)
    finally:
        assert node.stop() == 0


def pending(node: Node, study_uid: str) -> list[Delivery]:
    catalog = Catalog.open(node.config.catalog_url, node.config.storage.state)
    try:
        return [d for d in catalog.deliveries(study_uid, 1) if d.state == "pending"]
    finally:
        catalog.close()


def test_segmentation_reports_and_summary_arrive_as_they_were_made(delivered: Delivered, orthanc: Orthanc) -> None:
    objects = [pydicom.dcmread(io.BytesIO(content)) for content in orthanc.study(delivered.scan.study_uid)]
    assert Counter(one.Modality for one in objects) == {"SEG": 1, "SR": 2, "OT": 1}
    folder = delivered.node.config.storage.results / delivered.scan.study_uid / "g1"
    made = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.glob("*.dcm"))}
    assert {one.SOPInstanceUID: one for one in objects} == made


def test_another_client_finds_them(delivered: Delivered) -> None:
    client = DICOMwebClient(delivered.root)
    found = client.search_for_instances(study_instance_uid=delivered.scan.study_uid)
    modality = f"{Tag('Modality'):08X}"
    assert Counter(one[modality]["Value"][0] for one in found) == {"SEG": 1, "SR": 2, "OT": 1}


def test_each_delivery_has_its_outcome(delivered: Delivered) -> None:
    deliveries = delivered.node.show(delivered.scan.study_uid)["deliveries"]
    assert {(d["destination"], d["object"], d["state"]) for d in deliveries} == {
        *(("web", name, "delivered") for name in ("seg", "measurements", "risk", "summary")),
        ("wrong", "summary", "rejected"),
    }
    (rejected,) = [d for d in deliveries if d["state"] == "rejected"]
    assert "404" in rejected["text"]
    assert "correct the url" in rejected["text"]


def test_check_echo_and_send_know_such_a_destination(delivered: Delivered) -> None:
    assert "answered in" in delivered.node.cli("echo", "web").stdout
    wrong = delivered.node.cli("echo", "wrong")
    assert (wrong.returncode, "correct the url" in wrong.stderr) == (6, True)
    checked = delivered.node.cli("check").stdout
    assert "destination web" in checked
    assert f"at {delivered.root}" in checked
    (image, *_) = sorted(delivered.scan.folder.iterdir())
    assert "web stored 1 of 1 object" in delivered.node.cli("send", "web", image).stdout


def test_the_token_is_in_no_log(delivered: Delivered) -> None:
    assert "a-token" not in delivered.node.log()
    assert not [path for path in Path(delivered.node.folder).rglob("*.sqlite*") if b"a-token" in path.read_bytes()]
