"""The lung measurements as a structured report: TID 1500 with one TID 1411 group for each region."""

from collections.abc import Sequence
from typing import Final

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.findings import Change, Findings, Lungs, Quantities
from dicomnode.report import codes, documents, earlier_scans, source, uids
from dicomnode.report.context import MANUFACTURER, MEASUREMENTS, Context
from dicomnode.report.segmentation import algorithm_family
from dicomnode.report.wording import plain

# Region: (structure, laterality, segments). TID 1411 asks for one reference to a segmentation, and Referenced Segment
# Number may have several values (PS3.3 C.18.4): both lungs together are segments 1 and 2, without a third copy of the
# voxels in the segmentation, and without TID 1501, which PixelMed's validator rejects beside TID 1411.
_REGIONS: Final[dict[str, tuple[uids.Structure, Code, list[int]]]] = {
    "right": ("right lung", codes.RIGHT, [RIGHT]),
    "left": ("left lung", codes.LEFT, [LEFT]),
    "lungs": ("lungs", codes.BILATERAL, [RIGHT, LEFT]),
}


def encode(headers: Sequence[Dataset], findings: Findings, seg: Dataset, context: Context) -> Dataset:
    """The measurements of one analysis, each group referring to its segments in `seg`.

    Raises:
        ValueError: the findings hold no lungs, or no quantities of a region.
    """
    lungs = findings.lungs
    if lungs is None:
        raise ValueError(f"no measurements to encode: the findings ({findings.status}) hold no lungs")
    missing = sorted(_REGIONS.keys() - findings.quantities.keys())
    if missing:
        raise ValueError(f"the findings hold no quantities of {', '.join(missing)}")
    stopped = findings.risk is None and any(flag.severity == "error" for flag in findings.flags)
    return documents.document(
        MEASUREMENTS,
        headers,
        findings,
        context,
        groups=[_group(region, headers[0], seg, findings, lungs) for region in _REGIONS],
        evaluations=[
            documents.summary(codes.PARTIALLY_SUCCEEDED if stopped else codes.SUCCEEDED),
            *documents.preamble(findings),
            *documents.series_used(findings),
            *_compared_with(findings.change),
            *earlier_scans.listed(findings),
            *_note_on_radiomics(findings),
        ],
        evidence=[seg, *earlier_scans.evidence(findings)],
    )


def _group(
    region: str, header: Dataset, seg: Dataset, findings: Findings, lungs: Lungs
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    structure, laterality, segments = _REGIONS[region]
    volume = {"right": lungs.volume_ml.right, "left": lungs.volume_ml.left, "lungs": lungs.volume_ml.total}[region]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uids.tracking(source.patient_key(header), structure), identifier=structure.capitalize()
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            # highdicom says int and passes the value on to an element that may have several.
            segment_number=segments,  # type: ignore[arg-type]
            source_series=hd.sr.SourceSeriesForSegmentation(
                referenced_series_instance_uid=str(header.SeriesInstanceUID)
            ),
        ),
        finding_category=codes.ANATOMICAL_STRUCTURE,
        finding_type=codes.LUNG,
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.LUNG, laterality=laterality)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=plain(lungs.segmenter),
            version=plain(lungs.segmenter_version),
            manufacturer=MANUFACTURER,
            family=algorithm_family(lungs),
            parameters=[f"Measured by dicomnode {plain(findings.software_version)}; vessels as the mask has them"],
        ),
        time_point_context=earlier_scans.time_point(findings),
        measurements=[
            *_measurements(volume, findings.quantities[region]),
            *([*_of_parts(findings), *_of_change(findings.change)] if region == "lungs" else ()),
        ],
    )


def _measurements(volume_ml: float, q: Quantities) -> list[hd.sr.Measurement]:
    """Volume first, then the two percentages that readers of interstitial disease look for, then the attenuation."""
    return [
        hd.sr.Measurement(codes.VOLUME, round(volume_ml, 1), codes.CUBIC_CENTIMETRE, method=codes.SUM_OF_VOXELS),
        hd.sr.Measurement(codes.HIGH_ATTENUATION, round(q.haa_percent, 2), codes.PERCENT),
        hd.sr.Measurement(codes.LOW_ATTENUATION, round(q.laa950_percent, 2), codes.PERCENT),
        _attenuation(q.mean_hu, codes.MEAN),
        _attenuation(q.sd_hu, codes.STANDARD_DEVIATION),
        hd.sr.Measurement(codes.PERCENTILE_5, round(q.p05_hu, 1), codes.HOUNSFIELD),
        hd.sr.Measurement(codes.PERCENTILE_15, round(q.p15_hu, 1), codes.HOUNSFIELD),
        _attenuation(q.p50_hu, codes.MEDIAN),
        hd.sr.Measurement(codes.PERCENTILE_85, round(q.p85_hu, 1), codes.HOUNSFIELD),
        hd.sr.Measurement(codes.PERCENTILE_95, round(q.p95_hu, 1), codes.HOUNSFIELD),
        hd.sr.Measurement(codes.ATTENUATION, round(q.skewness, 3), codes.NO_UNITS, derivation=codes.SKEWNESS),
        hd.sr.Measurement(codes.ATTENUATION, round(q.kurtosis, 3), codes.NO_UNITS, derivation=codes.KURTOSIS),
    ]


def _of_parts(findings: Findings) -> list[hd.sr.Measurement]:
    """Thirds, rim and core of both lungs: where the disease is. All numbers of them are in the findings."""
    rows = []
    for region in codes.REGIONS:
        q = findings.quantities.get(region)
        if q is not None:
            rows += [
                hd.sr.Measurement(codes.REGIONAL_HIGH_ATTENUATION[region], round(q.haa_percent, 2), codes.PERCENT),
                hd.sr.Measurement(codes.REGIONAL_LOW_ATTENUATION[region], round(q.laa950_percent, 2), codes.PERCENT),
                hd.sr.Measurement(codes.REGIONAL_MEAN[region], round(q.mean_hu, 1), codes.HOUNSFIELD),
            ]
    return rows


def _of_change(change: Change | None) -> list[hd.sr.Measurement]:
    """Change since the earlier study, and per year where the interval allows. Rows of this study's own time point."""
    if change is None:
        return []
    rows = [hd.sr.Measurement(codes.CHANGE_INTERVAL, round(change.interval_days, 1), codes.DAY)]
    for name, (concept, yearly, unit, unit_a_year) in codes.CHANGE.items():
        delta = change.measures.get(name)
        if delta is not None:
            rows.append(hd.sr.Measurement(concept, round(delta.absolute, 2), unit))
        if delta is not None and delta.per_year is not None:
            rows.append(hd.sr.Measurement(yearly, round(delta.per_year, 2), unit_a_year))
    return rows


def _compared_with(change: Change | None) -> list[hd.sr.ContentItem]:
    if change is None:
        return []
    doubts = " ".join(f"{flag.severity.upper()}: {flag.text}" for flag in change.flags)
    comparable = doubts or "The two scans are comparable as far as their headers and lung volumes tell."
    words = f"Changes since study {change.earlier_study_uid}, {change.interval_days:.0f} days before. {comparable}"
    return [documents.text(codes.COMPARED_WITH, words)]


def _attenuation(hu: float, derivation: Code) -> hd.sr.Measurement:
    return hd.sr.Measurement(codes.ATTENUATION, round(hu, 1), codes.HOUNSFIELD, derivation=derivation)


def _note_on_radiomics(findings: Findings) -> list[hd.sr.ContentItem]:
    # A hundred texture features for each region would bury what a radiologist reads, and they mean nothing without the
    # settings that made them, for which PS3.16 has no place.
    if findings.radiomics is None:
        return []
    count = sum(len(features) for features in findings.radiomics.features.values())
    note = f"{count} radiomics features were computed; they are kept with the findings on the node and not listed here."
    return [documents.text(codes.NOTE, note)]
