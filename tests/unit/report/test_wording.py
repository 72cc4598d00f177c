"""The words in the objects: ASCII, short enough, and the warnings first."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.analysis.findings import PopulationDistance
from dicomnode.report import context
from dicomnode.report.wording import DEMO, describe, is_demo, made_from, plain, warnings
from tests.helpers import report_cases as cases

KINDS = [context.SEGMENTATION, context.MEASUREMENTS, context.RISK, context.SUMMARY, context.REFUSAL, context.PDF]


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("slices ≥ 5 mm \N{EN DASH} too thick", "slices >= 5 mm - too thick"),
        ("Küche «x» 10°", 'Kuche "x" 10 degrees'),
        ("a\\b~c", "a/b-c"),
        ("日本", "??"),
        ("two\nlines", "two lines"),
    ],
)
def test_text_becomes_ascii(given_text: str, expected: str) -> None:
    assert plain(given_text) == expected


@given(st.text())
def test_any_text_becomes_printable_ascii(text: str) -> None:
    result = plain(text)
    assert result.isascii()
    assert result.isprintable()
    assert "\\" not in result


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("use", ["synthetic-demo", "research"])
def test_descriptions_fit_and_say_what_this_is(kind: context.Kind, use: str) -> None:
    findings = cases.analysed(predicted=cases.risk(use))  # type: ignore[arg-type]
    description = describe(kind.label, findings)
    assert len(description) <= 64
    assert "research use only" in description
    assert (DEMO in description) == (use == "synthetic-demo")
    for version, number, older in ((2, "v2", "v1"), (99, "v99", "v98"), (100, "new", "old"), (99999, "new", "old")):
        replacing = describe(kind.label, findings, version)
        assert len(replacing) <= 64
        assert f" {number}, replaces {older}: " in replacing
        assert ("research use only" in replacing) or (DEMO in replacing)


def test_without_a_risk_nothing_is_a_demo() -> None:
    assert not is_demo(cases.analysed())
    assert warnings(cases.analysed())[0].startswith("Research use only")
    assert warnings(cases.analysed(predicted=cases.risk()))[0].startswith(DEMO)


@pytest.mark.parametrize(
    ("disease", "site", "said"),
    [
        ("", "", ()),
        ("asthma", "", ("The risk model was made from patients with asthma.",)),
        ("", "Köln", ("The risk model was recalibrated to Koln.",)),
        ("asthma", "B", ("The risk model was made from patients with asthma and was recalibrated to B.",)),
    ],
)
def test_whose_model_it_is_is_one_sentence(disease: str, site: str, said: tuple[str, ...]) -> None:
    predicted = replace(cases.risk("research"), disease=disease, recalibrated_to=site)
    assert made_from(cases.analysed(predicted=predicted))[:-1] == said


def test_where_the_scan_lies_is_one_sentence() -> None:
    of = PopulationDistance(1.234, 1.1, 97.6, outside=True, patients=300)
    found = replace(cases.analysed(predicted=cases.risk()), population=of)
    (said,) = made_from(found)
    assert "the 300 patients" in said and "98 % lie no further out" in said and "counts as outside" in said
    assert "counts as within" in made_from(replace(found, population=replace(of, outside=False)))[0]
    assert "no reference distribution" in made_from(replace(found, population=None))[0]
    assert made_from(replace(found, risk=None)) == ()


def test_kinds_have_numbers_and_names_of_their_own() -> None:
    assert len({kind.series_number for kind in KINDS}) == len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("highest", "number"),
    [
        (0, 9002),
        (8999, 9002),
        (9000, 10002),
        (9999, 10002),
        (30026, 31002),
        (2147483647, 9002),
        (2147480000, 2147481002),
    ],
)
def test_series_numbers_follow_the_study_s(highest: int, number: int) -> None:
    assert context.MEASUREMENTS.number_after(highest) == number


def test_a_time_without_zone_is_refused() -> None:
    naive = cases.CONTEXT.created.replace(tzinfo=None)
    with pytest.raises(ValueError, match="without a time zone"):
        context.Context(created=naive, software_version="1", device_serial="2")
