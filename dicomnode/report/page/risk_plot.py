"""The predicted risk on the summary page: probability and model spread over the years."""

import textwrap
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from dicomnode.analysis.findings import Horizon, Risk
from dicomnode.report import letters
from dicomnode.report.numbers import probability, probability_range
from dicomnode.report.page.style import FAINT, FONT, LEFT_LUNG, RULE, SMALL, TEXT, axes, write
from dicomnode.report.wording import has_spread

_LEFT: Final = 568
#: There is room for the numbers of so many horizons; of more, for those of the first, the middle and the last.
_MOST: Final = 4


def draw_risk(figure: Figure, risk: Risk | None) -> None:
    """Draw the risk into the right half of the strip with the numbers."""
    write(figure, _LEFT, 22, "Predicted risk of death (any cause)", size=14, weight="bold")
    if risk is None:
        write(figure, _LEFT, 54, "No risk was predicted for this study.", color=FAINT)
        return
    horizons = sorted(risk.horizons, key=lambda h: h.years)
    years = [0, *(h.years for h in horizons)]
    percent = np.array([(0.0, 0.0, 0.0), *((h.probability, h.lower, h.upper) for h in horizons)]) * 100.0
    area = axes(figure, 612, 44, 370, 160)
    area.fill_between(years, percent[:, 1], percent[:, 2], color=LEFT_LUNG, alpha=0.22, linewidth=0)
    area.plot(years, percent[:, 0], color=LEFT_LUNG, marker="o", markersize=6, linewidth=2)
    highest = max(float(percent.max()), 10.0)
    count = len(horizons)
    for index in range(count) if count <= _MOST else (0, count // 2, count - 1):
        horizon = horizons[index]
        area.text(
            horizon.years,
            percent[1 + index, 2] + (0.16 if horizon.years < 0.25 * years[-1] else 0.03) * highest,
            _label(horizon, has_spread(risk)),
            ha="left" if horizon.years < 0.25 * years[-1] else "center",
            va="bottom",
            color=TEXT,
            fontsize=SMALL,
            family=FONT,
        )
    area.set_xlim(0, years[-1] * 1.14)
    area.set_ylim(0, highest * 1.5)
    # Room above for the labels, but no probability beyond 100 %.
    area.set_yticks([t for t in area.get_yticks() if t <= min(100.0, highest * 1.2)])
    area.set_xticks(years)
    area.set_xlabel("years after the scan", color=FAINT, fontsize=SMALL, family=FONT)
    area.set_ylabel("%", color=FAINT, fontsize=SMALL, family=FONT, rotation=0, labelpad=8)
    area.tick_params(colors=FAINT, labelsize=SMALL, labelfontfamily=FONT)
    for name, spine in area.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(RULE)
    for k, line in enumerate(band_words(risk)):
        write(figure, _LEFT, 268 + 17 * k, line, size=SMALL, color=FAINT)


def _label(horizon: Horizon, spread: bool) -> str:
    value = f"{probability(horizon.probability)} %"
    return f"{value}\n{probability_range(horizon.lower, horizon.upper)}" if spread else value


def band_words(risk: Risk) -> list[str]:
    """Return what the band is and is not: the first clause; the structured report has all of it."""
    what = letters.shown(risk.interval).partition(";")[0]
    words = f"Band: {what[:1].lower()}{what[1:]}" if what else "The model does not define the band."
    return textwrap.wrap(words, 54)
