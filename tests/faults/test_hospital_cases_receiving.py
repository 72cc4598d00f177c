"""What happens to a receiver in hospitals, over the real network, numbered as in docs/admin/hospital-cases.md."""

import hashlib
import json
import os
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.dsutils import encode

from dicomnode.network.transport import RequestorEntity
from dicomnode.reception.receiver import Receiver, ReceiverSettings
from dicomnode.reception.settle import SettleRule, decide
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.spool import Spool
from tests.helpers.certificates import Authority, toml
from tests.helpers.ports import free_port
from tests.helpers.receiving import IDLE_THREADS, Receiving
from tests.helpers.scanners import associated, ct, rejection, store_bytes
from tests.helpers.waiting import until

Peer = Callable[[str, str], str]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiving]:
    made = Receiving(tmp_path / "node", node="max_associations = 4\nnetwork_timeout_s = 5")
    yield made
    made.kill()


def are_whole(instances: list[Instance]) -> bool:
    """Every recorded image is there, with the recorded bytes."""
    for one in instances:
        content = Path(one.path).read_bytes()
        start = 144 + struct.unpack_from("<L", content, 140)[0]
        if len(content) != one.size or hashlib.sha256(content[start:]).hexdigest() != one.sha256:
            return False
    return True


def big_ct(number: int, **changes: object) -> Dataset:
    """Half a megabyte, as a slice is: several PDUs."""
    dataset = ct(number, **changes)
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 512, 512, 16
    dataset.add_new("PixelData", "OW", os.urandom(512 * 512 * 2))
    return dataset


def encoded(dataset: Dataset) -> bytes:
    data = encode(dataset, False, True)
    assert data is not None
    return data


def test_case_03_success_is_said_only_of_what_a_kill_leaves_whole(node: Receiving) -> None:
    """SIGKILL while four associations send: each image that was answered is recorded, on disk, byte for byte."""
    answered: list[str] = []

    def send(start: int) -> None:
        with associated(node) as association:
            for number in range(start, start + 1000):
                dataset = big_ct(number)
                answer = association.send_c_store(dataset) if association.is_established else Dataset()
                if "Status" not in answer:
                    return
                assert answer.Status == 0x0000
                answered.append(dataset.SOPInstanceUID)

    threads = [threading.Thread(target=send, args=(1 + 1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    until("30 images answered", lambda: len(answered) > 30, 30)
    node.kill()
    for thread in threads:
        thread.join()
    instances = node.instances()
    assert set(answered) <= {one.sop_instance_uid for one in instances}
    assert are_whole(instances)


def test_case_04_a_bad_file_does_not_poison_its_series(node: Receiving) -> None:
    with associated(node) as association:
        assert association.send_c_store(ct(1)).Status == 0x0000
        assert store_bytes(association, b"no data set at all, SECRET") == 0xC000
        assert store_bytes(association, encoded(ct(2))[:100], "1.2.3.2") == 0xC000
        assert association.send_c_store(ct(3)).Status == 0x0000
    assert [one.sop_instance_uid for one in node.instances()] == ["1.2.3.1", "1.2.3.3"]
    reasons = [json.loads(path.read_text()) for path in (node.config.storage.spool / "quarantine").glob("*.json")]
    assert [one["code"] for one in reasons] == ["unreadable-header"] * 2
    assert "SECRET" not in node.log()


def test_case_05_a_scanner_aborts_in_mid_image_and_sends_again(node: Receiving) -> None:
    with associated(node) as association:
        for number in range(1, 6):
            assert association.send_c_store(big_ct(number)).Status == 0x0000
        cut_in_mid_image(association.dul.socket.socket, association)  # type: ignore[union-attr]
    catalog = node.catalog()
    until(
        "the association recorded as aborted",
        lambda: [b.closed for b in catalog.unsettled(time.time())[0].bringers] == ["aborted"],
        10,
    )
    (study,) = catalog.unsettled(time.time())
    assert decide(study, study.last_seen + 5.0, SettleRule(release_s=1.0, quiet_s=60.0)).reason == "association aborted"
    assert list((node.config.storage.spool / "incoming").iterdir()) == []

    kept = {one.sop_instance_uid: dcmread(one.path) for one in node.instances()}
    with associated(node) as association:
        for number in range(1, 9):
            dataset = kept.get(f"1.2.3.{number}") or big_ct(number)
            assert association.send_c_store(dataset).Status == 0x0000
    until(
        "the association recorded as released",
        lambda: [b.closed for b in catalog.unsettled(time.time())[0].bringers] == ["released"],
        10,
    )
    (study,) = catalog.unsettled(time.time())
    decision = decide(study, study.last_seen + 5.0, SettleRule(release_s=1.0, quiet_s=60.0))
    assert (decision.settled, decision.reason) == (True, "released and complete")
    instances = node.instances()
    assert len(instances) == 8
    assert are_whole(instances)
    catalog.close()


def cut_in_mid_image(sock: socket.socket, association: object) -> None:
    """A C-STORE whose data set ends after one PDU in the middle of the next; then the connection is gone."""
    command = (
        struct.pack("<HHL", 0, 0x0002, 26) + b"1.2.840.10008.5.1.4.1.1.2\0"
        + struct.pack("<HHLH", 0, 0x0100, 2, 0x0001) + struct.pack("<HHLH", 0, 0x0110, 2, 99)
        + struct.pack("<HHLH", 0, 0x0700, 2, 0) + struct.pack("<HHLH", 0, 0x0800, 2, 0x0001)
        + struct.pack("<HHL", 0, 0x1000, 8) + b"1.2.3.99"
    )  # fmt: skip
    command = struct.pack("<HHLL", 0, 0, 4, len(command)) + command
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == CTImageStorage)  # type: ignore[attr-defined]
    for control, value in ((0x03, command), (0x00, b"x" * 5000)):
        sock.sendall(struct.pack(">BxLLBB", 4, len(value) + 6, len(value) + 2, context.context_id, control) + value)
    sock.sendall(struct.pack(">BxLLBB", 4, 5006, 5002, context.context_id, 0) + b"half")
    sock.shutdown(socket.SHUT_RDWR)


def test_case_06_more_than_1024_open_descriptors(tmp_path: Path, peer: Peer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2500:
        pytest.skip(f"this machine allows {hard} descriptors (ulimit -Hn)")
    # The receiver raises its own limit: it is started under the usual low one.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    node = Receiving(tmp_path / "node", node="max_associations = 900")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = []
    try:
        # From two addresses: one alone may not keep so many waiting.
        connections = [
            socket.create_connection(("127.0.0.1", node.port), 60, source_address=(f"127.0.0.{2 + n % 2}", 0))
            for n in range(1200)
        ]
        until("1200 descriptors open", lambda: node.descriptors() > 1200, 10)
        assert min(node.echo_s(peer("echoscu", "dcmtk")) for _ in range(5)) < 1.0
        files = [str(save(tmp_path, big_ct(number))) for number in (1, 2)]
        subprocess.run(
            [peer("storescu", "dcmtk"), "-aec", "NODE", "127.0.0.1", str(node.port), *files], check=True, timeout=120
        )
        assert len(node.instances()) == 2
    finally:
        for connection in connections:
            connection.close()
        node.kill()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def save(folder: Path, dataset: Dataset) -> Path:
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_case_07_more_associations_than_configured_are_refused_cleanly(node: Receiving) -> None:
    half_open = [node.connect() for _ in range(10)]
    for connection in half_open:
        connection.sendall(b"\x01\x00")  # the beginning of a request takes no place
    with associated(node) as a, associated(node), associated(node), associated(node):
        with associated(node) as fifth:
            assert rejection(fifth) == (2, 3, 2)
        assert a.send_c_store(ct()).Status == 0x0000
    for connection in half_open:
        connection.close()

    def room() -> bool:
        with associated(node) as association:
            return association.is_established

    until("room for an association", room, 10)


def test_case_08_port_probes_leave_no_trace(node: Receiving, peer: Peer) -> None:
    node.echo_s(peer("echoscu", "dcmtk"))
    until("the threads gone", lambda: node.threads() <= IDLE_THREADS, 10)
    descriptors, lines = node.descriptors(), len(node.log().splitlines())
    for _ in range(300):
        node.connect().close()
    until("the threads gone", lambda: node.threads() <= IDLE_THREADS and node.descriptors() <= descriptors, 10)
    assert len(node.log().splitlines()) == lines


def test_case_09_silent_clients_do_not_block_the_tls_port(tmp_path: Path, peer: Peer) -> None:
    """300 connections to the TLS port that say nothing, or begin a handshake and stop: an echo by TLS is answered."""
    hospital = Authority(tmp_path / "ca")
    files, scanner = hospital.files("node"), hospital.files("scanner")
    port = free_port()
    node = Receiving(
        tmp_path / "node", node=f"plain = false\ntls_port = {port}\n", storage="minimum_free_gb = 0.01\n" + toml(files)
    )
    command = [peer("echoscu", "dcmtk"), "+tls", str(scanner.key), str(scanner.certificate), "+cf"]
    command += [str(scanner.ca_file), "-aec", "NODE", "127.0.0.1", str(port)]
    silent = []
    try:
        subprocess.run(command, check=True, timeout=240)
        until("the threads gone", lambda: node.threads() <= IDLE_THREADS, 10)
        descriptors = node.descriptors()
        for number in range(300):
            silent.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            if number % 2:
                silent[-1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        start = time.monotonic()
        subprocess.run(command, check=True, timeout=240)
        assert time.monotonic() - start < 5
        for one in silent:
            one.close()
        until("the threads gone", lambda: node.threads() <= IDLE_THREADS and node.descriptors() <= descriptors, 20)
    finally:
        for one in silent:
            one.close()
        node.stop()


def test_case_10_a_disk_slower_than_the_senders_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patient sender gets its answer though all our own time-outs are shorter; an impatient one sends again."""
    node = slow_node(tmp_path, monkeypatch, seconds=4.0)
    try:
        with associated(node) as patient:
            assert patient.send_c_store(ct(1)).Status == 0x0000
        with associated(node) as impatient:
            impatient.dimse_timeout = 0.3
            assert "Status" not in impatient.send_c_store(ct(2))
        monkeypatch.undo()
        with associated(node) as again:
            assert again.send_c_store(ct(2)).Status == 0x0000
        assert len(node.catalog.instances("1.2")) == 2
        assert len(list((node.spool.root / "studies").rglob("*.dcm"))) == 2
    finally:
        node.receiver.stop(0.0)
        node.catalog.close()


class InProcess:
    """A receiver in this process, whose disk a test can slow down."""

    def __init__(self, folder: Path, settings: ReceiverSettings) -> None:
        self.spool, self.catalog = Spool(folder / "spool"), Catalog.open(f"sqlite:///{folder}/catalog.db")
        self.receiver = Receiver(settings, self.spool, self.catalog)
        self.port = self.receiver.start()


def slow_node(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> InProcess:
    settings = ReceiverSettings(
        "NODE", "127.0.0.1", 0, minimum_free_bytes=0, network_timeout_s=2.0, dimse_timeout_s=2.0
    )
    node = InProcess(folder, settings)
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(".part"):
            time.sleep(seconds)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    return node


def test_case_11_the_same_images_on_four_associations_and_two_processes(tmp_path: Path, peer: Peer) -> None:
    files = [str(save(tmp_path, big_ct(number))) for number in range(1, 31)]
    node = Receiving(tmp_path / "node", receivers=2)
    try:
        command = [peer("storescu", "dcmtk"), "-aec", "NODE", "127.0.0.1", str(node.port), *files]
        senders = [subprocess.Popen(command) for _ in range(4)]
        assert [sender.wait(240) for sender in senders] == [0, 0, 0, 0]
        instances = node.instances()
        assert len(instances) == 30
        assert are_whole(instances)
        assert len(list(node.config.storage.spool.rglob("*.dcm"))) == 30
        node.stop()
        assert list((node.config.storage.spool / "incoming").iterdir()) == []
    finally:
        node.kill()


def test_case_12_other_content_under_a_known_uid_is_kept_apart(node: Receiving) -> None:
    first, second = big_ct(1), big_ct(1)
    with associated(node) as association:
        assert association.send_c_store(first).Status == 0x0000
        answer = association.send_c_store(second)
        assert (answer.Status, answer.ErrorComment) == (0xC001, "uid-taken")
        assert association.send_c_store(big_ct(1, SeriesInstanceUID="1.2.9")).Status == 0xC001
    (kept,) = node.instances()
    assert dcmread(kept.path).PixelData == first.PixelData
    quarantined = sorted((node.config.storage.spool / "quarantine").glob("*.dcm"))
    assert len(quarantined) == 2
    assert second.PixelData in {dcmread(path).PixelData for path in quarantined}


@pytest.mark.parametrize(
    ("second", "patients"),
    [
        ({"PatientID": "SECRET-ID "}, 1),
        ({"PatientID": "OTHER"}, 2),
        ({"IssuerOfPatientID": "HOSPITAL"}, 1),
        ({"PatientID": "OTHER", "IssuerOfPatientID": "HOSPITAL"}, 2),
    ],
)
def test_case_13_two_patients_are_told_from_a_missing_issuer(
    node: Receiving, second: dict[str, str], patients: int
) -> None:
    """The settle tick holds a study whose images name more than one."""
    with associated(node) as association:
        assert association.send_c_store(ct(1)).Status == 0x0000
        assert association.send_c_store(ct(2, **second)).Status == 0x0000
        if "IssuerOfPatientID" in second:
            other = ct(3, PatientID=second.get("PatientID", "SECRET-ID"), IssuerOfPatientID="HOSPITAL")
            assert association.send_c_store(other).Status == 0x0000
    catalog = node.catalog()
    assert catalog.patient_ids("1.2") == patients
    catalog.close()
    stored = b"".join(path.read_bytes() for path in node.config.storage.state.iterdir())
    assert b"SECRET-ID" not in stored
    assert b"HOSPITAL" not in stored


def test_case_20_patient_names_in_any_character_set_stay_byte_for_byte(node: Receiving, data: Path) -> None:
    paths = sorted((data / "odd_pydicom" / "charset_files").glob("*.dcm"))
    assert len(paths) > 5
    sent: dict[str, bytes] = {}
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        uid = f"1.2.3.{number}"
        dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid, "1.2", "1.2.3"
        dataset.SOPClassUID = CTImageStorage
        sent[uid] = encoded(dataset)
    with associated(node) as association:
        for uid, content in sent.items():
            assert store_bytes(association, content, uid) == 0x0000
    assert {one.sop_instance_uid: Path(one.path).read_bytes()[-len(sent[one.sop_instance_uid]) :] for one in
            node.instances()} == sent  # fmt: skip


@pytest.mark.parametrize(
    "element",
    [
        b"\x18\x00\x50\x00DS\x08\x00 not-DS ",
        b"\x18\x00\x50\x00DS\x28\x00" + b"1" * 40,
        b"\x18\x00\x51\x00ZZ\x02\x00ab",
        b"\x18\x00\x50\x00DS\x07\x001234567",
        b"\x18\x00\x10\x13US\x03\x00abc",
    ],
    ids=["text as a number", "too long", "unknown VR", "odd length", "half a number"],
)
def test_case_21_invalid_values_are_kept_as_they_came(node: Receiving, element: bytes) -> None:
    content = encoded(ct())
    behind = content.index(b"\x20\x00\x0d\x00UI")
    content = content[:behind] + element + content[behind:]
    with associated(node) as association:
        assert store_bytes(association, content) == 0x0000
    (one,) = node.instances()
    assert Path(one.path).read_bytes().endswith(content)


def test_case_22_missing_attributes_do_not_stop_the_reception(node: Receiving) -> None:
    bare = Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID = CTImageStorage, generate_uid()
    bare.StudyInstanceUID, bare.SeriesInstanceUID = generate_uid(), generate_uid()
    bare.file_meta = ct().file_meta
    without_series = ct()
    del without_series.SeriesInstanceUID
    with associated(node) as association:
        assert association.send_c_store(bare).Status == 0x0000
        assert association.send_c_store(without_series).Status == 0xC000  # nobody could say where it belongs
    (one,) = node.instances()
    assert (one.modality, one.orientation, one.slice_position) == ("", "", None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here ({mounted.stderr.strip()}): run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_case_25_a_full_disk_refuses_and_goes_on_by_itself(small_disk: Path, tmp_path: Path) -> None:
    """Refused at the watermark, 0xA700 on running associations, nothing truncated, recovery without a restart."""
    node = Receiving(
        tmp_path / "node", storage=f'spool = "{small_disk}/spool"\nminimum_free_gb = 0.008\nlow_free_gb = 0.016'
    )
    try:
        with associated(node) as running:
            answers = [running.send_c_store(big_ct(number)).Status for number in range(1, 80)]
            accepted = answers.index(0xA700)
            assert set(answers[:accepted]) == {0x0000}
            assert set(answers[accepted:]) == {0xA700}
            until("refused for want of room", lambda: refused_for(node) == (2, 3, 2), 10)
            instances = node.instances()
            assert len(instances) == accepted
            assert are_whole(instances)
            assert list((small_disk / "spool" / "incoming").iterdir()) == []
            for one in instances[:20]:
                Path(one.path).unlink()
            until("stored", lambda: running.send_c_store(big_ct(100)).Status == 0x0000, 10)
        until("accepted again", lambda: refused_for(node) is None, 10)
        with associated(node) as new:
            assert new.send_c_store(big_ct(101)).Status == 0x0000
    finally:
        node.kill()


def refused_for(node: Receiving) -> tuple[int, int, int] | None:
    """Result, source and reason with which a new association is rejected now."""
    with associated(node) as association:
        return rejection(association) if association.is_rejected else None


def test_case_25_a_disk_that_is_full_below_the_watermark_truncates_nothing(small_disk: Path, tmp_path: Path) -> None:
    """Other programs may fill the disk between our look and our write."""
    node = Receiving(
        tmp_path / "node", storage=f'spool = "{small_disk}/spool"\nminimum_free_gb = 0\nlow_free_gb = 0.016'
    )
    try:
        with associated(node) as running:
            answers = [running.send_c_store(big_ct(number)).Status for number in range(1, 80)]
            accepted = answers.count(0x0000)
            assert 0 < accepted < 79
            assert set(answers) == {0x0000, 0xA700}
            assert set(answers[:50]) == {0x0000}
            instances = node.instances()
            assert len(instances) == accepted
            assert are_whole(instances)
            assert list((small_disk / "spool" / "incoming").iterdir()) == []
            Path(instances[0].path).unlink()
            Path(instances[1].path).unlink()
            until("stored", lambda: running.send_c_store(big_ct(100)).Status == 0x0000, 10)
    finally:
        node.kill()


def test_a_pdu_that_announces_four_gigabytes_ends_its_association(node: Receiving) -> None:
    before = node.memory()
    for header in (b"\x01\x00\xff\xff\xff\xff", b"\x04\x00\xff\xff\xff\xff"):
        with node.connect() as connection:
            connection.sendall(header)
            connection.settimeout(60)
            assert connection.recv(10)[:1] == b"\x07"  # A-ABORT
    with associated(node) as association:
        sock = association.dul.socket.socket  # type: ignore[union-attr]
        assert sock is not None
        sock.sendall(b"\x04\x00\xff\xff\xff\xff" + b"x" * 100_000)
        until("aborted", lambda: association.is_aborted, 10)
    assert node.memory() - before < 20_000_000


def test_an_image_larger_than_any_pdu_costs_no_memory(node: Receiving) -> None:
    """Enhanced CT: hundreds of megabytes in one instance."""
    with associated(node) as association:
        association.send_c_echo()
        before = node.memory()
        dataset = ct()
        dataset.add_new("PixelData", "OW", bytes(100_000_000))
        assert association.send_c_store(dataset).Status == 0x0000
        assert node.memory() - before < 20_000_000
    assert are_whole(node.instances())


def test_implicit_and_explicit_of_one_sender_are_both_kept(node: Receiving) -> None:
    entity = RequestorEntity("SCANNER")
    entity.add_requested_context(CTImageStorage, ImplicitVRLittleEndian)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    implicit = ct(2)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert association.send_c_store(ct(1)).Status == 0x0000
    assert association.send_c_store(implicit).Status == 0x0000
    association.release()
    syntaxes = [dcmread(one.path).file_meta.TransferSyntaxUID for one in node.instances()]
    assert syntaxes == [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
