"""What the measurement report says of the patient's priors besides the change: time point, list, evidence."""

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.analysis.findings import Findings, TrendPoint
from dicomnode.report import codes, uids
from dicomnode.report.comparison import interval
from dicomnode.report.context import MEASUREMENTS
from dicomnode.report.numbers import probability, share, whole
from dicomnode.report.sr import frame


def time_point(findings: Findings) -> hd.sr.TimePointContext | None:
    """TID 1502: which of the known scans this is, counted from the first. None where no prior is known.

    Without a type (CID 6146): whether the first scan was the baseline of anything, the node cannot know. Without the
    order as a number: PixelMed's validator takes it for a measurement in the wrong place.
    """
    if not findings.trend:
        return None
    return hd.sr.TimePointContext(time_point=f"Scan {len(findings.trend) + 1} of the known scans")


def listed(findings: Findings) -> list[hd.sr.ContentItem]:
    """One line for each prior scan, the oldest first, with what was measured then."""
    return [frame.text(codes.PRIOR_SCAN, _line(point, findings)) for point in findings.trend]


def evidence(findings: Findings) -> list[Dataset]:
    """Return references to the prior scans' measurement reports.

    They are of other studies: Pertinent Other Evidence.

    A report that stays in the node is not named: nobody who reads the reference could open it.
    """
    return [_report_of(point) for point in findings.trend if not point.stays_here]


def _report_of(point: TrendPoint) -> Dataset:
    report = Dataset()
    report.StudyInstanceUID = point.study_uid
    report.SeriesInstanceUID = uids.series(MEASUREMENTS, point.study_uid, point)
    report.SOPClassUID = Comprehensive3DSRStorage
    report.SOPInstanceUID = uids.sop_instance(MEASUREMENTS, point.study_uid, point)
    return report


def _line(point: TrendPoint, findings: Findings) -> str:
    values = [f"volume {whole(point.volume_ml)} ml"]
    if point.haa_percent is not None:
        values.append(f"-600 to -250 HU {share(point.haa_percent)} %")
    if point.mean_hu is not None:
        values.append(f"mean {whole(point.mean_hu)} HU")
    if point.horizons and findings.risk is not None and findings.risk.bundle_sha256 == point.bundle_sha256:
        values += [f"risk within {h.years} y {probability(h.probability)} %" for h in point.horizons]
    doubts = f" Not fully comparable: {', '.join(point.doubts)}." if point.doubts else ""
    when = f"{point.study_date}, {interval(point.days_before)} before (study {point.study_uid})"
    return f"{when}: {', '.join(values)}.{doubts}"
