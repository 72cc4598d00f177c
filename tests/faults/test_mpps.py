"""Performed procedure steps of analyses: begun, completed, discontinued; a server that is down, or has it already."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicomnode.errors import PeerError
from dicomnode.outbound.procedure_steps import mpps
from tests.faults.station import Pacs, Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.ports import free_port
from tests.helpers.step_servers import MppsServer, set_back

UID = study_uid("a")
MakeStation = Callable[..., Station]


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def server() -> Iterator[MppsServer]:
    one = MppsServer(free_port())
    one.start()
    yield one
    one.stop()
    assert one.broken == []


@pytest.fixture
def make_station(tmp_path: Path, server: MppsServer, pacs: Pacs) -> MakeStation:
    def make(more: str = "") -> Station:
        return Station(tmp_path / "node", pacs.destination(), more=server.table(more))

    return make


def analyse(station: Station, files: list[Path], state: str = "delivered") -> None:
    station.start_worker()
    station.send(files)
    station.settle(UID)
    station.ended(UID, 1, state)


def test_an_analysis_is_told_when_it_begins_and_when_it_ends(
    files: list[Path], server: MppsServer, pacs: Pacs, make_station: MakeStation
) -> None:
    station = make_station()
    with running(station):
        station.send(files)
        station.settle(UID)
        assert station.clock.tell_steps() == 0  # it waits: nothing has begun
        station.catalog.set_state(UID, 1, "running", now=time.time())
        assert station.clock.tell_steps() == 1
        (step,) = server.steps.values()
        assert step.PerformedProcedureStepStatus == "IN PROGRESS"
        image = pydicom.dcmread(files[0])
        assert (step.PatientID, step.PatientName) == (image.PatientID, image.PatientName)
        assert step.ScheduledStepAttributesSequence[0].StudyInstanceUID == UID
        station.catalog.set_state(UID, 1, "queued", now=time.time())
        station.start_worker()
        station.ended(UID, 1, "delivered")
        assert station.clock.tell_steps() == 1
        assert station.clock.tell_steps() == 0
    (step,) = server.steps.values()
    assert step.PerformedProcedureStepStatus == "COMPLETED"
    told = {
        str(one.ReferencedSOPInstanceUID): (str(series.SeriesInstanceUID), keyword == "ReferencedImageSequence")
        for series in step.PerformedSeriesSequence
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")
        for one in series[keyword].value
    }
    assert told == {str(d.SOPInstanceUID): (str(d.SeriesInstanceUID), d.Modality != "SR") for d in pacs.held()}
    assert len(told) == 3
    assert {str(s.RetrieveAETitle) for s in step.PerformedSeriesSequence} == {"PACS"}


def test_a_refused_study_is_a_discontinued_step(
    files: list[Path], server: MppsServer, make_station: MakeStation
) -> None:
    station = make_station()
    with running(station):
        analyse(station, files[:3], "refused")
        station.clock.tell_steps()
    (step,) = server.steps.values()
    assert step.PerformedProcedureStepStatus == "DISCONTINUED"
    assert step.CommentsOnThePerformedProcedureStep.startswith("refused: CT: ")
    assert step.PerformedProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_server_that_is_down_delays_no_result_and_is_told_after_a_restart(
    files: list[Path], server: MppsServer, make_station: MakeStation
) -> None:
    server.stop()
    first = make_station()
    with running(first):
        analyse(first, files)
        with pytest.raises(PeerError):
            first.clock.tell_steps()
    server.start()
    second = make_station()
    with running(second):
        assert second.clock.tell_steps() == 1
    (step,) = server.steps.values()
    assert step.PerformedProcedureStepStatus == "COMPLETED"


@pytest.mark.parametrize("lost", ["planned", "in progress"])
def test_what_the_server_has_had_already_is_not_doubled(
    lost: str, files: list[Path], server: MppsServer, make_station: MakeStation
) -> None:
    station = make_station()
    with running(station):
        analyse(station, files)
        station.clock.tell_steps()
        (done,) = station.catalog.steps_of(UID)
        set_back(station.catalog, replace(done, state=lost))  # type: ignore[arg-type]
        station.clock.tell_steps()
        assert station.catalog.steps_of(UID) == [done]
    assert len(server.steps) == 1


@pytest.mark.parametrize(("status", "states"), [(0x0110, ["planned", "dropped"]), (0x0122, ["dropped", "dropped"])])
def test_what_is_refused_in_passing_is_tried_again_for_so_long(
    status: int, states: list[str], files: list[Path], server: MppsServer, make_station: MakeStation
) -> None:
    server.answers["create"] = status
    station = make_station("retry_for_s = 600")
    with running(station):
        analyse(station, files[:3], "refused")
        now = time.time()
        for state, later in zip(states, (0, 601), strict=True):
            mpps.tick(station.config, station.catalog, now + later)
            assert [s.state for s in station.catalog.steps_of(UID)] == [state]


def test_both_services_tell_of_one_study(files: list[Path], server: MppsServer, make_station: MakeStation) -> None:
    """A step of the one service does not stand for the other's."""
    nobody = free_port()
    station = make_station(f'[ups]\nae_title = "STEPS"\nhost = "127.0.0.1"\nport = {nobody}\ncreate = true')
    with running(station):
        station.send(files)
        station.settle(UID)
        with pytest.raises(PeerError):
            station.clock.perform_tasks()
        station.catalog.set_state(UID, 1, "running", now=time.time())
        station.clock.tell_steps()
        assert {(s.kind, s.state) for s in station.catalog.steps_of(UID)} == {
            ("own", "planned"),
            ("mpps", "in progress"),
        }
