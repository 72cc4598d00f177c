"""The tasks of a UPS worklist: claimed, told, ended; with a server that is down, restarts, others who are quicker."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicomnode import config
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import association
from dicomnode.operations import checks
from dicomnode.outbound.procedure_steps import ups
from dicomnode.store.results_folder import results_folder
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.running import Node
from tests.helpers.step_servers import MppsServer, UpsServer, set_back
from tests.helpers.waiting import until

UID = study_uid("a")
TASK = "1.2.826.0.1.1"


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def server() -> Iterator[UpsServer]:
    one = UpsServer(free_port())
    one.start()
    yield one
    one.stop()
    assert one.broken == []


MakeStation = Callable[..., Station]


@pytest.fixture
def make_station(tmp_path: Path, server: UpsServer, pacs: Pacs) -> MakeStation:
    def make(more: str = "") -> Station:
        return Station(tmp_path / "node", pacs.destination(), more=server.table(more))

    return make


def analyse(station: Station, files: list[Path], state: str = "delivered") -> None:
    station.start_worker()
    station.send(files)
    station.settle(UID)
    station.ended(UID, 1, state)


def test_a_task_is_claimed_when_its_study_is_here_and_completed_with_its_results(
    files: list[Path], server: UpsServer, pacs: Pacs, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    server.schedule("1.2.3.1", UID, code="110005")  # someone else's kind of work
    server.schedule("1.2.3.2", UID, state="CANCELED")
    station = make_station()
    with running(station):
        assert station.clock.perform_tasks() == 0
        assert server.state(TASK) == "SCHEDULED"  # others may still take it
        station.send(files)
        assert station.clock.perform_tasks() == 1
        assert server.state(TASK) == "IN PROGRESS"
        station.settle(UID)
        station.clock.perform_tasks()
        station.start_worker()
        station.ended(UID, 1, "delivered")
        station.clock.perform_tasks()
        assert station.clock.perform_tasks() == 0
    assert server.state(TASK) == "COMPLETED"
    assert server.told[TASK] == ["images are being received", "waiting in the queue", "done"]
    series = {str(d.SOPInstanceUID): (UID, str(d.SeriesInstanceUID), "PACS") for d in pacs.held()}
    assert len(series) == 3
    assert server.outputs(TASK) == series
    assert {server.state("1.2.3.1"), server.state("1.2.3.2")} == {"SCHEDULED", "CANCELED"}
    assert all("PatientID" not in q and "PatientName" not in q for q in server.questions)


def test_a_study_that_is_here_already_answers_a_task_at_once(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    station = make_station()
    with running(station):
        analyse(station, files)
        server.schedule(TASK, UID)
        assert station.clock.perform_tasks() == 1
        assert server.state(TASK) == "COMPLETED"


def test_a_server_that_is_down_delays_no_result_and_is_told_later(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station()
    with running(station):
        station.send(files)
        station.clock.perform_tasks()
        server.stop()
        station.settle(UID)
        station.start_worker()
        station.ended(UID, 1, "delivered")
        with pytest.raises(PeerError):
            station.clock.perform_tasks()
        server.start()
        station.clock.perform_tasks()
        assert server.state(TASK) == "COMPLETED"


def test_a_restart_between_claim_and_completion_goes_on_with_the_same_transaction_uid(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    first = make_station()
    with running(first):
        first.send(files)
        first.clock.perform_tasks()
        (claimed,) = first.catalog.steps_of(UID)
        assert server.keys[TASK] == claimed.transaction_uid
        # As if the node had died before it noted the server's answer.
        set_back(first.catalog, replace(claimed, state="scheduled", told=None, begun_at=None))
    second = make_station()
    with running(second):
        second.settle(UID)
        second.start_worker()
        second.ended(UID, 1, "delivered")
        second.clock.perform_tasks()
    assert server.state(TASK) == "COMPLETED"


def test_an_end_whose_answer_was_lost_is_found_done(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station()
    with running(station):
        analyse(station, files)
        station.clock.perform_tasks()
        (done,) = station.catalog.steps_of(UID)
        set_back(station.catalog, replace(done, state="in progress"))
        assert station.clock.perform_tasks() == 1
        assert station.catalog.steps_of(UID) == [done]


@pytest.mark.parametrize("moment", ["before our claim", "after our claim"])
def test_a_task_that_somebody_else_has_is_left_alone(
    moment: str, files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station()
    with running(station):
        station.clock.perform_tasks()  # found, not claimed
        station.send(files)
        if moment == "after our claim":
            station.clock.perform_tasks()
        server.claim_by_another(TASK)
        station.settle(UID)
        station.clock.perform_tasks()
        (step,) = station.catalog.steps_of(UID)
        assert step.state == "dropped"
        assert "someone else" in str(step.reason)
        station.start_worker()
        station.ended(UID, 1, "delivered")
        assert station.clock.perform_tasks() == 0
    assert (server.state(TASK), server.keys[TASK]) == ("IN PROGRESS", "1.2.3.4")


def test_a_task_whose_study_never_comes_is_cancelled_with_a_reason(
    server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station("wait_s = 600")
    with running(station):
        now = time.time()
        assert ups.tick(station.config, station.catalog, now) == 0
        assert ups.tick(station.config, station.catalog, now + 599) == 0
        assert ups.tick(station.config, station.catalog, now + 601) == 1
    assert server.state(TASK) == "CANCELED"
    (told,) = server.tasks[TASK].ProcedureStepProgressInformationSequence
    assert told.ReasonForCancellation == "its study did not arrive in time"
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_refused_study_cancels_its_task_with_the_reason(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station()
    with running(station):
        analyse(station, files[:3], "refused")
        station.clock.perform_tasks()
    (told,) = server.tasks[TASK].ProcedureStepProgressInformationSequence
    assert server.state(TASK) == "CANCELED"
    assert told.ReasonForCancellation.startswith("refused: CT: ")
    assert "TEST-a" not in str(told)


def test_the_node_creates_a_task_for_each_accepted_study_and_performs_it(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    station = make_station("create = true\nperform = false")
    with running(station):
        station.send(files)
        station.settle(UID)
        station.clock.perform_tasks()
        (created,) = server.tasks.values()
        image = pydicom.dcmread(files[0])
        assert (created.PatientID, created.PatientName) == (image.PatientID, image.PatientName)
        (source,) = created.InputInformationSequence
        assert len(source.ReferencedSOPSequence) == len(files)
        uid = str(created.SOPInstanceUID)
        assert server.told[uid] == ["waiting in the queue"]
        (step,) = station.catalog.steps_of(UID)
        del server.tasks[uid]  # and once more, as after a crash: the UID is the same
        set_back(station.catalog, replace(step, state="planned", told=None))
        station.clock.perform_tasks()
        set_back(station.catalog, replace(step, state="planned", told=None))
        station.clock.perform_tasks()  # 0x0111, and the claim is found to be ours
        assert list(server.tasks) == [uid]
        station.start_worker()
        station.ended(UID, 1, "delivered")
        station.clock.perform_tasks()
        assert server.state(uid) == "COMPLETED"
        assert len(server.outputs(uid)) == 3
        assert server.questions == []


def test_a_study_that_has_a_task_gets_no_other(files: list[Path], server: UpsServer, make_station: MakeStation) -> None:
    server.schedule(TASK, UID)
    station = make_station("create = true")
    with running(station):
        station.send(files)
        station.clock.perform_tasks()
        station.settle(UID)
        station.clock.perform_tasks()
    assert list(server.tasks) == [TASK]


def test_a_new_generation_cancels_the_own_task_of_the_old_one(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    station = make_station("create = true")
    with running(station):
        station.send(files[:10])
        station.settle(UID)
        station.clock.perform_tasks()
        (old,) = server.tasks
        station.send(files[10:])
        station.settle(UID)
        station.clock.perform_tasks()
        (new,) = set(server.tasks) - {old}
    assert (server.state(old), server.state(new)) == ("CANCELED", "IN PROGRESS")


@pytest.mark.parametrize(("status", "state"), [(0x0110, "scheduled"), (0x0124, "dropped"), (0xC307, "dropped")])
def test_what_a_server_refuses_in_passing_is_tried_again(
    status: int, state: str, files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    server.answers["action"] = status
    station = make_station()
    with running(station):
        station.send(files)
        station.clock.perform_tasks()
        assert [s.state for s in station.catalog.steps_of(UID)] == [state]
        server.answers.clear()
        assert station.clock.perform_tasks() == (state == "scheduled")


def test_claimed_tasks_go_on_while_the_worklist_cannot_be_asked(
    files: list[Path], server: UpsServer, make_station: MakeStation
) -> None:
    server.schedule(TASK, UID)
    station = make_station()
    with running(station):
        station.send(files)
        station.clock.perform_tasks()
        server.answers["find"] = 0x0122
        station.settle(UID)
        with pytest.raises(PeerRejectedError):
            station.clock.perform_tasks()
    assert server.told[TASK][-1] == "waiting in the queue"


def test_a_task_that_cannot_be_told_takes_no_other_away(
    files: list[Path], server: UpsServer, make_station: MakeStation, caplog: pytest.LogCaptureFixture
) -> None:
    server.schedule(TASK, UID)
    server.schedule("1.2.3.9", study_uid("never"))
    station = make_station("wait_s = 600")
    with running(station):
        analyse(station, files)
        for path in results_folder(station.config.storage.results, UID, 1).glob("*.dcm"):
            path.write_bytes(b"damaged")
        assert ups.tick(station.config, station.catalog, time.time()) == 0
        assert ups.tick(station.config, station.catalog, time.time() + 601) == 1
    assert (server.state(TASK), server.state("1.2.3.9")) == ("IN PROGRESS", "CANCELED")
    assert "postponed" in caplog.text


def test_check_echoes_both_servers(tmp_path: Path, server: UpsServer) -> None:
    (tmp_path / "c.toml").write_text(
        server.table() + f'[mpps]\nae_title = "X"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    )
    said = {r.what: r for r in checks._peers(config.load(tmp_path / "c.toml"))}
    assert (said["ups"].ok, said["mpps"].ok) == (True, False)


@pytest.mark.slow
def test_a_running_node_performs_the_worklist_and_tells_of_its_analysis(
    files: list[Path], tmp_path: Path, server: UpsServer, pacs: Pacs
) -> None:
    steps = MppsServer(free_port())
    steps.start()
    tables = server.table("every_s = 0.3\nwait_s = 30") + steps.table("every_s = 0.3")
    node = Node(tmp_path / "running", pacs.destination(), "radiomics = false\n" + tables)
    node.start()
    try:
        server.schedule(TASK, UID)
        server.schedule("1.2.3.9", study_uid("never"))
        association.send(association.Peer("node", "DICOMNODE", "127.0.0.1", node.port, "SCANNER"), files)
        assert node.ended(UID) == "delivered"
        until("completed", lambda: server.state(TASK) == "COMPLETED", 30)
        until("cancelled", lambda: server.state("1.2.3.9") == "CANCELED", 60)
        assert server.told[TASK][-1] == "done"
        until("told", lambda: [s.PerformedProcedureStepStatus for s in steps.steps.values()] == ["COMPLETED"], 30)
        assert steps.broken == []
        assert "TEST-a" not in node.log()
    finally:
        assert node.stop() == 0
        steps.stop()
