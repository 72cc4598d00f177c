"""Kernel families by the vendors' names."""

import pytest

from dicomnode.analysis.series.kernels import family, name, vendor
from tests.helpers.ct_files import ct_series

CASES = [
    ("SIEMENS", "B20f", "soft"),
    ("SIEMENS", "B31f", "soft"),
    ("SIEMENS", "B46f", "medium"),
    ("Siemens Healthineers", "Br40f 3", "medium"),
    ("SIEMENS", "Bl57d 3", "lung"),
    ("SIEMENS", "B70s", "lung"),
    ("SIEMENS", "I70f 2", "lung"),
    ("SIEMENS", "T80", "unknown"),
    ("GE MEDICAL SYSTEMS", "SOFT", "soft"),
    ("GE MEDICAL SYSTEMS", "STANDARD", "medium"),
    ("GE MEDICAL SYSTEMS", "LUNG", "lung"),
    ("GE MEDICAL SYSTEMS", "BONE+", "lung"),
    ("Philips", "B", "soft"),
    ("Philips", "C", "medium"),
    ("Philips", "YB", "lung"),
    ("Philips", "B60f", "unknown"),
    ("TOSHIBA", "FC13", "soft"),
    ("CANON_MEC", "FC51", "lung"),
    ("TOSHIBA", "FC86", "lung"),
    ("Hitachi", "11", "unknown"),
    ("", "B60f", "unknown"),
    ("SIEMENS", "", "unknown"),
    ("Genius", "LUNG", "lung"),
    ("Genius", "Standard", "medium"),
    ("Genius", "LUNGS2", "unknown"),
    ("Philips", "LUNG", "unknown"),
]


@pytest.mark.parametrize(("manufacturer", "kernel", "expected"), CASES)
def test_family(manufacturer: str, kernel: str, expected: str) -> None:
    assert family(manufacturer, kernel) == expected


@pytest.mark.parametrize(
    ("manufacturer", "expected"),
    [
        ("SIEMENS", "Siemens"),
        (" Siemens Healthineers ", "Siemens"),
        ("TOSHIBA", "Canon/Toshiba"),
        ("Canon Medical Systems", "Canon/Toshiba"),
        ("GE", "GE"),
        ("GEMS", "GE"),
        ("Philips", "Philips"),
        (" Genius ", "Genius"),
        ("", ""),
    ],
)
def test_vendor(manufacturer: str, expected: str) -> None:
    assert vendor(manufacturer) == expected


@pytest.mark.parametrize(("values", "expected"), [(["Br40f", "3"], "Br40f 3"), ("LUNG", "LUNG"), ("", "")])
def test_name_joins_the_values(values: str | list[str], expected: str) -> None:
    assert name(ct_series(ConvolutionKernel=values)[0]) == expected


def test_name_of_an_absent_kernel_is_empty() -> None:
    dataset = ct_series()[0]
    del dataset.ConvolutionKernel
    assert name(dataset) == ""
