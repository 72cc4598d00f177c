"""What the store knows: one frozen record per noun. Times are UTC seconds since 1970, given by the caller."""

from dataclasses import dataclass
from typing import Literal

from pydicom.uid import KeyObjectSelectionDocumentStorage

Closed = Literal["released", "aborted", "lost"]
#: `delivered`: the destinations have stored every object. `committed`: those asked for storage commitment have also
#: taken responsibility for every object. `superseded`: a newer generation of the study has settled.
#: `routed`: by a rule not analysed, but its images are on their way to others. `ignored`: by a rule nothing is done.
JobState = Literal[
    "queued", "running", "analysed", "refused", "failed", "delivered", "committed", "cancelled", "held", "superseded",
    "routed", "ignored",
]  # fmt: skip
StudyState = Literal["receiving"] | JobState
#: `rejected` is the dead letter: the peer refused for good, and only a person can change that.
DeliveryState = Literal["pending", "delivered", "committed", "failed", "rejected", "superseded"]
#: The destination has the object.
ARRIVED: tuple[DeliveryState, ...] = ("delivered", "committed")


@dataclass(frozen=True)
class Instance:
    """One received SOP instance.

    Attributes:
        path: the file in the spool.
        sha256: of the dataset's bytes (after the file meta group).
        size: of the file, bytes.
        association_id: the association that brought it last; None if it came otherwise.
        patient_hash: 32 hex digits for PatientID, and 32 for IssuerOfPatientID if there is one: tells patients apart
            and names none. Under the catalogue's key (`patient_key.PatientKey.keyed`).
        image_type: ImageType's values joined with a backslash, as in the file; "" if absent.
        orientation: ImageOrientationPatient as text rounded to 3 decimals; "" if absent.
        slice_position: ImagePositionPatient along the slice normal, mm; None without position or orientation.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    path: str
    sha256: str
    size: int
    received_at: float
    association_id: int | None
    patient_hash: str
    modality: str = ""
    image_type: str = ""
    orientation: str = ""
    slice_position: float | None = None

    @property
    def is_note(self) -> bool:
        """Whether it only refers to other objects, and bears the patient under whom these were, rightly or not."""
        return self.sop_class_uid == KeyObjectSelectionDocumentStorage


@dataclass(frozen=True)
class Study:
    """A study in the spool. `generation`: how often it settled; `state`: `receiving`, or its newest job's state."""

    study_uid: str
    generation: int
    state: StudyState
    first_seen: float
    last_seen: float
    instances: int


@dataclass(frozen=True)
class Job:
    """The work on one generation of a study."""

    study_uid: str
    generation: int
    state: JobState
    reason: str | None
    created_at: float
    updated_at: float


#: With which the `object` of a received image begins.
ORIGINAL = "original "
#: What a delivery brings: the objects of a result, or the images as they were received.
Kind = Literal["results", "originals"]
#: The `object` of a delivery that takes replaced results back: a Key Object rejection note.
REJECTION = "rejection"
#: The `text` of a delivery of a result while it is on its way, and once it was dropped then.
BEING_SENT = "being sent"
DROPPED_WHILE_SENT = "dropped while it was being sent: it may have arrived"


@dataclass(frozen=True)
class Delivery:
    """One object on its way to one destination. `commitment`: the destination is asked for it.

    `object` names a result, or says "original" and the SOP Instance UID.
    """

    study_uid: str
    generation: int
    destination: str
    object: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    state: DeliveryState
    status: int | None
    text: str | None
    attempts: int
    updated_at: float
    commitment: bool = False

    @property
    def kind(self) -> Kind:
        """Whether this is a result's object or a received image."""
        return "originals" if self.object.startswith(ORIGINAL) else "results"

    @property
    def may_have_arrived(self) -> bool:
        """Whether the destination has it, or may have it: nobody knows of one that was dropped on its way."""
        return self.state in ARRIVED or (self.state == "superseded" and self.text == DROPPED_WHILE_SENT)


def original(sop_instance_uid: str) -> str:
    """Return the `object` of a delivery that forwards a received image."""
    return ORIGINAL + sop_instance_uid


@dataclass(frozen=True)
class Routing:
    """What the rules decided of one generation of a study.

    `decision` is JSON (`routing.rules.Decision`). `released_at`: when a person let go on what a rule had held.
    """

    study_uid: str
    generation: int
    decided_at: float
    decision: str
    released_at: float | None


@dataclass(frozen=True)
class Event:
    """A job has come to a state of which somebody may want to know; `event_id` stays the same, however often told.

    "certificate", "alert" and "alert-over" are of the node itself and name no study: a file of TLS needs to be
    replaced; something needs a person, or needs one no more. "expiring": the study's images will be removed.
    """

    event_id: str
    study_uid: str
    generation: int
    state: JobState | Literal["certificate", "alert", "alert-over", "expiring"]
    reason: str | None
    at: float


@dataclass(frozen=True)
class Conflict:
    """Other content that came under a SOP Instance UID that was taken; `sha256` names it in the quarantine."""

    study_uid: str
    sop_instance_uid: str
    sha256: str
    received_at: float


#: `accepted`, `rejected`, `dropped`: by a person. `newest`: by a caller that may replace. `noted`: by a rejection note.
CorrectionAction = Literal["accepted", "rejected", "dropped", "newest", "noted"]
#: How a rejection is titled (PS3.16 CID 7010): for quality, patient safety, a wrong worklist entry, expired retention.
RejectionCode = Literal["", "113001", "113037", "113038", "113039"]


@dataclass(frozen=True)
class Correction:
    """A decision about one object.

    Attributes:
        who: a person, a caller, or a rejection note.
        sha256: of the version that is no longer used.
        successor: of the version in its place; "" where there is none.
        patient_hash: whose the study was before; "" where nobody knew.
        code: of a rejection, "" else.
        followed: whether studies that were compared with this one have been looked at since.
    """

    study_uid: str
    sop_instance_uid: str
    action: CorrectionAction
    who: str
    at: float
    sha256: str
    successor: str
    patient_hash: str
    code: RejectionCode
    followed: bool = False


@dataclass(frozen=True)
class Acceptance:
    """More of a correction that a person accepted is taken as it comes, `until` then.

    `attributes`: which may differ, by keyword; `patient_hash`: whose the object has to be. `at`: when it was accepted;
    what was decided before no longer counts, so that a person can also turn a wrong correction back.
    """

    study_uid: str
    who: str
    until: float
    patient_hash: str
    attributes: frozenset[str]
    at: float = 0.0


@dataclass(frozen=True)
class OwedReport:
    """A storage commitment report that the node owes: `objects` are (SOP class UID, SOP Instance UID)s."""

    transaction_uid: str
    requester: str
    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Worker:
    """A worker's row: it is fenced off as soon as its `epoch` is not the one that it was given."""

    name: str
    epoch: int
    version: str
    state: Literal["alive", "dead", "gone"]
    beat_at: float


@dataclass(frozen=True)
class Lease:
    """What a worker was given when it registered, and shows with everything that it writes."""

    name: str
    epoch: int


@dataclass(frozen=True)
class Bringer:
    """An association that brought instances of a study; `closed` is None while it is open."""

    closed: Closed | None
    closed_at: float | None
    last_seen: float


@dataclass(frozen=True)
class SeriesIntake:
    """What has come of one series. `positions`: mm along the slice normal, unsorted, of the instances that have one."""

    series_uid: str
    modality: str
    sop_class_uids: frozenset[str]
    instances: int
    orientations: frozenset[str]
    positions: tuple[float, ...]


@dataclass(frozen=True)
class StudyIntake:
    """All that the settle rule needs to know of a study."""

    study_uid: str
    last_seen: float
    bringers: tuple[Bringer, ...]
    series: tuple[SeriesIntake, ...]


@dataclass(frozen=True)
class Settled:
    """A study that has become a job."""

    study_uid: str
    generation: int
