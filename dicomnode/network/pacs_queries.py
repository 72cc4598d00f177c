"""What a PACS holds of a patient, asked for by C-FIND (PS3.4 C.4.1, study root)."""

from datetime import date

from pydicom.dataset import Dataset

from dicomnode.network.matching import text


def studies(patient: Dataset, first: date, last: date, modality: str) -> Dataset | None:
    """Return the question for a patient's studies of these days; modality "" for any.

    `patient` gives Patient ID and character set; None where the ID is empty or would be a wild card.
    """
    patient_id = text(patient, "PatientID")
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


def of_row(*, patient_id: str, accession_number: str, study_date: str, study_uid: str) -> Dataset:
    """Return the question for the study that a row of a list means; "" asks for nothing.

    The values hold no wild cards and no backslashes; `study_date` is YYYYMMDD.
    """
    identifier = Dataset()
    if not (patient_id + accession_number).isascii():
        identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientID, identifier.AccessionNumber = patient_id, accession_number
    identifier.StudyDate, identifier.StudyInstanceUID = study_date, study_uid
    identifier.IssuerOfPatientID = None
    return identifier


def series(study_uid: str, *, images: bool = False) -> Dataset:
    """Return the question for the series of a study; `images`: with how many images each has."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    for keyword in ("SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "ProtocolName"):
        setattr(identifier, keyword, None)
    if images:
        identifier.NumberOfSeriesRelatedInstances = None
    return identifier
