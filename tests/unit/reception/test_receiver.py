"""The receiver in this process, called by pynetdicom as SCU."""

import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filereader import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicomnode.errors import SpoolError
from dicomnode.network.transport import RequestorEntity
from dicomnode.reception.header import OWN
from dicomnode.reception.receiver import PermittedCaller, Receiver, ReceiverSettings
from dicomnode.report import context
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance, StudyIntake, original
from dicomnode.store.spool import Spool
from tests.helpers import raw_peer as raw
from tests.helpers.scanners import associated, ct, rejection, store_bytes
from tests.helpers.waiting import until

SETTINGS = ReceiverSettings("NODE", host="127.0.0.1", port=0, minimum_free_bytes=0, acse_timeout_s=5.0)


class Node:
    """A running receiver with its spool and catalogue."""

    def __init__(self, folder: Path, settings: ReceiverSettings) -> None:
        self.spool = Spool(folder / "spool")
        self.catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
        self.receiver = Receiver(settings, self.spool, self.catalog)
        self.port = self.receiver.start()

    def close(self) -> None:
        self.receiver.stop(0.0)
        self.catalog.close()

    def study(self) -> StudyIntake:
        (study,) = self.catalog.unsettled(time.time())
        return study

    def files(self, folder: str) -> list[Path]:
        return sorted(path for path in (self.spool.root / folder).rglob("*") if path.is_file())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(**changes: object) -> Node:
        nodes.append(Node(tmp_path, ReceiverSettings(**{**vars(SETTINGS), **changes})))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def test_echo_leaves_no_row(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        assert association.send_c_echo().Status == 0
    assert node.catalog.dead_receivers(lambda _run: False) == []


def test_success_means_file_and_record(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        for number in (1, 2, 3):
            assert association.send_c_store(ct(number)).Status == 0x0000
            assert len(node.files("studies")) == number
            assert len(node.catalog.instances("1.2")) == number
    until("the association recorded as released", lambda: node.study().bringers[0].closed == "released", 10)
    first = node.catalog.instances("1.2")[0]
    assert dcmread(first.path).PatientID == "SECRET-ID"
    assert (first.slice_position, first.size) == (1.0, Path(first.path).stat().st_size)
    assert node.files("incoming") == []


def test_bytes_are_kept_as_received(start: Callable[..., Node], data: Path) -> None:
    """Case 21: values with invalid VRs, private tags, group lengths stay byte for byte."""
    path = next(iter(sorted((data / "chest_lidc0314_every4th").glob("*.dcm"))))
    sent = dcmread(path, stop_before_pixels=True)
    raw = path.read_bytes()[144 + sent.file_meta.FileMetaInformationGroupLength :]
    node = start()
    entity = ApplicationEntity("SCANNER")
    entity.add_requested_context(CTImageStorage, sent.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert store_bytes(association, raw, sent.SOPInstanceUID) == 0x0000
    association.release()
    (stored,) = node.files("studies")
    assert stored.read_bytes().endswith(raw)
    assert dcmread(stored) == dcmread(path)


def test_resend_is_success_and_one_record(start: Callable[..., Node]) -> None:
    node = start()
    for _ in range(2):
        with associated(node) as association:
            assert association.send_c_store(ct()).Status == 0x0000
    assert len(node.files("studies")) == len(node.catalog.instances("1.2")) == 1


def test_taken_uid_keeps_the_first_and_quarantines_the_second(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        association.send_c_store(ct())
        (first,) = node.catalog.instances("1.2")
        answer = association.send_c_store(ct(SeriesInstanceUID="1.2.9"))
        assert (answer.Status, answer.ErrorComment) == (0xC001, "uid-taken")
    assert node.catalog.instances("1.2") == [first]
    assert [str(path) for path in node.files("studies")] == [first.path]
    kept, reason = node.files("quarantine")
    assert dcmread(kept).SeriesInstanceUID == "1.2.9"
    assert json.loads(reason.read_text())["code"] == "uid-taken"
    assert "SECRET" not in reason.read_text()


def test_mismatched_class_or_instance(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        good = ct()
        stream = BytesIO()
        good.save_as(stream, implicit_vr=False, little_endian=True)
        assert store_bytes(association, stream.getvalue(), "9.9.9") == 0xA900
        wrong_class = BytesIO()
        ct(SOPClassUID=SecondaryCaptureImageStorage).save_as(wrong_class, implicit_vr=False, little_endian=True)
        assert store_bytes(association, wrong_class.getvalue()) == 0xA900
    assert node.files("studies") == []
    assert len(node.files("quarantine")) == 4
    assert node.catalog.study("1.2") is None


@pytest.mark.parametrize("data", [b"nonsense and more nonsense", b"\x08\x00\x05\x00CS\x00\x00"])
def test_unreadable_header_poisons_nothing_else(start: Callable[..., Node], data: bytes) -> None:
    """Case 4: the bad file is kept apart, the series goes on."""
    node = start()
    with associated(node) as association:
        assert association.send_c_store(ct(1)).Status == 0x0000
        assert store_bytes(association, data) == 0xC000
        assert association.send_c_store(ct(2)).Status == 0x0000
    assert len(node.catalog.instances("1.2")) == 2
    kept = node.files("quarantine")[0]
    assert kept.read_bytes().endswith(data)


def test_disk_full_is_out_of_resources_and_passes(start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    node = start()
    with associated(node) as association:
        with monkeypatch.context() as patch:

            def full(_descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", full)
            assert association.send_c_store(ct()).Status == 0xA700
        assert node.files("studies") == node.files("incoming") == []
        assert association.send_c_store(ct()).Status == 0x0000


def test_catalogue_failure_is_out_of_resources(start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    node = start()
    with associated(node) as association:
        with monkeypatch.context() as patch:

            def broken(_instance: object) -> str:
                raise SpoolError("the catalogue's database failed")

            patch.setattr(node.catalog, "record", broken)
            assert association.send_c_store(ct()).Status == 0xA700
        assert association.send_c_store(ct()).Status == 0x0000
    assert len(node.files("studies")) == 1


def test_an_image_whose_study_is_being_removed_has_to_come_again(
    start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Housekeeping moves an old study away between our file and our record."""
    node = start()
    record = node.catalog.record

    def late(instance: Instance) -> str:
        monkeypatch.undo()
        node.spool.move_out("1.2")
        return record(instance)

    with associated(node) as association:
        monkeypatch.setattr(node.catalog, "record", late)
        assert association.send_c_store(ct()).Status == 0xA700
        assert association.send_c_store(ct()).Status == 0x0000
    (one,) = node.catalog.instances("1.2")
    assert Path(one.path).is_file()


def test_watermark_refuses_associations_and_stores(start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    node = start(minimum_free_bytes=1000)
    with associated(node) as association:
        monkeypatch.setattr(node.spool, "free_bytes", lambda: 999)
        answer = association.send_c_store(ct())
        assert (answer.Status, answer.ErrorComment) == (0xA700, "out of disk space")
    with associated(node) as association:
        assert rejection(association) == (2, 3, 2)


@pytest.mark.parametrize(
    ("changes", "calling", "called", "answer"),
    [
        ({}, "SCANNER", "OTHER", (1, 1, 7)),
        ({"check_called_ae": False}, "SCANNER", "OTHER", None),
        ({"more_ae_titles": ("ILD", "OTHER")}, "SCANNER", "OTHER", None),
        ({"callers": (PermittedCaller("SCANNER"),)}, "SCANNER", "NODE", None),
        ({"callers": (PermittedCaller("*", "127.0.0.0/8"),)}, "SCANNER", "NODE", None),
        ({"callers": (PermittedCaller("*", "192.0.2.1"),)}, "SCANNER", "NODE", (1, 1, 3)),
        ({"callers": (PermittedCaller("SCANNER"),)}, "STRANGER", "NODE", (1, 1, 3)),
        ({"callers": (PermittedCaller("SCANNER", "127.0.0.0/8"),)}, "SCANNER", "NODE", None),
        ({"callers": (PermittedCaller("*", "127.0.0.0/8"),)}, "ANYBODY", "NODE", None),
        ({"callers": (PermittedCaller("*", "192.0.2.0/24"),)}, "ANYBODY", "NODE", (1, 1, 3)),
        ({"callers": (PermittedCaller("SCANNER", "192.0.2.1"),)}, "SCANNER", "NODE", (1, 1, 3)),
        (
            {"callers": (PermittedCaller("A", "192.0.2.1"), PermittedCaller("SCANNER", "127.0.0.1"))},
            "SCANNER",
            "NODE",
            None,
        ),
    ],
)
def test_who_may_call(
    start: Callable[..., Node],
    changes: dict[str, object],
    calling: str,
    called: str,
    answer: tuple[int, int, int] | None,
) -> None:
    with associated(start(**changes), calling, called) as association:
        if answer is None:
            assert association.is_established
        else:
            assert rejection(association) == answer


def test_more_than_the_limit_is_refused_and_room_comes_back(start: Callable[..., Node]) -> None:
    node = start(max_associations=2)
    with associated(node), associated(node), associated(node) as third:
        assert rejection(third) == (2, 3, 2)

    def room() -> bool:
        with associated(node) as association:
            return association.is_established

    until("room for an association", room, 10)


def test_port_probes_take_no_room_and_leave_a_debug_line(
    start: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    """Case 8: a load balancer connects and closes, and another says nothing at all."""
    caplog.set_level(logging.DEBUG)
    node = start(max_associations=1)
    silent = socket.create_connection(("127.0.0.1", node.port))
    for _ in range(10):
        socket.create_connection(("127.0.0.1", node.port)).close()
    with associated(node) as association:
        assert association.is_established
    silent.close()
    until("11 lines in the log", lambda: sum("without a request" in line for line in caplog.messages) == 11, 10)
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


def test_cut_association_is_aborted(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        association.send_c_store(ct())
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        until("the association recorded as aborted", lambda: node.study().bringers[0].closed == "aborted", 10)


def test_peer_abort_is_aborted(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        association.send_c_store(ct())
        association.abort()
    until("the association recorded as aborted", lambda: node.study().bringers[0].closed == "aborted", 10)


def test_silent_association_is_aborted_after_the_network_timeout(start: Callable[..., Node]) -> None:
    node = start(network_timeout_s=2.0)
    with associated(node) as association:
        association.send_c_store(ct())
        until("the association recorded as aborted", lambda: node.study().bringers[0].closed == "aborted", 10)


def test_stalled_pdu_frees_its_thread(start: Callable[..., Node]) -> None:
    """A peer that sends half a PDU and then nothing must not hold a thread for ever."""
    node = start(acse_timeout_s=0.3)
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(b"\x01\x00\x00\x00\x01\x00 half")
        connection.settimeout(10)
        while connection.recv(1024):
            pass
    until("the associations ended", lambda: not node.receiver._running(), 10)


def test_stop_lets_a_running_association_finish(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        stopping = threading.Thread(target=node.receiver.stop, args=(10.0,))
        stopping.start()
        until("the receiver stopped", lambda: not node.receiver._servers, 10)
        assert association.send_c_store(ct()).Status == 0x0000
        with associated(node) as late:
            assert not late.is_established
    stopping.join()
    assert node.study().bringers[0].closed == "released"


def test_stop_aborts_after_the_grace(start: Callable[..., Node]) -> None:
    node = start()
    with associated(node) as association:
        association.send_c_store(ct())
        node.receiver.stop(0.1)
    assert node.study().bringers[0].closed == "aborted"


def test_four_associations_bring_the_same_images(start: Callable[..., Node]) -> None:
    """Case 11, over the network."""
    node = start()
    answers: list[int] = []

    def work() -> None:
        with associated(node) as association:
            answers.extend(association.send_c_store(ct(number)).Status for number in range(1, 9))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0x0000] * 32
    assert len(node.files("studies")) == len(node.catalog.instances("1.2")) == 8


def test_no_patient_data_in_the_log(start: Callable[..., Node], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = start()
    with associated(node) as association:
        association.send_c_store(ct())
        association.send_c_store(ct(PatientID="SECRET-2"))
        store_bytes(association, b"rubbish SECRET-ID")
    until("the association recorded as released", lambda: node.study().bringers[0].closed == "released", 10)
    assert caplog.text
    assert "secret" not in caplog.text.lower()


def test_port_in_use_is_a_clear_error(start: Callable[..., Node], tmp_path: Path) -> None:
    node = start()
    second = Receiver(ReceiverSettings("NODE", "127.0.0.1", node.port), node.spool, node.catalog)
    with pytest.raises(SpoolError, match=f"cannot listen on 127.0.0.1:{node.port}"):
        second.start()


def test_a_flood_finds_places_in_the_queue_of_the_socket(start: Callable[..., Node]) -> None:
    """Whom the kernel finds no place calls again after a second: an honest echo among them is late."""
    (server,) = start().receiver._servers
    assert server.socket is not None
    known = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    (places,) = struct.unpack_from("=I", known, 28)  # tcpi_sacked, which of a listening socket is its longest queue
    assert places >= min(1024, int(Path("/proc/sys/net/core/somaxconn").read_text()))


def test_more_than_1024_descriptors(start: Callable[..., Node]) -> None:
    """Case 6: `select` would fail for every association."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1400:
        pytest.skip(f"this machine allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    node = start()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        client = os.spawnlp(os.P_NOWAIT, "/usr/bin/env", "env", *echo_command(node.port))
        _, status = os.waitpid(client, 0)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert status == 0


def echo_command(port: int) -> list[str]:
    """A client in a process of its own: as an SCU in this process, pynetdicom's `select` would fail."""
    import sys

    code = (
        "import sys\nfrom pynetdicom import AE\nae = AE('SCANNER')\nae.add_requested_context('1.2.840.10008.1.1')\n"
        f"a = ae.associate('127.0.0.1', {port}, ae_title='NODE')\n"
        "ok = a.is_established and a.send_c_echo().Status == 0\na.release()\nsys.exit(0 if ok else 1)"
    )
    return [sys.executable, "-c", code]


def test_contexts_are_answered_one_by_one(start: Callable[..., Node]) -> None:
    node = start()
    entity = ApplicationEntity("SCANNER")
    unknown = build_context("1.3.12.2.1107.5.9.1")  # a vendor's own
    entity.requested_contexts = [build_context(CTImageStorage), unknown]
    association = entity.associate("127.0.0.1", node.port, ae_title="NODE")
    assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage]
    association.release()


@pytest.mark.parametrize("largest", [100_000, 90 << 20])
def test_an_object_beyond_the_largest_is_refused_while_it_comes_in(
    start: Callable[..., Node], largest: int, caplog: pytest.LogCaptureFixture
) -> None:
    node = start(largest_object_bytes=largest)
    request = raw.command(
        {0x0002: CTImageStorage.encode(), 0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\0\0", 0x1000: b"1.2.3.1"}
    )
    fragment = raw.pdata((1, 0, bytes(16_000)))
    with raw.associated(node.port, {1: (CTImageStorage, [ExplicitVRLittleEndian])}) as connection:
        connection.sendall(raw.pdata((1, 3, request)))
        for at in range(0, largest - 16_000, 16_000):
            connection.sendall(fragment)
            assert at or until("coming in", lambda: node.files("incoming"), 10)
        assert node.files("incoming")
        connection.sendall(fragment * 2)  # and not its end
        until("given up", lambda: not node.files("incoming"), 10)
        assert "cannot store 1.2.3.1: larger than this node takes" in caplog.text
        connection.sendall(fragment * 10 + raw.pdata((1, 2, b"")))
        kind, answer = raw.read(connection)
        assert kind == raw.DATA
        assert struct.pack("<HHLH", 0, 0x0900, 2, 0xA700) in answer
        assert b"larger than this node takes" in answer
        assert node.files("incoming") == node.files("studies") == node.files("quarantine") == []
    with associated(node) as association:  # the next one may come
        assert association.send_c_store(ct()).Status == 0x0000


RTSTRUCT, PRIVATE = "1.2.840.10008.5.1.4.1.1.481.3", "1.3.12.2.1107.5.9.1"


def with_classes(node: Node, *classes: str) -> Association:
    entity = RequestorEntity("SCANNER")
    for sop_class in classes:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", node.port, ae_title="NODE")


def test_a_structure_set_among_the_images_arrives_with_them(start: Callable[..., Node]) -> None:
    node = start()
    association = with_classes(node, CTImageStorage, RTSTRUCT)
    sent = (ct(1), ct(2, SOPClassUID=RTSTRUCT, SeriesInstanceUID="1.2.4", Modality="RTSTRUCT"), ct(3))
    assert [association.send_c_store(one).Status for one in sent] == [0, 0, 0]
    association.release()
    assert len(node.files("studies")) == 3


def test_refused_contexts_are_named_once_an_association_and_counted(
    start: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    node = start()
    with caplog.at_level(logging.WARNING, logger="dicomnode"):
        for _ in range(2):
            with_classes(node, CTImageStorage, PRIVATE).release()
        until("both counted", lambda: "(2 since the start)" in caplog.text, 10)
    lines = [line for line in caplog.messages if PRIVATE in line]
    assert [line.partition(" SOP classes")[2] for line in lines] == [
        f" that are not taken ({n} since the start): {PRIVATE}" for n in (1, 2)
    ]


def test_a_private_class_is_kept_where_it_is_configured(start: Callable[..., Node]) -> None:
    node = start(private_storage=(PRIVATE,))
    association = with_classes(node, PRIVATE)
    assert association.send_c_store(ct(1, SOPClassUID=PRIVATE)).Status == 0
    association.release()
    assert [one.sop_class_uid for one in node.catalog.instances("1.2")] == [PRIVATE]


def test_our_own_result_that_comes_back_is_no_new_image(start: Callable[..., Node]) -> None:
    assert (context.MANUFACTURER, context.MODEL_NAME) == OWN
    node = start()
    node.catalog.plan_delivery("1.2", 1, "PACS", "summary", CTImageStorage, "1.2.3.9", "summary.dcm", now=1.0)
    ours = {"Manufacturer": OWN[0], "ManufacturerModelName": OWN[1]}
    with associated(node) as association:
        assert association.send_c_store(ct(9, **ours)).Status == 0
        assert node.catalog.unsettled(time.time()) == []
        assert node.files("studies") == node.files("incoming") == []
        # What another node made, or somebody who calls himself so, is an object like any other.
        assert association.send_c_store(ct(8, **ours)).Status == 0
        assert association.send_c_store(ct(7)).Status == 0
    assert [one.sop_instance_uid for one in node.catalog.instances("1.2")] == ["1.2.3.7", "1.2.3.8"]


def test_our_own_result_makes_no_study_where_its_study_was_coerced(start: Callable[..., Node]) -> None:
    """A PACS that merges or splits studies, or corrects a patient, sends our results back under another name."""
    node = start()
    for study, uid in (("1.2", "1.2.3.9"), ("1.5", "1.2.3.8")):
        node.catalog.plan_delivery(study, 1, "PACS", "measurements", CTImageStorage, uid, "m.dcm", now=1.0)
    forwarded = original("1.2.3.6")  # another node's result, which this one passed on as it came
    node.catalog.plan_delivery("1.2", 1, "PACS", forwarded, CTImageStorage, "1.2.3.6", "o.dcm", now=1.0)
    ours = {"Manufacturer": OWN[0], "ManufacturerModelName": OWN[1]}
    with associated(node) as association:
        assert association.send_c_store(ct(9, **ours, StudyInstanceUID="1.7", PatientID="CORRECTED")).Status == 0
        assert node.catalog.unsettled(time.time()) == []  # it came first: no study begins with it
        assert association.send_c_store(ct(1, StudyInstanceUID="1.7")).Status == 0
        assert association.send_c_store(ct(8, **ours, StudyInstanceUID="1.7", SeriesInstanceUID="1.7.9")).Status == 0
        assert [one.instances for one in node.study().series] == [1]  # and none grows by it
        assert association.send_c_store(ct(6, **ours, StudyInstanceUID="1.7")).Status == 0
        # Images whose UID a result has by accident, or by somebody's will, are not thrown away.
        node.catalog.plan_delivery("1.2", 1, "PACS", "seg", CTImageStorage, "1.2.3.5", "s.dcm", now=1.0)
        assert association.send_c_store(ct(5, StudyInstanceUID="1.7")).Status == 0
    held = {one.sop_instance_uid for one in node.catalog.instances("1.7")}
    assert held == {"1.2.3.1", "1.2.3.6", "1.2.3.5"}
