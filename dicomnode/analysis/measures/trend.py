"""A patient's prior scans as points over time, for the trend plot and the reports. Pure: findings in, points out."""

from collections.abc import Sequence

from dicomnode.analysis.findings import Findings, TrendPoint
from dicomnode.analysis.measures.change import before, doubts, studied_at


def trend(findings: Findings, priors: Sequence[Findings]) -> tuple[TrendPoint, ...]:
    """Return the prior scans of the same patient, the oldest first; empty where none lies before this one.

    Args:
        findings: of this scan.
        priors: findings of other scans of the same patient, in any order (`change.compare` has the same).
    """
    if findings.series is None or findings.lungs is None or (now := studied_at(findings.series)) is None:
        return ()
    return tuple(_point(e, findings, (now - then).total_seconds() / 86400) for then, e in before(findings, priors))


def _point(prior: Findings, now: Findings, days: float) -> TrendPoint:
    assert prior.series is not None
    assert prior.lungs is not None
    lungs, risk = prior.quantities.get("lungs"), prior.risk
    return TrendPoint(
        study_uid=prior.series.study_uid,
        series_uid=prior.series.series_uid,
        study_date=prior.series.study_date,
        days_before=round(days, 3),
        volume_ml=prior.lungs.volume_ml.total,
        haa_percent=None if lungs is None else lungs.haa_percent,
        mean_hu=None if lungs is None else lungs.mean_hu,
        horizons=() if risk is None else risk.horizons,
        bundle_sha256="" if risk is None else risk.bundle_sha256,
        doubts=tuple(flag.code for flag in doubts(prior, now, days) if flag.severity != "info"),
        version=prior.version,
    )
