"""The modality worklist as the node asks for it (PS3.4 K.6), and what it keeps of an answer.

A provider that does not know one of our matching keys ignores it and gives more than was asked for, so an answer proves
nothing by itself: `dicomnode.context.worklist` compares Patient ID and Study Instance UID.
"""

import hashlib
from datetime import date

from pydicom.dataset import Dataset

from dicomnode.network import find
from dicomnode.network.matching import text
from dicomnode.store.catalog.orders import Order
from dicomnode.store.identity import whose
from dicomnode.store.patient_key import PatientKey

#: What an answer shall hold besides the keys, all empty: universal matching (PS3.4 C.2.2.2.3).
_WANTED = (
    "SpecificCharacterSet", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "ReferencedStudySequence", "RequestedProcedureDescription", "RequestedProcedureCodeSequence",
    "RequestedProcedureID", "ReasonForTheRequestedProcedure", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)  # fmt: skip
_WANTED_OF_STEP = (
    "Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepDescription", "ScheduledProcedureStepID", "ScheduledProcedureStepStatus",
)  # fmt: skip


def of_days(first: date, last: date, modality: str, station: str) -> Dataset:
    """All orders of these days; modality and station AE title "" stand for any."""
    identifier = _identifier()
    step = identifier.ScheduledProcedureStepSequence[0]
    step.ScheduledProcedureStepStartDate = f"{first:%Y%m%d}-{last:%Y%m%d}"
    step.Modality, step.ScheduledStationAETitle = modality, station
    return identifier


def of_study(image: Dataset) -> Dataset | None:
    """Return what is asked for an image: by its Accession Number, else by its patient; None where it has neither."""
    identifier = _identifier()
    for keyword in ("AccessionNumber", "PatientID"):
        value = str(image.get(keyword) or "").strip()
        # These would be a list of values or a wild card.
        if value and not any(sign in value for sign in "\\*?"):
            if image.get("SpecificCharacterSet"):
                identifier.SpecificCharacterSet = image.SpecificCharacterSet
            setattr(identifier, keyword, value)
            return identifier
    return None


def _identifier() -> Dataset:
    step = Dataset()
    for keyword in _WANTED_OF_STEP:
        setattr(step, keyword, None)
    identifier = Dataset()
    for keyword in _WANTED:
        setattr(identifier, keyword, None)
    identifier.ScheduledProcedureStepSequence = [step]
    return identifier


def order(answer: bytes, key: PatientKey, seen_at: float) -> Order:
    """Return what the node keeps of an answer (`find.Found`).

    Answers that are steps of one order (same patient, study, Accession Number and procedure) get one key.
    """
    item = find.read(answer)
    patient = whose(item)
    steps = item.get("ScheduledProcedureStepSequence") or [Dataset()]
    accession, procedure = text(item, "AccessionNumber"), text(item, "RequestedProcedureID")
    study_uid = text(item, "StudyInstanceUID")
    parts = (patient, study_uid, accession, procedure)
    return Order(
        key=key.order(hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()),
        patient_hash=key.keyed(patient),
        study_uid=study_uid,
        accession_number=accession,
        scheduled=f"{text(steps[0], 'ScheduledProcedureStepStartDate')} "
        f"{text(steps[0], 'ScheduledProcedureStepStartTime').partition('.')[0]}".strip(),
        content=answer,
        seen_at=seen_at,
    )
