"""The messages of a UPS performer (PS3.4 annex CC, UPS Pull): the worklist, the claim, progress, the end; N-CREATE.

Every DIMSE-N message names the UPS Push SOP class, whatever the context it goes in (PS3.4 CC.3.1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.logs import is_uid
from dicomnode.network.association import Peer
from dicomnode.network.find import status_of
from dicomnode.network.statuses import PeerStatus, every_other, taken

PUSH, PULL = UID("1.2.840.10008.5.1.4.34.6.1"), UID("1.2.840.10008.5.1.4.34.6.3")

#: PS3.4 tables CC.2.1-3, CC.2.5-4 and CC.2.6-2.
ALREADY_CANCELED, ALREADY_COMPLETED = 0xB304, 0xB306
NOT_UPDATABLE, WRONG_TRANSACTION, ALREADY_IN_PROGRESS, UNKNOWN = 0xC300, 0xC301, 0xC302, 0xC307
#: PS3.7 annex C.5.
DUPLICATE_UID = 0x0111
_NOT_SUPPORTED = 0x0122
_OF_STATE = "PS3.4 tables CC.2.1-3, CC.2.6-2"
#: Of the DIMSE-N services, those of a performed procedure step too (without the statuses of PS3.4 CC, which it lacks).
STATUSES: tuple[PeerStatus, ...] = (
    PeerStatus(0x0000, "done", "PS3.7 annex C.1", "success"),
    *(
        PeerStatus(status, "done, a general warning", "PS3.7 annex C.4", "warning")
        for status in (0x0001, 0x0107, 0x0116)
    ),
    PeerStatus(0xB000, "done, with a warning of the service", "PS3.4 CC.2", "warning", last=0xBFFF),
    PeerStatus(NOT_UPDATABLE, "the task may no longer be updated", _OF_STATE, "not ours"),
    PeerStatus(WRONG_TRANSACTION, "the Transaction UID is not the claimant's", _OF_STATE, "not ours"),
    PeerStatus(UNKNOWN, "no such task", _OF_STATE, "not ours"),
    *(
        PeerStatus(status, "attribute, value, object, class or right", "PS3.7 annex C.5", "permanent")
        for status in (0x0105, 0x0106, 0x0112, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, _NOT_SUPPORTED, 0x0124, 0x0211)
    ),
    *(
        PeerStatus(status, "a state that cannot follow, or lacks something", _OF_STATE, "permanent")
        for status in (0xC303, 0xC304, 0xC309, 0xC310)
    ),
    every_other("passing"),
)
#: What no second attempt changes.
FOR_GOOD = frozenset(one.status for one in STATUSES if one.taken_as == "permanent")
#: The server's answers after which a task is no longer ours.
NOT_OURS = frozenset(one.status for one in STATUSES if one.taken_as == "not ours")
_CHANGE_STATE = 1  # Action Type ID
_SYNTAXES: Final[list[str | UID]] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

State = Literal["IN PROGRESS", "COMPLETED", "CANCELED"]
Workitem = tuple[str, str, str] | tuple[()]  # value, scheme, meaning


@dataclass(frozen=True)
class Reference:
    """An object: `retrieve_from` are AE titles that hold it."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    retrieve_from: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A task as the worklist has it."""

    step_uid: str
    study_uid: str


def contexts(*, may_create: bool) -> list[PresentationContext]:
    """Return the contexts of a performer, and of one that creates tasks."""
    return [build_context(one, _SYNTAXES) for one in ((PULL, PUSH) if may_create else (PULL,))]


def is_good(status: int) -> bool:
    """Success, or a warning (which has been done too)."""
    return taken(STATUSES, status) in ("success", "warning")


# The worklist


def question(workitem: Workitem, label: str) -> Dataset:
    """Which tasks are scheduled for us. Nothing about the patient is asked for."""
    identifier = Dataset()
    identifier.ProcedureStepState = "SCHEDULED"
    identifier.ProcedureStepLabel = label
    wanted = Dataset()
    wanted.CodeValue, wanted.CodingSchemeDesignator = workitem[:2] if workitem else ("", "")
    identifier.ScheduledWorkitemCodeSequence = [wanted]
    source = Dataset()
    source.StudyInstanceUID = None
    identifier.InputInformationSequence = [source]
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
        setattr(identifier, keyword, None)
    return identifier


def task(answer: Dataset, workitem: Workitem, label: str) -> Task | None:
    """Return the task of an answer.

    None where it is not ours (not every server matches all keys) or names no one study by a UID.
    """
    codes = [(str(c.get("CodeValue")), str(c.get("CodingSchemeDesignator"))) for c in _items(answer)]
    if str(answer.get("ProcedureStepState") or "SCHEDULED") != "SCHEDULED":
        return None
    if (workitem and workitem[:2] not in codes) or (label and str(answer.get("ProcedureStepLabel") or "") != label):
        return None
    named = {str(i.get("StudyInstanceUID") or "") for i in answer.get("InputInformationSequence") or []} - {""}
    studies = named or {str(answer.get("StudyInstanceUID") or "")} - {""}
    step_uid = str(answer.get("SOPInstanceUID") or "")
    return Task(step_uid, *studies) if len(studies) == 1 and all(map(is_uid, (step_uid, *studies))) else None


def _items(answer: Dataset) -> Sequence[Dataset]:
    return answer.get("ScheduledWorkitemCodeSequence") or []


# The messages


def change_state(association: Association, peer: Peer, step_uid: str, transaction_uid: str, state: State) -> int:
    """N-ACTION Change UPS State (PS3.4 CC.2.1). Returns the status; 0x0122 where the peer does not offer UPS Pull.

    Raises:
        PeerError: there was no answer.
    """
    if not _is_offered(association, PULL):
        return _NOT_SUPPORTED
    action = Dataset()
    action.ProcedureStepState, action.TransactionUID = state, transaction_uid
    answer, _ = association.send_n_action(action, _CHANGE_STATE, PUSH, step_uid, meta_uid=PULL)
    return status_of(answer, peer)


def update(association: Association, peer: Peer, step_uid: str, transaction_uid: str, change: Dataset) -> int:
    """N-SET under a claim (PS3.4 CC.2.6). Returns and raises as `change_state`."""
    if not _is_offered(association, PULL):
        return _NOT_SUPPORTED
    change.TransactionUID = transaction_uid
    answer, _ = association.send_n_set(change, PUSH, step_uid, meta_uid=PULL)
    return status_of(answer, peer)


def create(association: Association, peer: Peer, step_uid: str, content: Dataset) -> int:
    """N-CREATE (PS3.4 CC.2.5). Returns (for UPS Push) and raises as `change_state`."""
    if not _is_offered(association, PUSH):
        return _NOT_SUPPORTED
    answer, _ = association.send_n_create(content, PUSH, step_uid)
    return status_of(answer, peer)


def _is_offered(association: Association, sop_class: UID) -> bool:
    return any(context.abstract_syntax == sop_class for context in association.accepted_contexts)


# What they hold


def progress(percent: int, text: str) -> Dataset:
    """Return the change that tells how far a task is."""
    now, change = Dataset(), Dataset()
    now.ProcedureStepProgress, now.ProcedureStepProgressDescription = str(percent), text
    change.ProcedureStepProgressInformationSequence = [now]
    return change


def cancellation(reason: str, at: float, code: tuple[str, str, str]) -> Dataset:
    """Return what a task must have before it is CANCELED (PS3.4 table CC.2.5-3, final state)."""
    now, change = Dataset(), Dataset()
    now.ProcedureStepCancellationDateTime = moment(at)
    now.ReasonForCancellation = reason
    now.ProcedureStepDiscontinuationReasonCodeSequence = [coded(code)]
    change.ProcedureStepProgressInformationSequence = [now]
    return change


def completion(
    station: str, workitem: Workitem, begun_at: float, ended_at: float, made: Sequence[Reference]
) -> Dataset:
    """Return what a task must have before it is COMPLETED (PS3.4 table CC.2.5-3, final state).

    It is what was done, and what came of it. `station` is our AE title.
    """
    performed, change = Dataset(), progress(100, "done")
    performed.PerformedStationNameCodeSequence = [coded((station, "L", station))]
    performed.PerformedProcedureStepStartDateTime = moment(begun_at)
    performed.PerformedProcedureStepEndDateTime = moment(ended_at)
    performed.PerformedWorkitemCodeSequence = [coded(workitem or ("110001", "DCM", "Image Processing"))]
    performed.OutputInformationSequence = [_access(series) for series in by_series(made)]
    change.UnifiedProcedureStepPerformedProcedureSequence = [performed]
    return change


def _access(objects: Sequence[Reference]) -> Dataset:
    """Referenced Instances and Access (PS3.3 table 10-3) of the objects of one series."""
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = objects[0].study_uid, objects[0].series_uid
    item.ReferencedSOPSequence = [referenced(one) for one in objects]
    item.DICOMRetrievalSequence = [_retrieval(ae_title) for ae_title in objects[0].retrieve_from]
    return item


def _retrieval(ae_title: str) -> Dataset:
    item = Dataset()
    item.RetrieveAETitle = ae_title
    return item


def referenced(one: Reference) -> Dataset:
    """Return an item of a Referenced SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return item


def by_series(objects: Sequence[Reference]) -> list[list[Reference]]:
    """Return the objects of each series."""
    series: dict[str, list[Reference]] = {}
    for one in objects:
        series.setdefault(one.series_uid, []).append(one)
    return list(series.values())


def coded(code: tuple[str, str, str]) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def moment(at: float) -> str:
    """UTC seconds as DT, which names its offset."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S+0000")


def scheduled(image: Dataset, images: Sequence[Reference], workitem: Workitem, label: str, at: float) -> Dataset:
    """Return a new task for the study of these images (PS3.4 table CC.2.5-3, N-CREATE); `image` gives the patient."""
    task = of_patient(image)
    task.ProcedureStepState, task.TransactionUID = "SCHEDULED", None
    task.ScheduledProcedureStepPriority, task.InputReadinessState = "MEDIUM", "READY"
    task.ProcedureStepLabel, task.WorklistLabel = label, None
    task.ScheduledProcedureStepStartDateTime = moment(at)
    task.ScheduledWorkitemCodeSequence = [coded(workitem)] if workitem else []
    task.StudyInstanceUID = images[0].study_uid
    task.InputInformationSequence = [_access(series) for series in by_series(images)]
    for keyword in _EMPTY_SEQUENCES:
        setattr(task, keyword, [])
    for keyword in _EMPTY:
        setattr(task, keyword, None)
    return task


_EMPTY = (
    "CommentsOnTheScheduledProcedureStep",
    "AdmissionID",
    "AdmittingDiagnosesDescription",
    "MedicalAlerts",
    "PregnancyStatus",
    "SpecialNeeds",
)
_EMPTY_SEQUENCES = (
    "ScheduledHumanPerformersSequence",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
_PATIENT = ("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


def of_patient(image: Dataset) -> Dataset:
    """Return whose a step is, as an image of the study says it; what lacks is empty.

    It is byte for byte the image's where its header has not been looked at and names its VRs.
    """
    made = Dataset()
    for keyword in _PATIENT:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        if tag in image:
            found = image.get_item(tag)
            made[tag] = found if found.VR is not None else image[tag]
        elif keyword != "SpecificCharacterSet":
            setattr(made, keyword, None)
    return made
