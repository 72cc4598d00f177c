"""Numbers as a reader needs them."""

import pytest

from dicomnode.report.numbers import percent_value, probability, probability_range, share, signed, whole


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "<1"), (0.002, "<1"), (0.01, "1"), (0.456, "46"), (0.99, "99"), (0.999, ">99"), (1, ">99")],
)
def test_no_probability_is_certain(value: float, written: str) -> None:
    assert probability(value) == written


@pytest.mark.parametrize(
    ("percent", "written"),
    [(0.0, "0.0"), (0.04, "<0.1"), (0.05, "0.1"), (12.34, "12.3"), (99.97, ">99.9"), (100, "100.0")],
)
def test_a_trace_is_no_nothing(percent: float, written: str) -> None:
    assert share(percent) == written


@pytest.mark.parametrize(
    ("value", "held"), [(0.0, 0.0), (0.0123, 0.012), (3.25, 3.2), (99.96, 99.96), (99.9996, 99.9996), (100.0, 100.0)]
)
def test_what_is_not_everything_is_not_held_as_everything(value: float, held: float) -> None:
    assert percent_value(value) == held


def test_ranges_signs_and_wholes() -> None:
    assert probability_range(0.0, 0.02) == "<1 to 2"
    assert probability_range(0.999, 1.0) == ">99"
    assert (signed(9.84, 1), signed(-240.4, 0), signed(-0.04, 1)) == ("+9.8", "-240", "0.0")
    assert (whole(-0.4), whole(4320.6)) == ("0", "4321")
