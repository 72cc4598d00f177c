"""What the intake knows: one frozen record per noun. Times are UTC seconds since 1970, given by the caller."""

from dataclasses import dataclass
from typing import Literal

Closed = Literal["released", "aborted", "lost"]
StudyState = Literal[
    "receiving", "queued", "running", "analysed", "refused", "failed", "delivered", "cancelled", "held", "superseded"
]
JobState = Literal["queued", "running", "analysed", "refused", "failed", "delivered", "cancelled", "held", "superseded"]
#: The part of a patient hash that stands for the Patient ID; what follows stands for its issuer.
PATIENT_ID_DIGITS = 32
DeliveryState = Literal["pending", "delivered", "failed", "rejected"]


@dataclass(frozen=True)
class Instance:
    """One received SOP instance.

    Attributes:
        path: the file in the spool.
        sha256: of the dataset's bytes (after the file meta group).
        size: of the file, bytes.
        association_id: the association that brought it last; None if it came otherwise.
        patient_hash: 32 hex digits of the sha256 of PatientID, and 32 of IssuerOfPatientID's if there is one: tells
            patients apart and names none.
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


@dataclass(frozen=True)
class Delivery:
    """One result object on its way to one destination."""

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
