"""The change in words: points, per cent, rate, and how far repeated scans differ."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert "high attenuation is unchanged (12.5 %)" in sentence(changed(haa_percent=delta(12.51, 12.49)))
    assert sentence(changed()).endswith("nothing that was measured can be compared.")


def test_short_intervals_have_no_rate() -> None:
    change = changed(haa_percent=replace(delta(10, 12), per_year=None))
    assert "a year" not in sentence(change)
    assert "a year" not in next(comparisons(change)).line


def test_dates_and_intervals() -> None:
    assert (day("20260131"), day("2026.01.31"), day("odd")) == ("2026-01-31", "2026-01-31", "odd")
    assert (interval(30), interval(731)) == ("30 days", "2.0 years")
    assert (interval(1.2), interval(0.3)) == ("1 day", "less than a day")


@pytest.mark.parametrize(
    ("name", "old", "new", "said", "line"),
    [
        # Less than what is written: neither «rose by 0.0 points» nor two numbers that look the same and differ.
        ("haa_percent", 12.449, 12.451, "differs by <0.1 points (12.4, now 12.5 %)", "<0.1 points, 12.4 → 12.5 %"),
        ("haa_percent", 12.551, 12.649, "unchanged (12.6 %)", "unchanged, 12.6 → 12.6 %"),
        ("volume_ml", 4800.0, 4799.6, "unchanged (4800 ml)", "unchanged, 4800 → 4800 ml"),
        # A slow change has a rate, and a small one a share.
        ("haa_percent", 12.4, 12.5, "rose by 0.1 points from 12.4 to 12.5 %", "+0.1 points, 12.4 → 12.5 %"),
        ("volume_ml", 4800.0, 4805.0, "rose by 5 ml from 4800 to 4805 ml", "+5 ml (<1 %), 4800 → 4805 ml"),
    ],
)
def test_what_a_reader_sees_does_not_contradict_itself(name: str, old: float, new: float, said: str, line: str) -> None:
    change = changed(**{name: delta(old, new)})
    assert said in sentence(change)
    (comparison,) = comparisons(change)
    assert line in comparison.line
    assert " 0.0 points" not in comparison.line + sentence(change)
    assert not re.search(r"\b0 ml", comparison.line + sentence(change))


def test_a_slow_change_has_a_rate() -> None:
    change = changed(haa_percent=delta(12.0, 12.2, years=10))
    assert ", <0.1 points a year" in sentence(change)
    assert "(<0.1 points a year)" in next(comparisons(change)).line


@pytest.mark.parametrize(("ml", "where"), [(415.2, "within"), (-415.4, "within"), (415.6, "beyond"), (414.0, "within")])
def test_a_change_is_held_against_the_repeatability_as_both_are_written(ml: float, where: str) -> None:
    change = changed(volume_ml=delta(4000.0, 4000.0 + ml))
    assert f"{where} the 415 ml that repeated scans differ by" in sentence(change)
    assert f"{where} the repeatability of 415 ml" in next(comparisons(change)).line


NAMES = ["haa_percent", "volume_ml", "laa950_percent", "mean_hu"]


@given(st.sampled_from(NAMES), st.floats(0, 90), st.floats(0, 90))
def test_no_sentence_rises_by_nothing(name: str, old: float, new: float) -> None:
    change = changed(**{name: Delta(old, new, new - old, None, (new - old) / 2)})
    told = sentence(change) + "".join(one.line for one in comparisons(change))
    assert not re.search(r"(by|[+-])0(\.0)? (points|ml|HU)|\b1 days|-0(\.0)? ", told)
