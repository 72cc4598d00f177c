"""The audit trail at a real syslog server: Debian's rsyslog, over TLS and over UDP."""

import signal
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE

from dicomnode import config
from dicomnode.audit.messages import os_user
from dicomnode.operations import checks
from dicomnode.service.audit import Sender
from dicomnode.store.catalog.catalog import Catalog
from tests.faults.studies import make_study, study_uid
from tests.helpers.audit_schema import faults
from tests.helpers.running import Node, dicomnode
from tests.helpers.syslog_server import Rsyslog, make_certificates
from tests.helpers.waiting import until

SCAN = "chest_tiny_cip/ct-64Dicom"


@pytest.fixture
def server(peer: Callable[[str, str], str], tmp_path: Path) -> Iterator[Rsyslog]:
    peer("rsyslogd", "rsyslog")
    made = Rsyslog(tmp_path / "syslog")
    yield made
    made.stop()


def node(folder: Path, server: Rsyslog, to: str) -> Node:
    port = server.tls_port if to == "tls" else server.udp_port
    files = "".join(f'{k} = "{server.folder}/{v}"\n' for k, v in _FILES.items()) if to == "tls" else ""
    audit = f'[audit]\nto = "{to}"\nserver = "127.0.0.1:{port}"\nsource_id = "node-1"\n{files}'
    return Node(folder, "", f"[worker]\nprocesses = 0\n{audit}")


_FILES = {"ca_file": "ca.pem", "certificate": "peer.pem", "key": "peer.key"}


def send(port: int, paths: list[Path], *, release: bool = True, called: str = "DICOMNODE") -> int:
    """How many were acknowledged."""
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    scanner = AE("SCANNER")
    scanner.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = scanner.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return 0
    done = sum(association.send_c_store(path).Status == 0 for path in paths)
    if release:
        association.release()
    return done


def messages(server: Rsyslog) -> dict[str, ET.Element]:
    """By the sequence number; each is checked."""
    found: dict[str, ET.Element] = {}
    for severity, facility, program, message_id, data, text in server.lines():
        assert (severity, facility, program, message_id) == ("notice", "authpriv", "dicomnode", "DICOM+RFC3881")
        xml = text[text.index("<AuditMessage") :]
        assert faults(xml) == [], xml
        found[data] = ET.fromstring(xml)
    return found


def events(server: Rsyslog) -> Counter[str]:
    return Counter(code(one) for one in messages(server).values())


def code(message: ET.Element) -> str:
    event = message.find("EventIdentification/EventID")
    assert event is not None
    return event.attrib["csd-code"]


def received(server: Rsyslog, uid: str) -> int:
    """How many instances of a study are told of as transferred."""
    count = 0
    for message in messages(server).values():
        ids = {o.attrib["ParticipantObjectID"] for o in message.iter("ParticipantObjectIdentification")}
        if code(message) == "110104" and uid in ids:
            count += sum(int(c.attrib["NumberOfInstances"]) for c in message.iter("SOPClass"))
    return count


@pytest.mark.parametrize("to", ["tls", "udp"])
def test_no_event_is_missing_when_server_and_node_go_and_come(
    data: Path, tmp_path: Path, server: Rsyslog, to: str
) -> None:
    studies = {name: make_study(data / SCAN, tmp_path / name, name, 16) for name in ("one", "two", "three")}
    for path in studies["one"]:
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Müller^<Jürgen>"
        dataset.save_as(path)
    server.start()
    running = node(tmp_path / "node", server, to).start()
    try:
        assert send(running.port, studies["one"]) == len(studies["one"])
        assert send(running.port, studies["one"], called="NOBODY") == 0
        until("the first study told", lambda: received(server, study_uid("one")) == len(studies["one"]))
        until("the refusal told", lambda: events(server)["110113"] == 2)  # and the configuration's
        server.stop()
        # The server is away, and the node is killed in the middle of an association.
        assert send(running.port, studies["two"]) == len(studies["two"])
        assert send(running.port, studies["three"], release=False) == len(studies["three"])
        receiver = running.child("receive")
        assert running.process is not None
        running.process.send_signal(signal.SIGKILL)
        receiver.kill()
        running.process.wait(240)
        until("the receiver gone too", lambda: not _listens(running.port))
        running.start()
        server.start()
        for name in ("two", "three"):
            until(f"study {name} told", lambda name=name: received(server, study_uid(name)) == len(studies[name]))
        running.stop()
        until("the stop told", lambda: stops(server) == 1)
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()
    told = events(server)
    assert told["110100"] == 3  # two starts, one stop
    assert told["110102"] == told["110104"] == 3
    assert len(server.lines()) == len(messages(server)), "told twice"
    numbers = sorted(int(key.split('"')[1]) for key in messages(server))
    assert numbers == list(range(1, len(numbers) + 1))
    names = {m.findtext(".//ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']/ParticipantObjectName")
             for m in messages(server).values()}  # fmt: skip
    assert "Müller^<Jürgen>" in names
    log = (running.folder / "node.log").read_text()
    assert "Müller" not in log
    assert "TEST-" not in log


def stops(server: Rsyslog) -> int:
    kinds = (m.find("EventIdentification/EventTypeCode") for m in messages(server).values())
    return sum(kind is not None and kind.attrib["csd-code"] == "110121" for kind in kinds)


def _listens(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def test_a_server_with_a_foreign_certificate_gets_nothing_and_check_says_so(tmp_path: Path, server: Rsyslog) -> None:
    server.start()
    made = node(tmp_path / "node", server, "tls")
    make_certificates(tmp_path / "other", "other")
    made.config_path.write_text(
        made.config_path.read_text().replace(f"{server.folder}/ca.pem", f"{tmp_path}/other/ca.pem")
    )
    (result, *_) = checks._audit(config.load(made.config_path))
    assert not result.ok
    assert "its certificate is refused" in result.text
    assert server.lines() == []


def test_commands_that_change_things_are_told_with_their_user(tmp_path: Path, server: Rsyslog) -> None:
    made = node(tmp_path / "node", server, "tls")
    assert dicomnode("registry", "forget", "P-17", "--config", made.config_path).returncode == 3
    server.start()
    catalog = Catalog.open(made.config.catalog_url, made.config.storage.state)
    sink = made.config.audit.sink("here")
    assert sink is not None
    assert Sender(made.config, catalog).send(sink) == 1
    assert Sender(made.config, catalog).send(sink) == 0
    catalog.close()
    until("the command told", lambda: events(server)["110113"] == 1)
    (told,) = messages(server).values()
    users = {p.attrib["UserID"]: p.attrib["UserIsRequestor"] for p in told.iter("ActiveParticipant")}
    things = {o.attrib["ParticipantObjectID"] for o in told.iter("ParticipantObjectIdentification")}
    assert things == {"dicomnode registry forget"}
    assert users == {os_user(): "true", "AETITLE=DICOMNODE": "false"}
