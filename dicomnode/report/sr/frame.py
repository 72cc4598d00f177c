"""The frame that the structured reports share: Comprehensive 3D SR with root TID 1500 (Imaging Measurement Report)."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import highdicom as hd
from highdicom.sr import CodeContentItem, CodedConcept, ContainerContentItem, ContentItem, TextContentItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.analysis.findings import Findings, Flag
from dicomnode.report import codes, source, stamp, uids
from dicomnode.report.context import MANUFACTURER, MEASUREMENTS, MODEL_NAME, REFUSAL, RISK, Context, Kind
from dicomnode.report.wording import flag_line, plain, ranked, warnings, worst
from dicomnode.words.numerals import plural

Group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations | hd.sr.MeasurementsAndQualitativeEvaluations
_Group = TypeVar("_Group", bound=Group)


def document(
    kind: Kind,
    headers: Sequence[Dataset],
    findings: Findings,
    context: Context,
    *,
    groups: Sequence[Group] = (),
    evaluations: Sequence[ContentItem],
    evidence: Sequence[Dataset] = (),
) -> Dataset:
    """One structured report.

    Args:
        kind: which report it is.
        headers: images of the study; the first one gives patient, study and order, and all of them are evidence.
        findings: of these images.
        context: the result's circumstances.
        groups: measurement groups; a report without any (a refusal) has no Imaging Measurements container.
        evaluations: content items of the Qualitative Evaluations container, which the template puts last.
        evidence: further evidence (our own segmentation).
    """
    first = headers[0]
    study_uid = str(first.StudyInstanceUID)
    report = hd.sr.Comprehensive3DSR(
        # highdicom copies what it needs from the first one; of the others it takes the UIDs.
        evidence=[source.placeholder(first), *(source.uids_of(header) for header in headers[1:]), *evidence],
        content=_root(groups, evaluations, findings, context),
        series_instance_uid=uids.series(kind, study_uid, findings),
        series_number=kind.series_number,
        sop_instance_uid=uids.sop_instance(kind, study_uid, findings),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=True,
        is_verified=False,
        previous_versions=_previous(kind, study_uid, context) or None,
    )
    report.CompletionFlagDescription = "Automated; not reviewed"
    report.CodingSchemeIdentificationSequence = [codes.scheme_identification()]
    stamp.finish(report, kind, first, findings, context)
    # After the stamp, which insists on ASCII: the order and the procedure are the source's own words.
    requests = source.requests(first, context.order)
    if requests:
        report.ReferencedRequestSequence = requests
    _report_procedures(report, source.procedures(first, context.order))
    return report


def text(name: Code, value: str) -> TextContentItem:
    """Return a text item for the Qualitative Evaluations container."""
    return TextContentItem(name=name, value=plain(value), relationship_type="CONTAINS")


def summary(outcome: Code) -> CodeContentItem:
    """State the outcome as (111065, DCM, Summary of Analyses).

    Codes stand before texts: rows 13 and 14 of TID 1500.
    """
    return CodeContentItem(name=codes.SUMMARY_OF_ANALYSES, value=outcome, relationship_type="CONTAINS")


def preamble(findings: Findings) -> list[ContentItem]:
    """Return limits of use, then all doubts about this result, the worst first."""
    return [
        *(text(codes.LIMITATIONS, sentence) for sentence in warnings(findings)),
        *(text(codes.FLAG, flag_line(flag)) for flag in ranked(findings.flags)),
    ]


def doubted(group: _Group, flags: Iterable[Flag]) -> _Group:
    """Put the worst of these doubts into a measurement group, before its first number; return the group.

    TID 1411 and 1501 are extensible: the item is one that they do not list.
    """
    doubt = worst(flags)
    if doubt is not None:
        content = group[0].ContentSequence
        first = next((k for k, item in enumerate(content) if item.ValueType == "NUM"), len(content))
        content.insert(first, text(codes.FLAG, flag_line(doubt)))
    return group


def series_used(findings: Findings) -> list[ContentItem]:
    """Which series the numbers come from."""
    if findings.series is None:
        return []
    s = findings.series
    z, y, x = s.spacing_mm
    kernel = f", kernel {s.kernel}" if s.kernel else ""
    value = (
        f"{s.series_uid}: {plural(s.slices, 'slice')}, voxel {x:.2f} x {y:.2f} x {z:.2f} mm (x, y, z){kernel}. "
        f"Chosen because: {s.why_chosen}"
    )
    return [text(codes.SERIES_USED, value)]


def _root(
    groups: Sequence[Group],
    evaluations: Sequence[ContentItem],
    findings: Findings,
    context: Context,
) -> Dataset:
    # highdicom's own class for TID 1500 knows no Qualitative Evaluations and demands measurements.
    root = ContainerContentItem(name=codes.IMAGING_MEASUREMENT_REPORT, template_id="1500")
    observer = hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=CodedConcept.from_code(codes.DEVICE),
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=uids.device(findings.algorithm_digest),
                name=MANUFACTURER,
                manufacturer_name=MANUFACTURER,
                model_name=MODEL_NAME,
                serial_number=plain(context.device_serial),
            ),
        )
    )
    language = hd.sr.LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH))
    procedure = CodeContentItem(
        name=codes.PROCEDURE_REPORTED, value=codes.CT_OF_CHEST, relationship_type="HAS CONCEPT MOD"
    )
    root.ContentSequence = hd.sr.ContentSequence([*language, *observer, procedure])
    doubt = worst(findings.flags) if groups else None
    if doubt is not None:
        # Qualitative Evaluations stand last in TID 1500, after the numbers: the worst doubt must not.
        root.ContentSequence.append(text(codes.FLAG, flag_line(doubt)))
    if groups:
        measurements = ContainerContentItem(name=codes.IMAGING_MEASUREMENTS, relationship_type="CONTAINS")
        measurements.ContentSequence = hd.sr.ContentSequence([item for group in groups for item in group])
        root.ContentSequence.append(measurements)
    qualities = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type="CONTAINS")
    qualities.ContentSequence = hd.sr.ContentSequence(evaluations)
    root.ContentSequence.append(qualities)
    _separate(root)
    return root


def _separate(item: Dataset) -> None:
    """Mark every container as a list of separate statements (PS3.3 C.18.8).

    Of continuous text, which highdicom makes of all of them, readers such as dsr2html print the values without names.
    """
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", ()):
        _separate(child)


def _report_procedures(report: Dataset, procedures: Sequence[Dataset]) -> None:
    """Put the source's procedure codes, as they are, in the place of the CT of the chest."""
    if not procedures:
        return
    items: list[Dataset] = []
    for item in report.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue != codes.PROCEDURE_REPORTED.value:
            items.append(item)
            continue
        for procedure in procedures:
            reported = Dataset()
            reported.RelationshipType, reported.ValueType = item.RelationshipType, item.ValueType
            reported.ConceptNameCodeSequence = [codes.item(codes.PROCEDURE_REPORTED)]
            reported.ConceptCodeSequence = [procedure]
            items.append(reported)
    report.ContentSequence = items


def _previous(kind: Kind, study_uid: str, context: Context) -> list[Dataset]:
    """Return the report that this one replaces: the same kind, or the refusal where the study was refused before."""
    earlier = context.previous
    if earlier is None:
        return []
    if earlier.status == "refused":
        earlier_kind = REFUSAL
    elif kind is REFUSAL:
        earlier_kind = MEASUREMENTS
    elif kind is RISK and earlier.risk is None:
        return []
    else:
        earlier_kind = kind
    reference = Dataset()
    reference.StudyInstanceUID = study_uid
    reference.SeriesInstanceUID = uids.series(earlier_kind, study_uid, earlier)
    reference.SOPClassUID = Comprehensive3DSRStorage
    reference.SOPInstanceUID = uids.sop_instance(earlier_kind, study_uid, earlier)
    return [reference]
