"""What of the headers becomes a covariate: age and sex as the registry exports them."""

import pytest
from pydicom import Dataset, config

from dicomnode.analysis.findings import ChosenSeries, Findings
from dicomnode.analysis.risk.predict import covariates


def scan(date: str) -> Findings:
    series = ChosenSeries("1.2", "1.2.3", 300, (1.0, 0.7, 0.7), "B60f", "the only one", study_date=date)
    return Findings("analysed", series)


@pytest.mark.parametrize(
    ("attributes", "date", "expected"),
    [
        ({"PatientAge": "057Y", "PatientSex": "F"}, "20240101", {"age_years": 57.0, "sex_male": 0.0}),
        ({"PatientAge": "018M", "PatientSex": "M"}, "20240101", {"age_years": 1.5, "sex_male": 1.0}),
        ({"PatientAge": "101Y"}, "20240101", {"age_years": 90.0}),
        ({"PatientAge": "57", "PatientBirthDate": "19640701"}, "20240101", {"age_years": 59.5}),
        ({"PatientBirthDate": "19640701"}, "", {}),
        ({"PatientBirthDate": "20250101"}, "20240101", {}),
        ({"PatientBirthDate": "1964", "PatientSex": "O"}, "20240101", {}),
        ({}, "20240101", {}),
    ],
)
def test_age_and_sex_as_far_as_the_header_tells_them(
    attributes: dict[str, str], date: str, expected: dict[str, float]
) -> None:
    header = Dataset()
    with config.disable_value_validation():  # hospitals write such values
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
    assert covariates(scan(date), header) == {f"covariates.{k}": v for k, v in expected.items()}
