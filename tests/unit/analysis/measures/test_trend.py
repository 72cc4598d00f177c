"""A patient's scans over time."""

from dataclasses import replace

from dicomnode.analysis.findings import Findings, Flag, Lungs, TrendPoint, VolumeMl
from dicomnode.analysis.measures.trend import trend
from tests.helpers import report_cases as cases


def scan(date: str, uid: str, volume_ml: float = 4000.0) -> Findings:
    found = cases.analysed(study_uid=uid, predicted=cases.risk("research"))
    assert found.series is not None
    return replace(
        found,
        series=replace(found.series, study_date=date, study_time="100000"),
        lungs=Lungs("classical", "1", VolumeMl(volume_ml, volume_ml / 2, volume_ml / 2), "morphology"),
        flags=(),
        input_digest=f"digest of {uid}",
    )


NOW = scan("20260101", "1.9")


def test_prior_scans_in_their_order_and_no_later_ones() -> None:
    others = [scan("20250101", "1.2"), scan("20270101", "1.3"), scan("20240101", "1.1"), NOW, Findings("refused")]
    points = trend(NOW, others)
    assert [(p.study_uid, p.study_date, p.days_before) for p in points] == [
        ("1.1", "20240101", 731.0),
        ("1.2", "20250101", 365.0),
    ]
    first, second = points
    assert (first.volume_ml, first.haa_percent, first.mean_hu) == (4000.0, 12.5, -800.0)
    assert first.horizons == cases.risk().horizons
    assert first.version == others[2].version != second.version


def test_each_scan_is_judged_against_this_one() -> None:
    deeper = scan("20240101", "1.1", volume_ml=5000.0)
    doubtful = replace(scan("20250101", "1.2"), flags=(Flag("cut-off-base", "error", ""),))
    recent = scan("20251201", "1.3")
    assert [p.doubts for p in trend(NOW, [deeper, doubtful, recent])] == [("change-volume",), ("change-doubtful",), ()]


def test_without_numbers_there_are_none() -> None:
    bare = replace(scan("20240101", "1.1"), quantities={}, risk=None)
    (point,) = trend(NOW, [bare])
    assert (point.haa_percent, point.mean_hu, point.horizons, point.bundle_sha256) == (None, None, (), "")


def test_what_cannot_be_compared_has_no_trend() -> None:
    assert trend(NOW, []) == trend(Findings("refused"), [NOW]) == trend(scan("", "1.8"), [NOW]) == ()


def test_findings_keep_their_trend_in_json() -> None:
    whole = replace(NOW, change=cases.changed(), trend=trend(NOW, [scan("20240101", "1.1", 5000.0)]))
    assert Findings.from_json(whole.to_json()) == whole
    assert isinstance(whole.trend[0], TrendPoint)
