"""What a PACS holds of a patient, asked for by C-FIND (PS3.4 C.4.1, study root)."""

from datetime import date

from pydicom.dataset import Dataset


def studies(patient: Dataset, first: date, last: date, modality: str) -> Dataset | None:
    """Return the question for a patient's studies of these days; modality "" for any.

    `patient` gives Patient ID and character set; None where the ID is empty or would be a wild card.
    """
    patient_id = str(patient.get("PatientID") or "").strip()
    if not patient_id or any(sign in patient_id for sign in "\\*?"):
        return None
    identifier = Dataset()
    if patient.get("SpecificCharacterSet"):
        identifier.SpecificCharacterSet = patient.SpecificCharacterSet
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientID = patient_id
    identifier.StudyDate = f"{first:%Y%m%d}-{last:%Y%m%d}"
    identifier.ModalitiesInStudy = modality
    for keyword in ("IssuerOfPatientID", "StudyInstanceUID", "StudyTime", "StudyDescription"):
        setattr(identifier, keyword, None)
    return identifier


def series(study_uid: str) -> Dataset:
    """Return the question for the series of a study."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    for keyword in ("SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "ProtocolName"):
        setattr(identifier, keyword, None)
    return identifier
