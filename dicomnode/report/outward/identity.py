"""Whose a result is and which order it answers, decoded from a report: the one place where that is turned into text.

Our DICOM objects carry these bytes as they came (`report.source`). FHIR and HL7 are UTF-8, so here they are decoded; a
patient's identifier that does not decode is refused, because a wrong one files the result under somebody else.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

_REPLACED = "\N{REPLACEMENT CHARACTER}"


class UnaddressedError(ValueError):
    """It cannot be said in FHIR or HL7 whose a result is. The text names nobody, and says what to do."""


@dataclass(frozen=True)
class NameParts:
    """One representation of a name (PS3.5 6.2.1): "A" alphabetic, "I" ideographic, "P" phonetic."""

    representation: str
    family: str
    given: str
    middle: str
    prefix: str
    suffix: str


@dataclass(frozen=True)
class PatientIdentity:
    """A patient. Texts are "" where the images lack them.

    Attributes:
        issuer: of the Patient ID, in words; `issuer_oid` where the images name it by an OID.
        birth_date: YYYYMMDD.
        sex: "M", "F", "O" or "".
    """

    patient_id: str = field(repr=False)
    issuer: str
    issuer_oid: str
    names: tuple[NameParts, ...] = field(repr=False)
    birth_date: str = field(repr=False)
    sex: str

    def require_identifier(self) -> None:
        """Raise UnaddressedError where there is none."""
        if not self.patient_id:
            raise UnaddressedError("the images have no Patient ID: correct them, and send them again")


@dataclass(frozen=True)
class OrderNumbers:
    """The numbers of one order; "" where it has none."""

    accession: str
    placer: str
    filler: str
    procedure_id: str


def patient_in(report: Dataset) -> PatientIdentity:
    """Return the patient of a report. Raises UnaddressedError where identifier or issuer cannot be decoded."""
    patient_id, issuer = text(report, "PatientID"), text(report, "IssuerOfPatientID")
    if _REPLACED in patient_id + issuer:
        raise UnaddressedError("the Patient ID, or its issuer, is not text in the character set that the images state")
    qualifiers = report.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()]
    oid = text(qualifiers[0], "UniversalEntityID")
    is_oid = text(qualifiers[0], "UniversalEntityIDType") == "ISO"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes odd values, and these are a patient's
        names = tuple(_names(report.get("PatientName")))
    sex = text(report, "PatientSex")
    return PatientIdentity(
        patient_id,
        issuer,
        oid if is_oid else "",
        names,
        text(report, "PatientBirthDate"),
        sex if sex in ("M", "F", "O") else "",
    )


def orders_in(report: Dataset) -> tuple[OrderNumbers, ...]:
    """Return the orders that a report answers (Referenced Request Sequence), else the study's Accession Number."""
    keywords = (
        "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
    )
    named = [tuple(text(item, k) for k in keywords) for item in report.get("ReferencedRequestSequence") or ()]
    accession = text(report, "AccessionNumber")
    found = [OrderNumbers(*one) for one in dict.fromkeys(named)]
    return tuple(found) or ((OrderNumbers(accession, "", "", ""),) if accession else ())


def text(dataset: Dataset, keyword: str) -> str:
    """Return the text of an element; several values as DICOM writes them, "" where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = dataset.get(keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value).strip()


def _names(name: PersonName | MultiValue[PersonName] | None) -> Iterator[NameParts]:
    if not name:
        return
    if isinstance(name, MultiValue):  # a backslash in it, repeated as it came: one name all the same
        name = PersonName("\\".join(map(str, name)))
    for representation, group in zip("AIP", (name.alphabetic, name.ideographic, name.phonetic), strict=True):
        parts = [*(part.strip() for part in group.split("^")), "", "", "", "", ""]
        if any(parts):
            family, given, middle, prefix, suffix = parts[:5]
            yield NameParts(representation, family, given, middle, prefix, suffix)
