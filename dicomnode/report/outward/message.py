"""One result as a record without DICOM: whose it is, which order it answers, its numbers, doubts and limits.

It is read back from the structured reports, so that what an EHR or a RIS shows cannot differ from what the PACS has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.findings import Findings
from dicomnode.report import codes, uids
from dicomnode.report.outward.identity import OrderNumbers, PatientIdentity, orders_in, patient_in
from dicomnode.report.wording import DEMO, RESEARCH_USE, is_demo

_TRACKING_IDENTIFIER, _TRACKING_UID = "112039", "112040"
_FINDING_SITE, _LATERALITY = "363698007", "272741003"
_DERIVATION, _METHOD = "121401", "370129005"
_GROUP = "125007"
#: Where the reports name no procedure.


@dataclass(frozen=True)
class Reading:
    """One number of the reports, and what it is of.

    Attributes:
        key: the same for this measure of this structure in every version of the study's result.
        site: in words, such as "Right lung"; "" where the report names none.
        value: as the report has it, a decimal.
    """

    key: str
    site: str
    body_site: Code | None
    laterality: Code | None
    concept: Code
    derivation: Code | None
    method: Code | None
    value: str
    unit: Code

    @property
    def name(self) -> str:
        """Concept, derivation and site in words: what a reader sees who is shown no codes."""
        of_what = f"{self.concept.meaning} ({self.derivation.meaning})" if self.derivation else self.concept.meaning
        return f"{of_what}, {self.site}" if self.site else of_what


@dataclass(frozen=True)
class Remark:
    """A sentence of the reports: a limit of use, a doubt, what was compared with."""

    concept: Code
    text: str


@dataclass(frozen=True)
class ReportMessage:
    """One result on its way out of DICOM.

    Attributes:
        document_uid: SOP Instance UID of the report that it is made from: another version has another one.
        device_uid: of the method; `device_serial` of the node.
        created: when the result was made.
        study_date, study_time: as in the images (DA, TM), `time_zone` as "+0100"; each "" where it is not known.
        withdrawn: readings of earlier versions that this one does not have any more.
        synthetic: whether the risk comes from the synthetic demonstration model, which everything must say.
        pdf: the report to look at, where there is one.
    """

    study_uid: str
    document_uid: str
    device_uid: str
    device_serial: str
    software: str
    created: datetime
    study_date: str
    study_time: str
    time_zone: str
    patient: PatientIdentity = field(repr=False)
    orders: tuple[OrderNumbers, ...]
    procedure: Code
    refused: bool
    readings: tuple[Reading, ...]
    withdrawn: tuple[Reading, ...]
    remarks: tuple[Remark, ...]
    synthetic: bool
    pdf: bytes | None = field(default=None, repr=False)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What each single number has to say of itself, as it may be shown alone."""
        return (DEMO, RESEARCH_USE) if self.synthetic else (RESEARCH_USE,)


def compose(
    findings: Findings,
    first: Dataset,
    measured: Sequence[Dataset],
    earlier: Sequence[Dataset] = (),
    pdf: bytes | None = None,
) -> ReportMessage:
    """Return the result that these reports hold. All of them are as read from files.

    Args:
        findings: that the reports were made from.
        first: the measurements, or the refusal: whose it is, and what must be said of it.
        measured: the reports whose numbers are wanted.
        earlier: likewise of earlier versions of the study's result.
        pdf: the report to look at.

    Raises:
        UnaddressedError: the patient's identifier cannot be read in the reports' character set.
    """
    readings = {one.key: one for report in measured for one in readings_in(report)}
    gone = {one.key: one for report in earlier for one in readings_in(report) if one.key not in readings}
    remarks = {(one.concept.value, one.text): one for report in (first, *measured) for one in _remarks_in(report)}
    equipment = first.ContributingEquipmentSequence[0]
    return ReportMessage(
        study_uid=str(first.StudyInstanceUID),
        document_uid=str(first.SOPInstanceUID),
        device_uid=str(equipment.DeviceUID),
        device_serial=str(first.get("DeviceSerialNumber") or ""),
        software=str(first.get("SoftwareVersions") or ""),
        created=_created(equipment),
        study_date=str(first.get("StudyDate") or ""),
        study_time=str(first.get("StudyTime") or ""),
        time_zone=str(first.get("TimezoneOffsetFromUTC") or ""),
        patient=patient_in(first),
        orders=orders_in(first),
        procedure=next((_code(item.ConceptCodeSequence) for item in _procedures(first)), codes.CT_OF_CHEST),
        refused=findings.status == "refused",
        readings=tuple(readings.values()),
        withdrawn=tuple(gone.values()),
        remarks=tuple(remarks.values()),
        synthetic=is_demo(findings),
        pdf=pdf,
    )


def readings_in(report: Dataset) -> Iterator[Reading]:
    """Yield the numbers of a structured report, in its order."""
    study_uid = str(report.StudyInstanceUID)
    for group in _below(report):
        if group.ValueType != "CONTAINER" or _named(group) != _GROUP:
            continue
        site = _text(group, _TRACKING_IDENTIFIER)
        place = _child(group, _FINDING_SITE)
        for item in _below(group):
            if item.ValueType != "NUM" or not item.get("MeasuredValueSequence"):
                continue
            concept, derivation = _code(item.ConceptNameCodeSequence), _coded(item, _DERIVATION)
            measured = item.MeasuredValueSequence[0]
            parts = (_text(group, _TRACKING_UID) or site, concept.value, derivation.value if derivation else "")
            yield Reading(
                key=uids.derive("reading", study_uid, *parts),
                site=site,
                body_site=None if place is None else _code(place.ConceptCodeSequence),
                laterality=None if place is None else _coded(place, _LATERALITY),
                concept=concept,
                derivation=derivation,
                method=_coded(item, _METHOD),
                value=str(measured.NumericValue),
                unit=_code(measured.MeasurementUnitsCodeSequence),
            )


def _remarks_in(report: Dataset) -> Iterator[Remark]:
    for item in _below(report):
        # Sentences have a concept of ours; texts of the standard's templates (names, versions) are about other items.
        if item.ValueType == "TEXT" and _code(item.ConceptNameCodeSequence).scheme_designator == codes.SCHEME:
            yield Remark(_code(item.ConceptNameCodeSequence), str(item.TextValue))


def _procedures(report: Dataset) -> Iterator[Dataset]:
    return (i for i in report.ContentSequence if _named(i) == codes.PROCEDURE_REPORTED.value)


def _created(equipment: Dataset) -> datetime:
    stated = str(equipment.ContributionDateTime)
    found = datetime.strptime(stated, "%Y%m%d%H%M%S.%f%z")
    return found if found.utcoffset() is not None else found.replace(tzinfo=UTC)


def _below(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _below(child)


def _child(item: Dataset, concept: str) -> Dataset | None:
    return next((c for c in item.get("ContentSequence", ()) if _named(c) == concept), None)


def _named(item: Dataset) -> str:
    named = item.get("ConceptNameCodeSequence")
    return str(named[0].CodeValue) if named else ""


def _text(item: Dataset, concept: str) -> str:
    child = _child(item, concept)
    return "" if child is None else str(child.get("TextValue") or child.get("UID") or "")


def _coded(item: Dataset, concept: str) -> Code | None:
    child = _child(item, concept)
    return None if child is None else _code(child.ConceptCodeSequence)


def _code(sequence: Sequence[Dataset]) -> Code:
    one = sequence[0]
    value = one.get("CodeValue") or one.get("LongCodeValue") or one.get("URNCodeValue") or ""
    return Code(str(value), str(one.get("CodingSchemeDesignator") or ""), str(one.get("CodeMeaning") or ""))
