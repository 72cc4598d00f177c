"""The predicted risk on the summary page: probability and model spread over the years, and both in numbers."""

from typing import Final

import numpy as np
from matplotlib.figure import Figure

from dicomnode.analysis.findings import Horizon, Risk
from dicomnode.report import letters
from dicomnode.report.numbers import probability, probability_range
from dicomnode.report.page.style import (
    FAINT,
    LEFT_LUNG,
    MARGIN,
    SMALL,
    TEXT,
    WIDTH,
    FittedWords,
    axes,
    dress,
    fitted,
    name_axes,
    paragraph,
    rule,
    ticks,
    write,
)
from dicomnode.report.wording import has_spread

_LEFT: Final = 568
_RIGHT: Final = WIDTH - MARGIN
_NUMBERS: Final = 806
#: Right ends of the columns of the numbers: years, probability, model spread.
_COLUMNS: Final = (858, 906, _RIGHT)
_ROW: Final = 24
_BELOW_PLOT: Final = 256


def risk_height(risk: Risk | None) -> float:
    """Return how high the risk is, in pixels."""
    return 100 if risk is None else _words_top(risk) + _band(risk).height + 16


def _words_top(risk: Risk) -> float:
    return max(_BELOW_PLOT, 66 + _ROW * len(risk.horizons) + 8)


def draw_risk(figure: Figure, risk: Risk | None) -> None:
    """Draw the risk into the right half of the strip with the numbers."""
    write(figure, _LEFT, 22, "Predicted risk of death (any cause)", size=14, weight="bold")
    if risk is None:
        write(figure, _LEFT, 54, "No risk was predicted for this study.", color=FAINT)
        return
    horizons = sorted(risk.horizons, key=lambda h: h.years)
    _numbers(figure, horizons, has_spread(risk))
    years = [0, *(h.years for h in horizons)]
    percent = np.array([(0.0, 0.0, 0.0), *((h.probability, h.lower, h.upper) for h in horizons)]) * 100.0
    area = axes(figure, 612, 44, 176, 160)
    area.fill_between(years, percent[:, 1], percent[:, 2], color=LEFT_LUNG, alpha=0.22, linewidth=0)
    area.plot(years, percent[:, 0], color=LEFT_LUNG, marker="o", markersize=6, linewidth=2, clip_on=False)
    area.set_xlim(0, max(years[-1], 1) * 1.06)
    highest = max(float(percent.max()), 10.0)
    # A little room above the line, but no probability beyond 100 %.
    area.set_ylim(0, min(highest * 1.06, 100.0))
    area.locator_params(axis="y", nbins=4)
    dress(area, size=SMALL)
    ticks(area, [(year, str(year)) for year in years], size=SMALL)
    name_axes(area, x="years after the scan", y="%")
    paragraph(figure, _LEFT, _words_top(risk), _band(risk), color=FAINT)


def _numbers(figure: Figure, horizons: list[Horizon], spread: bool) -> None:
    head = ("within", "%", "spread, %") if spread else ("within", "%")
    rows = [
        (f"{h.years} y", probability(h.probability), *((probability_range(h.lower, h.upper),) if spread else ()))
        for h in horizons
    ]
    for k, row in enumerate((head, *rows)):
        y = 56 + _ROW * k
        if k:
            rule(figure, y - _ROW / 2, _NUMBERS, _COLUMNS[len(row) - 1])
        left = _NUMBERS
        for column, (words, right) in enumerate(zip(row, _COLUMNS, strict=False)):
            told = k and column == 1
            write(
                figure, right, y, words,
                size=SMALL, color=TEXT if told or column else FAINT, weight="bold" if told else "normal",
                right=True, width=right - left,
            )  # fmt: skip
            left = right + 4


def _band(risk: Risk) -> FittedWords:
    return fitted(band_words(risk), _RIGHT - _LEFT, size=SMALL)


def band_words(risk: Risk) -> str:
    """Return what the band is and is not: the first clause; the structured report has all of it."""
    what = letters.shown(risk.interval).partition(";")[0]
    return f"Band: {what[:1].lower()}{what[1:]}" if what else "The model does not define the band."
