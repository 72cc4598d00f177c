"""A model's inputs in words."""

import pytest

from dicomnode.analysis.findings import Contribution
from dicomnode.report.explanation import hazard
from dicomnode.report.inputs import name_of, value_of
from dicomnode.report.pdf.content import Pictures, content
from tests.helpers import report_cases as cases


@pytest.mark.parametrize(
    ("feature", "value", "unit", "name", "written"),
    [
        ("quantities.lungs.volume_ml", 4321.4, "ml", "volume, both lungs", "4321 ml"),
        ("quantities.lower_third_rim.haa_percent", 0.01, "%", "HAA, basal rim", "<0.1 %"),
        ("quantities.left_upper_lobe.p05_hu", -960.2, "HU", "5th percentile, left upper lobe", "-960 HU"),
        ("quantities.lungs.kurtosis", 5.4321, "", "kurtosis, both lungs", "5.43"),
        ("radiomics.right.original_glcm_Idm", 0.12345, "", "glcm Idm, right lung", "0.123"),
        ("radiomics.lungs.original_firstorder_Energy", 123456.7, "", "firstorder Energy, both lungs", "123457"),
        ("change.haa_percent", -1.25, "%/year", "change of HAA, both lungs", "-1.2 points/year"),
        ("change.lower_third_rim.haa_percent", None, "%/year", "change of HAA, basal rim", "not known"),
        ("change.volume_ml", 120.4, "ml/year", "change of volume, both lungs", "+120 ml/year"),
        ("covariates.age_years", 71.3, "years", "age", "71.3 years"),
        ("covariates.sex_male", 0.0, "", "sex", "female"),
        ("covariates.antibody=Scl-70", 1.0, "", "antibody: Scl-70", "yes"),
        ("covariates.fvc_l", 2.9, "l", "fvc_l", "2.9 l"),
        ("encoder", None, "", "image encoder, all numbers", ""),
    ],
)
def test_an_input_has_a_name_and_a_value(feature: str, value: float | None, unit: str, name: str, written: str) -> None:
    assert name_of(feature) == name
    assert value_of(Contribution(feature, value, unit, 0.1)) == written


def test_the_pdf_tells_it_too() -> None:
    risk = cases.risk("research")
    told = content(cases.analysed(predicted=risk), cases.CONTEXT, None, Pictures())
    explained = cases.analysed(predicted=cases.explained())
    more = content(explained, cases.CONTEXT, None, Pictures(looked="<svg/>"))
    headings, before = ([part.heading for part in one.parts] for one in (more, told))
    heading = "How the model weighs this scan (risk within 5 years)"
    assert [one for one in headings if one not in before] == [heading]
    part = more.parts[headings.index(heading)]
    assert part.table is not None and part.picture == "<svg/>" and part.new_page
    assert part.table.rows[0] == ("radiomics", "age", "71 years", "+0.40")
    assert part.table.rows[-1] == ("radiomics", "13 other inputs together", "", "-0.03")
    assert explained.risk is not None and explained.risk.explanation is not None
    assert hazard(explained.risk.explanation.arms[0]) == "Sum +0.57: hazard x 1.8 of that at the training mean."
