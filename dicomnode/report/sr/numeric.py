"""Measurements as NUM items, with no more decimals than a reader needs."""

from typing import Final

import highdicom as hd
from pydicom.sr.coding import Code
from pydicom.valuerep import DS

from dicomnode.report import codes
from dicomnode.report.numbers import percent_value

#: Of the derivations of an attenuation: viewers that drop modifiers would show five numbers of the same name.
MEANINGS: Final = {
    codes.MEAN: "Mean attenuation",
    codes.STANDARD_DEVIATION: "Standard deviation of the attenuation",
    codes.MEDIAN: "Median attenuation",
    codes.SKEWNESS: "Skewness of the attenuation",
    codes.KURTOSIS: "Kurtosis of the attenuation",
}


def measured(
    name: Code,
    value: float,
    unit: Code,
    *,
    decimals: int = 0,
    method: Code | None = None,
    derivation: Code | None = None,
) -> hd.sr.Measurement:
    """Return a measurement, rounded; with a derivation also its name in words (TID 300, Equivalent Meaning)."""
    number = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return _item(name, number, unit, method, derivation)


def percentage(name: Code, value: float) -> hd.sr.Measurement:
    """Return a share in per cent: one decimal, but what is not 0 or 100 does not read as such."""
    return _item(name, f"{percent_value(value):.12g}", codes.PERCENT, None, None)


def _item(name: Code, number: str, unit: Code, method: Code | None, derivation: Code | None) -> hd.sr.Measurement:
    measurement = hd.sr.Measurement(name, float(number), unit, method=method, derivation=derivation)
    item = measurement[0]
    # highdicom writes a float's text, «2321.0».
    item.MeasuredValueSequence[0].NumericValue = DS(number)
    if derivation is not None:
        item.ContentSequence.append(
            hd.sr.TextContentItem(
                name=codes.EQUIVALENT_MEANING, value=MEANINGS[derivation], relationship_type="HAS CONCEPT MOD"
            )
        )
    return measurement
