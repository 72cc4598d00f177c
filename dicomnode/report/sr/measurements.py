"""The measurements as a structured report: TID 1500 with one TID 1411 group for each lung, lobe, and both lungs."""

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.findings import Change, Findings, Lungs, Quantities
from dicomnode.report import codes, source, uids
from dicomnode.report.comparison import comparisons, interval, sentence
from dicomnode.report.context import MANUFACTURER, MEASUREMENTS, Context
from dicomnode.report.published import REPEATABILITY_SOURCE
from dicomnode.report.sr import frame, prior_scans
from dicomnode.report.sr.key_images import illustrate
from dicomnode.report.sr.numeric import measured, percentage
from dicomnode.report.structures import LOBES_OF_LUNG, LUNGS, segments
from dicomnode.report.wording import plain
from dicomnode.words.numerals import plural


def encode(headers: Sequence[Dataset], findings: Findings, seg: Dataset, context: Context) -> Dataset:
    """Return the measurements of one analysis, each group referring to its segments in `seg`.

    Raises:
        ValueError: the findings hold no lungs, or no quantities of them.
    """
    lungs = findings.lungs
    if lungs is None:
        raise ValueError(f"no measurements to encode: the findings ({findings.status}) have no lungs")
    if "lungs" not in findings.quantities or not findings.quantities.keys() & LUNGS.keys():
        raise ValueError("the findings have no quantities of the lungs")
    stopped = findings.risk is None and any(flag.severity == "error" for flag in findings.flags)
    return frame.document(
        MEASUREMENTS,
        headers,
        findings,
        context,
        groups=[_group(site, headers[0], seg, findings, lungs) for site in _sites(findings)],
        evaluations=[
            frame.summary(codes.PARTIALLY_SUCCEEDED if stopped else codes.SUCCEEDED),
            *frame.preamble(findings),
            *frame.series_used(findings),
            *_compared_with(findings.change),
            *prior_scans.listed(findings),
            *_note_on_radiomics(findings),
        ],
        evidence=[seg, *prior_scans.evidence(findings)],
    )


@dataclass(frozen=True)
class _Site:
    """What one group measures: its name in the quantities, and where in the body and in the segmentation it is."""

    region: str
    structure: uids.Structure
    kind: Code
    laterality: Code
    segments: list[int]


def _sites(findings: Findings) -> list[_Site]:
    """Each lung, the lungs, each lobe: as far as the patient has them.

    TID 1411 asks for one reference to a segmentation, and Referenced Segment Number may have several values (PS3.3
    C.18.4): both lungs together are two segments, without a third copy of the voxels in the segmentation, and without
    TID 1501, which PixelMed's validator rejects beside TID 1411.
    """
    numbers = segments(findings)
    lungs, lobes = (
        [_Site(name, s.name, s.kind, s.laterality, [numbers[name]]) for name, s in found.items() if name in numbers]
        for found in (LUNGS, LOBES_OF_LUNG)
    )
    laterality = codes.BILATERAL if len(lungs) > 1 else lungs[0].laterality
    both = _Site("lungs", "lungs", codes.LUNG, laterality, [number for lung in lungs for number in lung.segments])
    return [*lungs, both, *lobes]


def _group(
    site: _Site, header: Dataset, seg: Dataset, findings: Findings, lungs: Lungs
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uids.tracking(source.patient_key(header), site.structure), identifier=site.structure.capitalize()
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            # highdicom says int and passes the value on to an element that may have several.
            segment_number=site.segments,  # type: ignore[arg-type]
            source_series=hd.sr.SourceSeriesForSegmentation(
                referenced_series_instance_uid=str(header.SeriesInstanceUID)
            ),
        ),
        finding_category=codes.ANATOMICAL_STRUCTURE,
        finding_type=site.kind,
        finding_sites=[hd.sr.FindingSite(anatomic_location=site.kind, laterality=site.laterality)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=plain(lungs.segmenter),
            version=plain(lungs.segmenter_version),
            manufacturer=MANUFACTURER,
            family=codes.ALGORITHM_FAMILIES[lungs.family],
            parameters=[
                f"Measured by dicomnode {plain(findings.software_version)}; vessels included as segmented",
                _depends_on(findings),
            ],
        ),
        time_point_context=prior_scans.time_point(findings),
        measurements=[
            *_measurements(_volume_ml(site.region, findings, lungs), findings.quantities[site.region]),
            *_left_out(site.region, lungs),
            *([*_of_parts(findings), *_of_change(findings.change)] if site.region == "lungs" else ()),
        ],
    )
    illustrate(group, seg, site.segments)
    doubts = findings.flags
    if site.region == "lungs" and findings.change is not None:
        doubts += findings.change.flags
    return frame.doubted(group, doubts)


def _depends_on(findings: Findings) -> str:
    """Say what the attenuation depends on: kernel, thickness, noise and air."""
    series, found = findings.series, findings.conditions
    assert series is not None, "only of an analysed study"
    thickness = series.slice_thickness_mm or series.spacing_mm[0]
    measured = "not measured" if found is None else f"{found.noise_hu:.1f} HU, air {found.air_hu:.0f} HU"
    return (
        f"Kernel {plain(series.kernel) or 'not given'} ({series.kernel_family}), {thickness:.2f} mm thick; "
        f"noise in the airways {measured}"
    )


def _volume_ml(region: str, findings: Findings, lungs: Lungs) -> float:
    volume = lungs.volume_ml
    known = {"right": volume.right, "left": volume.left, "lungs": volume.total}
    return known[region] if region in known else findings.quantities[region].volume_ml or 0.0


def _left_out(region: str, lungs: Lungs) -> list[hd.sr.Measurement]:
    ml = lungs.left_out_ml
    if ml is None or region not in {"right", "left", "lungs"}:
        return []
    value = {"right": ml.right, "left": ml.left, "lungs": ml.total}[region]
    return [measured(codes.LEFT_OUT, value, codes.CUBIC_CENTIMETRE)]


def _measurements(volume_ml: float, q: Quantities) -> list[hd.sr.Measurement]:
    """Volume first, then the percentages that readers of interstitial disease look for, then the attenuation."""
    hounsfield = codes.HOUNSFIELD
    return [
        measured(codes.VOLUME, volume_ml, codes.CUBIC_CENTIMETRE, method=codes.SUM_OF_VOXELS),
        percentage(codes.HIGH_ATTENUATION, q.haa_percent),
        *([] if q.dense_percent is None else [percentage(codes.DENSE, q.dense_percent)]),
        percentage(codes.LOW_ATTENUATION, q.laa950_percent),
        measured(codes.ATTENUATION, q.mean_hu, hounsfield, derivation=codes.MEAN),
        measured(codes.ATTENUATION, q.sd_hu, hounsfield, derivation=codes.STANDARD_DEVIATION),
        measured(codes.PERCENTILE_5, q.p05_hu, hounsfield),
        measured(codes.PERCENTILE_15, q.p15_hu, hounsfield),
        measured(codes.ATTENUATION, q.p50_hu, hounsfield, derivation=codes.MEDIAN),
        measured(codes.PERCENTILE_85, q.p85_hu, hounsfield),
        measured(codes.PERCENTILE_95, q.p95_hu, hounsfield),
        measured(codes.ATTENUATION, q.skewness, codes.NO_UNITS, decimals=2, derivation=codes.SKEWNESS),
        measured(codes.ATTENUATION, q.kurtosis, codes.NO_UNITS, decimals=2, derivation=codes.KURTOSIS),
    ]


def _of_parts(findings: Findings) -> list[hd.sr.Measurement]:
    """Thirds, rim and core of both lungs: where the disease is. All numbers of them are in the findings."""
    rows = []
    for region in codes.REGIONS:
        q = findings.quantities.get(region)
        if q is not None:
            rows += [
                percentage(codes.REGIONAL_HIGH_ATTENUATION[region], q.haa_percent),
                percentage(codes.REGIONAL_LOW_ATTENUATION[region], q.laa950_percent),
                measured(codes.REGIONAL_MEAN[region], q.mean_hu, codes.HOUNSFIELD),
            ]
    return rows


def _of_change(change: Change | None) -> list[hd.sr.Measurement]:
    """Change since the prior study, and per year where the interval allows. Rows of this study's own time point."""
    if change is None:
        return []
    rows = [measured(codes.CHANGE_INTERVAL, change.interval_days, codes.DAY)]
    for name, (concept, yearly, unit, unit_a_year) in codes.CHANGE.items():
        delta, decimals = change.measures.get(name), 1 if unit == codes.PERCENT else 0
        if delta is not None:
            rows.append(measured(concept, delta.absolute, unit, decimals=decimals))
        if delta is not None and delta.per_year is not None:
            rows.append(measured(yearly, delta.per_year, unit_a_year, decimals=decimals))
    return rows


def _compared_with(change: Change | None) -> list[hd.sr.ContentItem]:
    if change is None:
        return []
    doubts = " ".join(f"{flag.severity.upper()}: {flag.text}" for flag in change.flags)
    comparable = doubts or "Comparable, judging by headers and lung volumes."
    words = f"Changes since study {change.prior_study_uid}, {interval(change.interval_days)} before. {comparable}"
    return [
        frame.text(codes.CHANGE_IN_WORDS, sentence(change)),
        frame.text(codes.COMPARED_WITH, words),
        *(frame.text(codes.CHANGE_IN_WORDS, one.line) for one in comparisons(change)),
        frame.text(codes.REPEATABILITY, REPEATABILITY_SOURCE),
    ]


def _note_on_radiomics(findings: Findings) -> list[hd.sr.ContentItem]:
    # A hundred texture features for each region would bury what a radiologist reads, and they mean nothing without the
    # settings that made them, for which PS3.16 has no place.
    if findings.radiomics is None:
        return []
    count = sum(len(features) for features in findings.radiomics.features.values())
    note = f"{plural(count, 'radiomics feature')} computed: stored on the node, not listed here."
    return [frame.text(codes.NOTE, note)]
