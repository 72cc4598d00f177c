"""The measurements as a structured report: TID 1500 with one TID 1411 group for each lung, lobe, and both lungs."""

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.findings import Change, Findings, Lungs, Quantities
from dicomnode.report import codes, source, uids
from dicomnode.report.context import MANUFACTURER, MEASUREMENTS, Context
from dicomnode.report.sr import frame, prior_scans
from dicomnode.report.structures import LOBES_OF_LUNG, LUNGS, segments
from dicomnode.report.wording import plain


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
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
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
    return [hd.sr.Measurement(codes.LEFT_OUT, round(value, 1), codes.CUBIC_CENTIMETRE)]


def _measurements(volume_ml: float, q: Quantities) -> list[hd.sr.Measurement]:
    """Volume first, then the percentages that readers of interstitial disease look for, then the attenuation."""
    return [
        hd.sr.Measurement(codes.VOLUME, round(volume_ml, 1), codes.CUBIC_CENTIMETRE, method=codes.SUM_OF_VOXELS),
        hd.sr.Measurement(codes.HIGH_ATTENUATION, round(q.haa_percent, 2), codes.PERCENT),
        *(
            []
            if q.dense_percent is None
            else [hd.sr.Measurement(codes.DENSE, round(q.dense_percent, 2), codes.PERCENT)]
        ),
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
    """Change since the prior study, and per year where the interval allows. Rows of this study's own time point."""
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
    comparable = doubts or "Comparable, judging by headers and lung volumes."
    words = f"Changes since study {change.prior_study_uid}, {change.interval_days:.0f} days before. {comparable}"
    return [frame.text(codes.COMPARED_WITH, words)]


def _attenuation(hu: float, derivation: Code) -> hd.sr.Measurement:
    return hd.sr.Measurement(codes.ATTENUATION, round(hu, 1), codes.HOUNSFIELD, derivation=derivation)


def _note_on_radiomics(findings: Findings) -> list[hd.sr.ContentItem]:
    # A hundred texture features for each region would bury what a radiologist reads, and they mean nothing without the
    # settings that made them, for which PS3.16 has no place.
    if findings.radiomics is None:
        return []
    count = sum(len(features) for features in findings.radiomics.features.values())
    note = f"{count} radiomics features were computed; they are stored on the node and not listed here."
    return [frame.text(codes.NOTE, note)]
