"""The messages of a performed procedure step (PS3.4 annex F): N-CREATE when it begins, one N-SET when it ends.

What a later N-SET fills has to be there, empty, from the beginning (PS3.4 F.7.2.2).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.network.association import Peer
from dicomnode.network.find import status_of
from dicomnode.network.ups import STATUSES as STEP_STATUSES
from dicomnode.network.ups import Reference, by_series, coded, of_patient, referenced

MPPS = UID("1.2.840.10008.3.1.2.3.3")
#: The step has ended already: the Error ID that comes with 0x0110 (PS3.4 F.7.2.2.3).
ENDED_ALREADY = 0xA710
#: What answers are taken as: those of a UPS, but that a step is ours as long as it is told.
STATUSES = tuple(one for one in STEP_STATUSES if one.taken_as != "not ours")
_SYNTAXES: Final[list[str | UID]] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # the structured reports are no images
_PROTOCOL = "Lung analysis"

State = Literal["COMPLETED", "DISCONTINUED"]


def contexts() -> list[PresentationContext]:
    """Return the one presentation context."""
    return [build_context(MPPS, _SYNTAXES)]


def create(association: Association, peer: Peer, step_uid: str, content: Dataset) -> int:
    """N-CREATE (PS3.4 F.7.2.1). Returns the status.

    Raises:
        PeerError: there was no answer.
    """
    answer, _ = association.send_n_create(content, MPPS, step_uid)
    return status_of(answer, peer)


def update(association: Association, peer: Peer, step_uid: str, change: Dataset) -> int:
    """N-SET (PS3.4 F.7.2.2). Returns the status, or `ENDED_ALREADY`; raises as `create`."""
    answer, _ = association.send_n_set(change, MPPS, step_uid)
    status = status_of(answer, peer)
    return ENDED_ALREADY if answer.get("ErrorID") == ENDED_ALREADY else status


def begun(image: Dataset, step_uid: str, station: str, at: float) -> Dataset:
    """Return a step that is IN PROGRESS (PS3.4 table F.7.2-1, N-CREATE), of no scheduled one.

    Args:
        image: header of an image of the study: its patient, study and order.
        step_uid: the step's own SOP Instance UID.
        station: our AE title.
        at: when it began, UTC seconds; told in this machine's time, with its offset.
    """
    step = of_patient(image)
    scheduled = Dataset()
    scheduled.StudyInstanceUID = image.StudyInstanceUID
    scheduled.AccessionNumber = image.get("AccessionNumber")
    orders = image.get("RequestAttributesSequence") or [Dataset()]
    scheduled.RequestedProcedureID = orders[0].get("RequestedProcedureID")
    for keyword in ("RequestedProcedureDescription", "ScheduledProcedureStepID", "ScheduledProcedureStepDescription"):
        setattr(scheduled, keyword, None)
    scheduled.ReferencedStudySequence, scheduled.ScheduledProtocolCodeSequence = [], []
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PerformedProcedureStepID = step_uid[-12:]
    step.PerformedStationAETitle = station
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedProcedureStepDescription = _PROTOCOL
    step.Modality, step.StudyID = "OT", image.get("StudyID")
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime, step.TimezoneOffsetFromUTC = _when(at)
    for keyword in _FILLED_LATER:
        setattr(step, keyword, None)
    for keyword in _EMPTY_SEQUENCES:
        setattr(step, keyword, [])
    return step


_FILLED_LATER = (
    "PerformedStationName",
    "PerformedLocation",
    "PerformedProcedureTypeDescription",
    "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime",
    "CommentsOnThePerformedProcedureStep",
)
_EMPTY_SEQUENCES = (
    "ReferencedPatientSequence",
    "ProcedureCodeSequence",
    "PerformedProtocolCodeSequence",
    "PerformedProcedureStepDiscontinuationReasonCodeSequence",
    "PerformedSeriesSequence",
)


def completed(at: float, made: Sequence[Reference]) -> Dataset:
    """Return the change that ends a step with these objects, at least one."""
    change = _ended("COMPLETED", at)
    change.PerformedSeriesSequence = [_series(objects[0].series_uid, objects) for objects in by_series(made)]
    return change


def discontinued(at: float, reason: str, code: tuple[str, str, str], series_uid: str) -> Dataset:
    """Return the change that ends a step without objects.

    A series has to be there all the same (PS3.4 table F.7.2-1).
    """
    change = _ended("DISCONTINUED", at)
    change.PerformedSeriesSequence = [_series(series_uid, [])]
    change.CommentsOnThePerformedProcedureStep = reason
    change.PerformedProcedureStepDiscontinuationReasonCodeSequence = [coded(code)]
    return change


def _ended(state: State, at: float) -> Dataset:
    change = Dataset()
    change.PerformedProcedureStepStatus = state
    change.PerformedProcedureStepEndDate, change.PerformedProcedureStepEndTime, _ = _when(at)
    return change


def _series(series_uid: str, objects: Sequence[Reference]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID, series.ProtocolName = series_uid, _PROTOCOL
    for keyword in ("PerformingPhysicianName", "OperatorsName", "SeriesDescription", "RetrieveAETitle"):
        setattr(series, keyword, None)
    if objects:
        series.RetrieveAETitle = objects[0].retrieve_from[0]
    reports = [one for one in objects if one.sop_class_uid.startswith(_REPORTS)]
    series.ReferencedImageSequence = [referenced(one) for one in objects if one not in reports]
    series.ReferencedNonImageCompositeSOPInstanceSequence = [referenced(one) for one in reports]
    return series


def _when(at: float) -> tuple[str, str, str]:
    """Date, time and offset from UTC."""
    local = datetime.fromtimestamp(at).astimezone()
    return f"{local:%Y%m%d}", f"{local:%H%M%S}", f"{local:%z}"
