"""The sender against DCMTK's storescp and Orthanc."""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.filereader import dcmread

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.association import Peer, echo, send
from tests.helpers.ports import free_port
from tests.helpers.waiting import until

FindPeer = Callable[[str, str], str]


def wait_for_echo(process: "subprocess.Popen[bytes]", destination: Peer) -> None:
    def answers() -> bool:
        assert process.poll() is None, "the peer ended"
        try:
            echo(destination)
        except PeerError:
            return False
        return True

    until("answering an echo", answers, 30)


@pytest.fixture
def slices(data: Path) -> list[Path]:
    return sorted((data / "chest_lidc0314_every4th").glob("*.dcm"))[:20]


@pytest.fixture
def storescp(peer: FindPeer, tmp_path: Path) -> Iterator[Callable[..., tuple[Peer, Path]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> tuple[Peer, Path]:
        folder = tmp_path / "storescp"
        folder.mkdir()
        destination = Peer("archive", "STORESCP", "127.0.0.1", free_port(), "NODE")
        command = [peer("storescp", "dcmtk"), *options, "-od", str(folder), str(destination.port)]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        wait_for_echo(running[-1], destination)
        return destination, folder

    yield start
    for process in running:
        process.terminate()
        process.wait()


def test_storescp_keeps_what_was_sent(storescp: Callable[..., tuple[Peer, Path]], slices: list[Path]) -> None:
    destination, folder = storescp()
    sent = send(destination, slices)
    assert [one.outcome for one in sent] == ["stored"] * len(slices)
    kept = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, folder.iterdir())}
    for path in slices:
        dataset = dcmread(path)
        assert kept[dataset.SOPInstanceUID] == dataset


def test_storescp_that_takes_implicit_only(
    storescp: Callable[..., tuple[Peer, Path]], slices: list[Path], peer: FindPeer, tmp_path: Path
) -> None:
    explicit = tmp_path / "explicit.dcm"
    subprocess.run([peer("dcmconv", "dcmtk"), "+te", slices[0], explicit], check=True, capture_output=True)
    destination, folder = storescp("+xi")
    send(destination, [explicit])
    (kept,) = folder.iterdir()
    assert dcmread(kept).file_meta.TransferSyntaxUID.is_implicit_VR
    assert dcmread(kept).PixelData == dcmread(explicit).PixelData


@pytest.mark.parametrize(
    ("option", "expected"),
    [("--refuse", PeerRejectedError), ("--abort-after", PeerError), ("--abort-during", PeerError)],
)
def test_storescp_that_fails(slices: list[Path], peer: FindPeer, option: str, expected: type[Exception]) -> None:
    destination = Peer("archive", "STORESCP", "127.0.0.1", free_port(), "NODE")
    process = subprocess.Popen([peer("storescp", "dcmtk"), option, "--ignore", str(destination.port)])
    try:
        wait_for_port(process, destination.port)
        with pytest.raises(expected):
            send(destination, slices[:2])
    finally:
        process.terminate()
        process.wait()


def wait_for_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    def listens() -> bool:
        assert process.poll() is None, "the peer ended"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    until("listening", listens, 30)


@pytest.fixture
def orthanc(peer: FindPeer, tmp_path: Path) -> Iterator[tuple[Peer, str]]:
    web = free_port()
    destination = Peer("pacs", "ORTHANC", "127.0.0.1", free_port(), "NODE")
    settings = {
        "Name": "peer",
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": web,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": destination.port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    log = (tmp_path / "orthanc.log").open("wb")
    process = subprocess.Popen([peer("Orthanc", "orthanc"), str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_for_echo(process, destination)
        yield destination, f"http://127.0.0.1:{web}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_orthanc_holds_what_was_counted(orthanc: tuple[Peer, str], slices: list[Path]) -> None:
    destination, web = orthanc
    sent = send(destination, slices)
    with urllib.request.urlopen(f"{web}/statistics") as answer:
        assert json.load(answer)["CountInstances"] == len(sent) == len(slices)
    assert {one.status for one in sent} == {0x0000}


def test_orthanc_refuses_another_title(orthanc: tuple[Peer, str]) -> None:
    destination, _ = orthanc
    with pytest.raises(PeerRejectedError, match="AE title is not WRONG"):
        echo(Peer("pacs", "WRONG", "127.0.0.1", destination.port, "NODE"))
