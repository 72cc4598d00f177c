"""The receiver in a process of its own, with DCMTK's echoscu and storescu as its peers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.filereader import dcmread

from dicomnode.reception.settle import SettleRule, decide
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.ports import free_port
from tests.helpers.waiting import until

Peer = Callable[[str, str], str]

PROCESS = """
import sys
from pathlib import Path
from dicomnode.reception.receiver import ReceiverSettings
from dicomnode.reception.process import run_receiver
from dicomnode.service.signals import stopper
settings = ReceiverSettings("NODE", "127.0.0.1", int(sys.argv[2]), minimum_free_bytes=0, network_timeout_s=5.0)
folder = Path(sys.argv[1])
run_receiver(settings, folder / "spool", folder, f"sqlite:///{folder}/catalog.db", 5.0, stopper(supervised=False))
"""


class Node:
    """A receiving process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", PROCESS, str(self.folder), str(self.port)])
        until("listening", lambda: connects(self.port) or process.poll() is not None, 10)
        assert process.poll() is None
        return process

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=240)

    def catalog(self) -> Catalog:
        return Catalog.open(f"sqlite:///{self.folder}/catalog.db")


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def dcmtk(program: str, *arguments: str, quick: bool = True) -> "subprocess.Popen[str]":
    # DCMTK leaves Nagle's algorithm on unless told otherwise: 22 images/s.
    environment = {**os.environ, "TCP_NODELAY": "1" if quick else "0"}
    return subprocess.Popen([program, *arguments], env=environment, stderr=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


@pytest.fixture
def slices(data: Path) -> list[str]:
    return [str(path) for path in sorted((data / "chest_lidc0314_every4th").glob("*.dcm"))]


def test_echo(node: Node, peer: Peer) -> None:
    program = peer("echoscu", "dcmtk")
    assert finished(dcmtk(program, "-aec", "NODE", "127.0.0.1", str(node.port)))[0] == 0
    status, errors = finished(dcmtk(program, "-aec", "OTHER", "127.0.0.1", str(node.port)))
    assert status != 0
    assert "Called AE Title Not Recognized" in errors


def test_a_whole_study_arrives_and_settles(node: Node, peer: Peer, slices: list[str]) -> None:
    program = peer("storescu", "dcmtk")
    assert finished(dcmtk(program, "-aec", "NODE", "127.0.0.1", str(node.port), *slices)) == (0, "")
    catalog = node.catalog()
    (study,) = catalog.studies(10)
    instances = catalog.instances(study.study_uid)
    assert len(instances) == len(slices)
    sent = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, slices)}
    for instance in instances:
        assert dcmread(instance.path) == sent[instance.sop_instance_uid]
    until(
        "the association recorded as released",
        lambda: catalog.unsettled(time.time())[0].bringers[0].closed == "released",
        10,
    )
    (intake,) = catalog.unsettled(time.time())
    assert decide(intake, time.time() + 1.0, SettleRule(release_s=1.0, quiet_s=60.0)).reason == "released and complete"
    assert catalog.patient_ids(study.study_uid) == 1
    catalog.close()
    assert node.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("tool", "package", "arguments", "option"),
    [
        ("dcmcjpls", "dcmtk", [], "-xt"),
        ("dcmcjpeg", "dcmtk", [], "-xs"),
        ("dcmcrle", "dcmtk", [], "-xr"),
        ("gdcmconv", "libgdcm-tools", ["--j2k"], "-xv"),
        ("dcmconv", "dcmtk", ["+td"], "-xd"),
        ("dcmconv", "dcmtk", ["+tb"], "-xb"),
    ],
)
def test_case_19_compressed_files_are_kept_as_sent(
    node: Node,
    peer: Peer,
    slices: list[str],
    tmp_path: Path,
    tool: str,
    package: str,
    arguments: list[str],
    option: str,
) -> None:
    """Other people's encoders, as DCMTK sends them."""
    explicit, made = tmp_path / "explicit.dcm", tmp_path / "made.dcm"
    # From this implicit file GDCM would write UIDs with VR UN, which storescu does not take.
    subprocess.run([peer("dcmconv", "dcmtk"), "+te", slices[0], explicit], check=True, capture_output=True)
    subprocess.run([peer(tool, package), *arguments, explicit, made], check=True, capture_output=True)
    program = peer("storescu", "dcmtk")
    assert finished(dcmtk(program, option, "-aec", "NODE", "127.0.0.1", str(node.port), str(made)))[0] == 0
    catalog = node.catalog()
    ((instance,),) = [catalog.instances(study.study_uid) for study in catalog.studies(10)]
    kept, sent = dcmread(instance.path), dcmread(made)
    assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert kept.PixelData == sent.PixelData
    assert kept.pixel_array.shape == (512, 512)
    catalog.close()


@pytest.mark.parametrize("after", [1, 20, 50])
def test_killed_in_mid_study_nothing_acknowledged_is_lost(
    node: Node, peer: Peer, slices: list[str], after: int
) -> None:
    """Case 3 and 5: SIGKILL, start again, send again: complete, no half file, the old association is lost."""
    program = peer("storescu", "dcmtk")
    arguments = ["-v", "-aec", "NODE", "127.0.0.1", str(node.port), *slices]
    spool = node.folder / "spool"
    # Slowly, and all of it three times, so that the kill comes before the release whatever else goes on.
    sending = dcmtk(program, *arguments, *slices, *slices, quick=False)
    # A file stands there before it is recorded; the next file comes only after the answer to the one before.
    until("more files stored", lambda: len(list((spool / "studies").rglob("*.dcm"))) > after, 10)
    node.stop(signal.SIGKILL)
    _, log = finished(sending)
    acknowledged = log.count("Received Store Response (Success)")
    # The file under way when the process died may be on disk unacknowledged; every acknowledged one is recorded.
    before = node.catalog()
    (study,) = before.studies(10)
    assert after <= acknowledged + 1
    assert min(acknowledged, len(slices)) <= len(before.instances(study.study_uid))
    before.close()

    node.process = node.start()
    assert list((spool / "incoming").iterdir()) == []
    catalog = node.catalog()
    (intake,) = catalog.unsettled(time.time())
    assert [one.closed for one in intake.bringers] == ["lost"]
    assert finished(dcmtk(program, *arguments))[0] == 0
    instances = catalog.instances(study.study_uid)
    assert len(instances) == len(slices)
    assert {dcmread(one.path).SOPInstanceUID for one in instances} == {dcmread(path).SOPInstanceUID for path in slices}
    until(
        "the association recorded as released",
        lambda: [one.closed for one in catalog.unsettled(time.time())[0].bringers] == ["released"],
        10,
    )
    catalog.close()


def test_importing_the_receiver_is_light() -> None:
    code = "import sys, dicomnode.reception.receiver; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "SimpleITK", "highdicom", "dbos", "matplotlib", "scipy"} & set(loaded)
