"""Change since a prior scan: arithmetic, which scan it is measured against, and what makes scans incomparable."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.analysis.findings import ChosenSeries, Conditions, Findings, Flag, Lungs, Quantities, VolumeMl
from dicomnode.analysis.measures.change import compare, latest_before, studied_at
from tests.helpers import report_cases as cases


def scan(
    date: str = "20240101", time: str = "120000", uid: str = "1.1", haa: float = 10.0, **series: object
) -> Findings:
    q = Quantities(-800, 150, 2, 5, -950, -920, -850, -700, -400, haa, 2.0)
    defaults = {"manufacturer": "SIEMENS", "manufacturer_model": "Force", "kernel_family": "lung", "contrast": False}
    chosen = ChosenSeries(uid, f"{uid}.1", 300, (1.0, 0.7, 0.7), "Bl57", "thin", study_date=date, study_time=time)
    return Findings(
        status="analysed",
        series=replace(chosen, **(defaults | series)),  # type: ignore[arg-type]
        lungs=Lungs("classical", "2", VolumeMl(4000, 1800, 2200), "morphology"),
        quantities={"lungs": q, "lower_third_rim": replace(q, haa_percent=2 * haa)},
        input_digest=f"digest of {uid}",
        conditions=Conditions(noise_hu=20.0, air_hu=-1000.0),
    )


NOW = scan("20260101", uid="1.9", haa=13.0)


def test_absolute_relative_and_yearly() -> None:
    change = compare(NOW, [scan("20240101", haa=10.0)])
    assert change is not None
    assert change.interval_days == 731
    haa = change.measures["haa_percent"]
    assert (haa.prior, haa.now, haa.absolute, haa.relative_percent) == (10, 13, 3, pytest.approx(30))
    assert haa.per_year == pytest.approx(3 * 365.25 / 731)
    assert change.measures["lower_third_rim.haa_percent"].absolute == 6
    assert change.measures["volume_ml"].absolute == 0
    assert change.measures["mean_hu"].relative_percent == 0
    assert change.flags == ()
    assert change.prior_input_digest == "digest of 1.1"


def test_the_latest_prior_scan_is_taken_and_never_a_later_one() -> None:
    others = [scan("20230101", uid="1.1"), scan("20250601", uid="1.2"), scan("20260601", uid="1.3"), scan(uid="1.4")]
    change = compare(NOW, others)
    assert change is not None
    assert change.prior_study_uid == "1.2"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(scan("20260102"), id="later"),
        pytest.param(scan("20260101", "120000"), id="same-moment"),
        pytest.param(scan("20240101", uid="1.9"), id="same-study"),
        pytest.param(scan(""), id="no-date"),
        pytest.param(Findings("refused"), id="refused"),
    ],
)
def test_what_is_not_earlier_is_not_compared_with(other: Findings) -> None:
    assert compare(NOW, [other]) is None


def test_a_refused_or_undated_scan_has_no_change() -> None:
    assert compare(Findings("refused"), [scan()]) is None
    assert compare(scan("", uid="1.9"), [scan()]) is None


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20251231", "", datetime(2025, 12, 31)),
        ("20251231", "0905", datetime(2025, 12, 31, 9, 5)),
        ("20251231", "090507.123", datetime(2025, 12, 31, 9, 5, 7)),
        ("2025.12.31", "09:05:07", datetime(2025, 12, 31, 9, 5, 7)),
        ("20251231", "ab", datetime(2025, 12, 31)),
        ("20251301", "120000", None),
        ("2025", "120000", None),
    ],
)
def test_dates_as_they_come(date: str, time: str, expected: datetime | None) -> None:
    assert scan(date, time).series is not None
    assert studied_at(scan(date, time).series) == expected  # type: ignore[arg-type]


def test_a_short_interval_gives_no_rate() -> None:
    change = compare(NOW, [scan("20251201")])
    assert change is not None
    assert change.measures["haa_percent"].per_year is None
    assert [flag.code for flag in change.flags] == ["change-interval"]


@pytest.mark.parametrize(
    ("prior", "code"),
    [
        (scan(kernel="Br36", kernel_family="soft"), "change-kernel"),
        (scan(kernel="X", kernel_family="unknown"), "change-kernel"),
        (scan(spacing_mm=(2.0, 0.7, 0.7)), "change-thickness"),
        (scan(slice_thickness_mm=5.0), "change-thickness"),
        (scan(manufacturer_model="Flash"), "change-scanner"),
        (scan(manufacturer=""), "change-scanner"),
        (scan(contrast=True), "change-contrast"),
        (replace(scan(), lungs=Lungs("classical", "2", VolumeMl(4600, 2000, 2600), "morphology")), "change-volume"),
        (replace(scan(), conditions=Conditions(26.1, -1000)), "change-noise"),
        (replace(scan(), lungs=Lungs("lungmask R231", "2", VolumeMl(4000, 1800, 2200), "network")), "change-segmenter"),
        (replace(scan(), flags=(Flag("cut-off-base", "error", ""),)), "change-doubtful"),
    ],
)
def test_what_makes_scans_incomparable_is_flagged_alone(prior: Findings, code: str) -> None:
    change = compare(NOW, [prior])
    assert change is not None
    assert [flag.code for flag in change.flags] == [code]


def test_findings_that_say_nothing_of_contrast_raise_no_doubt() -> None:
    change = compare(NOW, [scan(contrast=None)])
    assert change is not None
    assert change.flags == ()


def test_no_measure_without_both_and_no_relative_change_from_zero() -> None:
    before = scan(haa=0.0)
    before = replace(before, quantities={"lungs": before.quantities["lungs"]})
    change = compare(NOW, [before])
    assert change is not None
    assert change.measures["haa_percent"].relative_percent is None
    assert "lower_third_rim.haa_percent" not in change.measures


@given(st.lists(st.integers(-2000, 2000), max_size=8))
def test_whatever_scans_there_are_the_latest_before_is_found(days: list[int]) -> None:
    today = datetime(2026, 1, 1, 12)
    others = [scan((today + timedelta(d)).strftime("%Y%m%d"), uid=f"2.{i}") for i, d in enumerate(days)]
    before = [d for d in days if d < 0]
    found = latest_before(NOW, others)
    assert (found is None) == (not before)
    if found is not None:
        assert found.series is not None
        assert studied_at(found.series) == today + timedelta(max(before))


def test_findings_keep_their_change_in_json() -> None:
    whole = replace(NOW, change=compare(NOW, [scan("20251201")]))
    assert Findings.from_json(whole.to_json()) == whole
    assert Findings.from_json(NOW.to_json()).change is None


def test_a_change_under_its_former_keys_is_read_and_keeps_its_version() -> None:
    """`findings.json` is kept for ten years, and the UIDs of the reports that were sent derive from the version."""
    flags = (Flag("change-scanner", "warning", "Another scanner: A, now B."),)  # the words of then
    followed = replace(cases.analysed(), change=replace(cases.changed(), flags=flags), trend=cases.scanned_before(2))
    former = followed.to_json().replace('"prior', '"earlier')
    assert former.count('"earlier"') == len(cases.changed().measures) and former.count('"earlier_') == 5
    assert Findings.from_json(former) == followed
    sent = "448780b9af828abc33bb540237a6a9361b8adef5ed19514c8314675060779856"  # as version 0.1.0 made it of "earlier"
    assert followed.version[-1] == sent
