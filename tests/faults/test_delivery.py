"""Delivery under trouble: a PACS that is away, slow, refuses, warns; storage commitment on both sides."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicomnode import config
from dicomnode.network import association as sender
from dicomnode.network import commitment
from dicomnode.operations import jobs
from dicomnode.workflows.deliver import pause_s
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.running import Orthanc
from tests.helpers.waiting import until

UID = study_uid("a")


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word: the slowest way to be dead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def arrive(station: Station, files: list[Path]) -> None:
    station.start_worker()
    station.send(files)
    station.settle(UID)


def test_a_dead_destination_does_not_slow_another(files: list[Path], tmp_path: Path, silent: int) -> None:
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    dead = f'[[destination]]\nname = "a-dead"\nae_title = "DEAD"\nhost = "127.0.0.1"\nport = {silent}\ntimeout_s = 60\n'
    station = Station(tmp_path / "node", dead + pacs.destination())
    with running(pacs, station):
        arrive(station, files)
        until("at the living one", lambda: len(pacs.came) == 3, 30)
        states = Counter((d.destination, d.state) for d in station.catalog.deliveries(UID, 1))
        assert states[("a-dead", "pending")] == 3


def test_case_25_a_refusal_for_good_is_a_dead_letter_until_a_person_has_cured_it(
    files: list[Path], tmp_path: Path
) -> None:
    pacs = Pacs(tmp_path / "pacs")
    keep = pacs.answers
    pacs.answers = lambda event: 0xA900 if "66.4" in event.request.AffectedSOPClassUID else keep(event)  # the SEG
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination())
    with running(pacs, station):
        arrive(station, files)
        shown = station.ended(UID, 1, "failed")
        assert "seg to pacs" in shown["reason"]
        assert "0xA900" in shown["reason"]
        states = {d["object"]: (d["state"], d["attempts"]) for d in shown["deliveries"]}
        assert states == {"seg": ("rejected", 1), "measurements": ("delivered", 1), "summary": ("delivered", 1)}
        assert station.catalog.releasable(2e9, 0.0) == []
        pacs.answers = keep
        assert jobs.retry(station.config, UID, None) == "1 delivery to pacs queued again"
        station.ended(UID, 1, "delivered")
        assert Counter(pacs.came).most_common(1)[0][1] == 1  # what it had was not sent again
        assert [s.study_uid for s in station.catalog.releasable(2e9, 0.0)] == [UID]


def test_case_25_an_unknown_ae_title_is_a_refusal_for_good(files: list[Path], tmp_path: Path) -> None:
    ae = AE("PACS")
    ae.require_calling_aet = ["SOMEBODY"]
    port = free_port()
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", port), block=False)
    assert server is not None
    table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
    station = Station(tmp_path / "node", table)
    with running(station):
        arrive(station, files)
        shown = station.ended(UID, 1, "failed")
        assert "register it there" in shown["reason"]
        assert {d["state"] for d in shown["deliveries"]} == {"rejected"}
    server.shutdown()


def test_case_24_objects_by_destination_and_the_secondary_capture_as_fallback(
    files: list[Path], tmp_path: Path
) -> None:
    pacs = Pacs(tmp_path / "pacs")
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination(more='objects = ["summary"]'))
    with running(pacs, station):
        arrive(station, files)
        station.ended(UID, 1, "delivered")
        assert [d.Modality for d in pacs.held()] == ["OT"]


def test_a_warning_counts_as_stored_and_is_reported(files: list[Path], tmp_path: Path) -> None:
    pacs = Pacs(tmp_path / "pacs")
    keep = pacs.answers
    pacs.answers = lambda event: keep(event) or 0xB000
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination())
    with running(pacs, station):
        arrive(station, files)
        shown = station.ended(UID, 1, "delivered")
        assert {(d["status"], d["text"]) for d in shown["deliveries"]} == {("0xB000", "warning")}
        assert shown["flags"] == "3 objects stored with a warning"


def test_back_off_over_hours_with_jitter() -> None:
    peer = config.DicomDestinationTable(name="p", ae_title="P", host="h", port=1)
    pauses = [pause_s(peer, attempt, "study") for attempt in range(1, 40)]
    for attempt, pause in enumerate(pauses, 1):
        full = min(10 * 2.0 ** (attempt - 1), 1800)
        assert full / 2 <= pause <= full
    assert pauses == [pause_s(peer, attempt, "study") for attempt in range(1, 40)]  # a workflow run again does the same
    others = [pause_s(peer, 8, f"study {n}") for n in range(200)]
    assert max(others) - min(others) > 0.4 * 1280  # they come back spread over the pause, not together


def test_the_pacs_is_away_for_an_hour_and_then_gets_everything_once(files: list[Path], tmp_path: Path) -> None:
    """An hour of back-off, simulated: the pauses are those of `pause_s`, each attempt is called forward."""
    pacs = Pacs(tmp_path / "pacs")
    table = pacs.destination().replace("retry_first_s = 0.2\nretry_longest_s = 0.4", "")
    station = Station(tmp_path / "node", table)
    with running(station):
        arrive(station, files)
        station.ended(UID, 1, "analysed")
        waited, attempts = 0.0, 1
        while waited < 3600:
            pause = call_forward(station)
            assert pause == pytest.approx(pause_s(station.config.destination[0], attempts, f"{UID} 1 pacs"), abs=2)
            waited, attempts = waited + pause, attempts + 1
        assert attempts < 20
        waiting(station)  # the last one has failed
        pacs.start()
        with running(pacs):
            call_forward(station)
            shown = station.ended(UID, 1, "delivered")
            assert len(pacs.came) == len(set(pacs.came)) == 3
            assert max(d["attempts"] for d in shown["deliveries"]) == attempts + 1


def waiting(station: Station) -> Any:
    """The attempt that waits for its time."""

    def delayed() -> Any:
        found = station.queue._client.list_workflows(status="DELAYED", load_input=False, load_output=False)
        return found[0] if found else None

    return until("an attempt that waits", delayed, 30)


def call_forward(station: Station) -> float:
    """Let the attempt that waits begin now, and return the pause that it was given."""
    attempt, client = waiting(station), station.queue._client
    pause = (attempt.delay_until_epoch_ms - attempt.created_at) / 1000
    client.set_workflow_delay(attempt.workflow_id, delay_seconds=0)
    until("begun", lambda: client.list_workflows(workflow_ids=[attempt.workflow_id])[0].status != "DELAYED", 20)
    return float(pause)


@pytest.mark.parametrize("new_association", [False, True], ids=["on the same association", "on a new one"])
def test_storage_commitment_ends_in_committed(files: list[Path], tmp_path: Path, new_association: bool) -> None:
    pacs = Pacs(tmp_path / "pacs")
    # A busy machine may be late with the report on the same association: then it is asked for again.
    station = Station(tmp_path / "node", pacs.destination(more="commitment = true\ncommitment_timeout_s = 30"))
    if new_association:
        pacs._provider._report_to["DICOMNODE"] = sender.Peer("node", "DICOMNODE", "127.0.0.1", station.port, "PACS")
    pacs.start()
    with running(pacs, station):
        arrive(station, files)
        shown = station.ended(UID, 1, "committed")
        assert {d["state"] for d in shown["deliveries"]} == {"committed"}
        assert [s.study_uid for s in station.catalog.releasable(2e9, 0.0)] == [UID]


def test_what_is_not_committed_is_sent_again(files: list[Path], tmp_path: Path) -> None:
    """Between the storage and the request the PACS loses one object: it says so, and gets it again."""
    pacs = Pacs(tmp_path / "pacs")
    station = Station(tmp_path / "node", pacs.destination(more="commitment = true\ncommitment_timeout_s = 5"))
    pacs.start()
    lost: list[str] = []
    truth = pacs._provider._missing

    def missing(sop_class_uid: str, sop_instance_uid: str) -> int | None:
        if not lost:
            lost.append(sop_instance_uid)
            (pacs.folder / f"{sop_instance_uid}.dcm").unlink()
        return truth(sop_class_uid, sop_instance_uid)

    pacs._provider._missing = missing
    with running(pacs, station):
        arrive(station, files)
        station.ended(UID, 1, "committed")
        assert {uid: n for uid, n in Counter(pacs.came).items() if n > 1} == {lost[0]: 2}
        assert len(pacs.held()) == 3


def test_without_a_report_it_is_asked_for_again_and_the_spool_waits(files: list[Path], tmp_path: Path) -> None:
    pacs = Pacs(tmp_path / "pacs")
    station = Station(tmp_path / "node", pacs.destination(more="commitment = true\ncommitment_timeout_s = 1"))
    nobody = sender.Peer("nobody", "DICOMNODE", "127.0.0.1", free_port(), "PACS")
    pacs._provider._report_to["DICOMNODE"] = nobody  # the reports are lost
    pacs.start()
    with running(pacs, station):
        arrive(station, files)
        station.ended(UID, 1, "delivered")
        assert station.catalog.releasable(2e9, 0.0) == []
        asked = station.catalog.commitment_asked_at(UID, 1, "pacs")
        assert asked is not None
        until("asked again", lambda: (station.catalog.commitment_asked_at(UID, 1, "pacs") or 0) > asked, 20)
        del pacs._provider._report_to["DICOMNODE"]
        station.ended(UID, 1, "committed")
        assert len(pacs.came) == 3


def test_a_peer_without_storage_commitment_is_a_dead_letter_that_says_so(files: list[Path], tmp_path: Path) -> None:
    pacs = Pacs(tmp_path / "pacs")
    pacs._provider._commit = lambda event: (0x0122, None)  # type: ignore[method-assign]
    pacs.start()
    station = Station(tmp_path / "node", pacs.destination(more="commitment = true"))
    with running(pacs, station):
        arrive(station, files)
        assert "storage commitment" in station.ended(UID, 1, "failed")["reason"]


@pytest.fixture
def orthanc(tmp_path: Path, peer: Callable[[str, str], str]) -> Iterator[Orthanc]:
    running_one = Orthanc(tmp_path, peer("Orthanc", "orthanc"))
    yield running_one
    running_one.stop()


def test_orthanc_commits_on_a_new_association(files: list[Path], tmp_path: Path, orthanc: Orthanc) -> None:
    station = Station(tmp_path / "node", orthanc.destination("commitment = true\nretry_longest_s = 1"))
    modality = {"AET": "DICOMNODE", "Host": "127.0.0.1", "Port": station.port, "AllowStorageCommitment": True}
    orthanc.client.put("/modalities/dicomnode", json=modality).raise_for_status()
    with running(station):
        arrive(station, files)
        shown = station.ended(UID, 1, "committed")
        assert {d["state"] for d in shown["deliveries"]} == {"committed"}


@pytest.mark.parametrize("new_association", [False, True], ids=["on the same association", "on a new one"])
def test_the_node_commits_to_what_it_durably_holds(
    files: list[Path], tmp_path: Path, new_association: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SCP: one image is held, the file of one is gone, one never came, one is of another class."""
    if not new_association:
        monkeypatch.setattr(commitment, "_LINGER_S", 30.0)  # a busy machine is not quick with its report
    port = free_port()
    caller = f'[[node.callers]]\nae_title = "SCANNER"\nreport_to = "127.0.0.1:{port}"\n' if new_association else ""
    station = Station(tmp_path / "node", "", more=caller)
    came = threading.Event()
    reports: list[commitment.Report] = []

    def take(report: commitment.Report) -> bool:
        reports.append(report)
        came.set()
        return True

    scanner = AE("SCANNER")
    scanner.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: commitment.handle_report(event, take))]
    server = scanner.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    with running(station):
        station.send(files[:3])
        held = {i.sop_instance_uid: i for i in station.catalog.instances(UID)}
        whole, gone, other = held.values()
        Path(gone.path).unlink()
        wanted = [
            (whole.sop_class_uid, whole.sop_instance_uid),
            (gone.sop_class_uid, gone.sop_instance_uid),
            ("1.2.840.10008.5.1.4.1.1.7", other.sop_instance_uid),
            (whole.sop_class_uid, "1.2.3.4"),
        ]
        node = sender.Peer("node", "DICOMNODE", "127.0.0.1", station.port, "SCANNER")
        report = commitment.request(node, "1.2.3.99", wanted)
        if new_association:
            assert came.wait(60)
            assert report is None
            (report,) = reports
        assert report is not None
        assert report.transaction_uid == "1.2.3.99"
        assert report.committed == (whole.sop_instance_uid,)
        assert report.failed == {gone.sop_instance_uid: 0x0112, other.sop_instance_uid: 0x0119, "1.2.3.4": 0x0112}
    server.shutdown()


def test_a_report_that_nobody_asked_for_changes_nothing(files: list[Path], tmp_path: Path) -> None:
    station = Station(tmp_path / "node", "")
    with running(station):
        stranger = AE("STRANGER")
        stranger.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True, scu_role=False)
        association = stranger.associate("127.0.0.1", station.port, ae_title="DICOMNODE", ext_neg=[role])
        report = Dataset()
        report.TransactionUID = "1.2.3"
        status, _ = association.send_n_event_report(report, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        assert status.Status == 0x0115
        status, _ = association.send_n_event_report(report, 7, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        assert status.Status == 0x0113
        association.release()
