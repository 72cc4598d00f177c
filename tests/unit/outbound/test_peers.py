"""Peers as people name them."""

from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.errors import UsageError
from dicomnode.network.association import Peer
from dicomnode.network.tls import Security, TlsFiles
from dicomnode.outbound import peers
from dicomnode.outbound.destinations.dicom import DicomDestination


def test_parse() -> None:
    peer = peers.parse("ORTHANC@pacs.example:4242")
    assert (peer.ae_title, peer.host, peer.port) == ("ORTHANC", "pacs.example", 4242)
    assert peers.parse("A@[::1]:104").host == "::1"


@pytest.mark.parametrize(
    "text", ["ORTHANC", "ORTHANC@host", "@host:1", "A@host:0", "A@host:65536", "SEVENTEEN_CHARS_X@h:1", "A@:1"]
)
def test_what_is_no_peer_is_told_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="AET@HOST:PORT"):
        peers.parse(text)


def test_find_by_name_takes_all_settings(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        '[node]\nae_title = "ME"\n[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
        'timeout_s = 7\ntransfer_syntax = "implicit-le"\n'
    )
    peer = _peer("pacs", path)
    assert (peer.calling_ae, peer.dimse_timeout_s, peer.preferred_syntax) == ("ME", 7, ImplicitVRLittleEndian)
    with pytest.raises(UsageError, match=r"'orthanc' is not a destination .*known: pacs"):
        peers.find("orthanc", path)


def test_an_address_needs_no_configuration(tmp_path: Path) -> None:
    assert _peer("A@h:1", tmp_path / "nothing.toml").calling_ae == "DICOMNODE"


def test_an_address_is_called_as_the_node(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text('[node]\nae_title = "ME"\n')
    assert _peer("A@h:1", path) == Peer("peer", "A", "h", 1, "ME", 10, 30, 30, 30, 0, ExplicitVRLittleEndian)


def _peer(text: str, path: Path) -> Peer:
    found = peers.find(text, path)
    assert isinstance(found, DicomDestination)
    return found.peer


def test_an_address_by_tls(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    with pytest.raises(UsageError, match=r"--tls needs the table \[tls\]"):
        peers.find("A@h:1", path, tls=True)
    path.write_text('[tls]\ncertificate = "a"\nkey = "b"\nca_file = "c"\n')
    found = peers.find("A@h:1", path, tls=True)
    assert isinstance(found, DicomDestination)
    assert found.peer.security == Security(TlsFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c"))
