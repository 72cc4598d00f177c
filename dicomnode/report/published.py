"""Published numbers beside ours: what healthy people have, and how far two scans of one patient differ.

Only what was published, with its source; where nothing was found, there is nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ReferenceRange:
    """What was measured in healthy people. `measure` as in the tables; `values` in words, `who`: the population."""

    measure: str
    values: str
    who: str
    source: str


REFERENCE_RANGES: Final = (
    ReferenceRange(
        "High attenuation (-600 to -250 HU)",
        "median 4.3 %, range 2.7 to 17.8 %",
        "696 healthy never-smokers aged 54 to 93, multi-ethnic (MESA)",
        "Easthausen 2020, Respirology 25:855, doi 10.1111/resp.13783",
    ),
    ReferenceRange(
        "Low attenuation (< -950 HU)",
        "median 1.1 %, quartiles 0.5 and 2.5 %",
        "854 healthy never-smokers aged 54 to 93, multi-ethnic (MESA)",
        "Hoffman 2014, Ann Am Thorac Soc 11:898",
    ),
    ReferenceRange(
        "Lung volume",
        "mean 4468 ml, standard deviation 1271 ml",
        "564 people with normal lung function and CT, Shanghai",
        "Cheng 2019, Int J COPD 14:1657, doi 10.2147/COPD.S187596",
    ),
)
NO_REFERENCE: Final = "No reference range is known to us for the other measures; none is shown."

#: Of a normal distribution, 95 % lie within 1.96 standard deviations, and the mean absolute value is 0.798 of them.
_FROM_MEAN_ABSOLUTE_DIFFERENCE: Final = 1.96 / 0.798
#: Largest difference that 95 % of repeated scans show, by the measure's name in a change: ml, percentage points, HU.
REPEATABILITY: Final[Mapping[str, float]] = {
    "volume_ml": round(169 * _FROM_MEAN_ABSOLUTE_DIFFERENCE),
    "laa950_percent": round(0.66 * _FROM_MEAN_ABSOLUTE_DIFFERENCE, 1),
    "mean_hu": round(5.0 * _FROM_MEAN_ABSOLUTE_DIFFERENCE),
}
REPEATABILITY_SOURCE: Final = (
    f"95 % of two scans a week apart differ by less than {REPEATABILITY['volume_ml']:.0f} ml (lung volume), "
    f"{REPEATABILITY['laa950_percent']:.1f} points (low attenuation) and {REPEATABILITY['mean_hu']:.0f} HU (mean "
    "attenuation): 22 patients with emphysema, same scanner and protocol, from the mean absolute differences of "
    "Chong 2011, Proc SPIE 7963:796339, doi 10.1117/12.878240. None is known to us for high attenuation."
)
