"""The change in words: points, per cent, rate, and how far repeated scans differ."""

from dataclasses import replace

from dicomnode.analysis.findings import Change, Delta
from dicomnode.report.comparison import comparisons, day, interval, sentence
from dicomnode.report.published import REPEATABILITY
from tests.helpers import report_cases as cases


def delta(old: float, new: float, years: float = 2.0) -> Delta:
    return Delta(old, new, new - old, 100 * (new - old) / abs(old), (new - old) / years)


def changed(**measures: Delta) -> Change:
    return replace(cases.changed(731), measures=measures, flags=())


def test_points_and_per_cent_are_told_apart() -> None:
    lines = {c.name: c.line for c in comparisons(changed(haa_percent=delta(11.9, 21.7), volume_ml=delta(4800, 4560)))}
    assert lines["haa_percent"] == (
        "High attenuation (-600 to -250 HU): +9.8 points, 11.9 → 21.7 % (+4.9 points a year); "
        "repeatability not published"
    )
    assert lines["volume_ml"] == (
        "Lung volume: -240 ml (-5 %), 4800 → 4560 ml (-120 ml a year); within the repeatability of 415 ml"
    )


def test_a_change_beyond_repeatability_is_called_so() -> None:
    (line,) = [c.line for c in comparisons(changed(laa950_percent=delta(1.0, 4.0)))]
    assert line.endswith("beyond the repeatability of 1.6 points")
    assert REPEATABILITY["laa950_percent"] == 1.6


def test_the_comparison_is_one_sentence() -> None:
    said = sentence(changed(haa_percent=delta(11.9, 21.7), volume_ml=delta(4800, 4560)))
    assert said == (
        "Compared with the study of 2025-01-01 (2.0 years before), high attenuation rose by 9.8 points from 11.9 to "
        "21.7 %, 4.9 points a year; lung volume fell by 240 ml from 4800 to 4560 ml, 120 ml a year, within the 415 ml "
        "that repeated scans differ by."
    )


def test_scans_that_cannot_be_compared_are_named_so() -> None:
    said = sentence(cases.changed(731))
    assert said.endswith("NOT FULLY COMPARABLE: Different scanner: was A, now B.")


def test_nothing_changed_and_nothing_measured() -> None:
    assert "high attenuation is the same (12.5 %)" in sentence(changed(haa_percent=delta(12.51, 12.49)))
    assert sentence(changed()).endswith("nothing that was measured can be compared.")


def test_short_intervals_have_no_rate() -> None:
    change = changed(haa_percent=replace(delta(10, 12), per_year=None))
    assert "a year" not in sentence(change)
    assert "a year" not in next(comparisons(change)).line


def test_dates_and_intervals() -> None:
    assert (day("20260131"), day("2026.01.31"), day("odd")) == ("2026-01-31", "2026-01-31", "odd")
    assert (interval(30), interval(731)) == ("30 days", "2.0 years")
