"""The strip of the summary page that shows a patient's scans over time: volume, HAA, mean attenuation, risk."""

import textwrap
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.measures.change import studied_at
from dicomnode.report import letters
from dicomnode.report.comparison import comparisons, day, sentence
from dicomnode.report.page.style import (
    BACKGROUND,
    BODY,
    FAINT,
    FONT,
    LEFT_LUNG,
    LETTERS,
    MARGIN,
    RULE,
    SMALL,
    TEXT,
    axes,
    new_figure,
    write,
)

#: Of the width of a plot: dates that stand closer would run into each other.
_CLOSEST_DATES: Final = 0.45
_LINE: Final = 20


def strip(findings: Findings) -> Figure:
    """Return the strip; the findings must have a trend."""
    said = _said(findings)
    top = 46 + _LINE * len(said)
    figure = new_figure(top + 214)
    write(figure, MARGIN, 22, f"Over time: {len(findings.trend) + 1} scans", size=14, weight="bold")
    for k, line in enumerate(said):
        write(figure, MARGIN, 48 + _LINE * k, line)
    times = [-point.days_before / 365.25 for point in findings.trend] + [0.0]
    doubtful = [bool(point.doubts) for point in findings.trend] + [False]
    for place, (name, lines) in enumerate(_panels(findings)):
        area = axes(figure, 70 + 246 * place, top + 32, 170, 124)
        write(figure, MARGIN + 246 * place, top + 14, name, size=SMALL, color=FAINT)
        for values, label in lines:
            _line(area, times, values, doubtful, label)
        _dress(area, times, findings)
    if any(doubtful):
        words = "Open markers: not fully comparable with this scan (kernel, thickness, scanner, inspiration or method)."
        write(figure, MARGIN, top + 198, words, size=SMALL, color=FAINT)
    return figure


def words(findings: Findings) -> Figure:
    """Return the comparison alone, for findings that have a change and no trend: those of early versions."""
    said = _said(findings)
    figure = new_figure(50 + _LINE * len(said))
    write(figure, MARGIN, 22, "Change", size=14, weight="bold")
    for k, line in enumerate(said):
        write(figure, MARGIN, 48 + _LINE * k, line)
    return figure


def _said(findings: Findings) -> list[str]:
    """Return the comparison with the latest prior scan: in a sentence, then where disease begins.

    The PDF and the structured report have the other measures.
    """
    if findings.change is None:
        return []
    others = [c.line for c in comparisons(findings.change) if c.name == "lower_third_rim.haa_percent"]
    told = [sentence(findings.change), *others]
    return [line for words in told for line in textwrap.wrap(letters.shown(words), LETTERS[BODY])]


def _panels(findings: Findings) -> list[tuple[str, list[tuple[list[float | None], str]]]]:
    """Title and lines of each plot; a line has a value for each scan, None where it was not measured."""
    assert findings.lungs is not None
    now = findings.quantities.get("lungs")
    trend = findings.trend
    volumes: list[float | None] = [*(p.volume_ml for p in trend), findings.lungs.volume_ml.total]
    haa = [*(p.haa_percent for p in trend), None if now is None else now.haa_percent]
    mean = [*(p.mean_hu for p in trend), None if now is None else now.mean_hu]
    return [
        ("Lung volume, ml", [(volumes, "")]),
        ("High attenuation, %", [(haa, "")]),
        ("Mean attenuation, HU", [(mean, "")]),
        ("Risk of death, %" if findings.risk else "No risk predicted", _risks(findings)),
    ]


def _risks(findings: Findings) -> list[tuple[list[float | None], str]]:
    """Return a line for each horizon, only of the scans that the same bundle has judged."""
    if findings.risk is None:
        return []
    judged = [p.horizons if p.bundle_sha256 == findings.risk.bundle_sha256 else () for p in findings.trend]
    by_scan = [{h.years: 100 * h.probability for h in horizons} for horizons in (*judged, findings.risk.horizons)]
    return [([scan.get(h.years) for scan in by_scan], f"{h.years} y") for h in findings.risk.horizons]


def _line(
    area: Axes, times: Sequence[float], values: Sequence[float | None], doubtful: Sequence[bool], label: str
) -> None:
    known = [(t, v, d) for t, v, d in zip(times, values, doubtful, strict=True) if v is not None]
    if not known:
        return
    x, y, hollow = (list(column) for column in zip(*known, strict=True))
    area.plot(x, y, color=LEFT_LUNG, linewidth=1.6)
    fill = [BACKGROUND if h else LEFT_LUNG for h in hollow]
    area.scatter(x, y, s=30, zorder=3, edgecolors=LEFT_LUNG, linewidths=1.4, c=fill)
    if label:
        area.annotate(
            *(label, (x[-1], y[-1]), (5, 0)),
            textcoords="offset points", va="center", color=TEXT, fontsize=9, family=FONT,
        )  # fmt: skip


def _dress(area: Axes, times: Sequence[float], findings: Findings) -> None:
    span = -times[0] or 1.0
    area.set_xlim(times[0] - 0.08 * span, 0.16 * span)
    low, high = area.get_ylim()
    # A difference that is far below what a rescan gives must not fill the plot from bottom to top.
    room = max(0.15 * (high - low), 0.02 * max(abs(low), abs(high)))
    area.set_ylim(low - room, high + room)
    shown = _dated(times)
    area.set_xticks([times[k] for k in shown], [_date(findings, k) for k in shown])
    area.locator_params(axis="y", nbins=4)
    area.tick_params(colors=FAINT, labelsize=9, labelfontfamily=FONT)
    area.grid(axis="y", color=RULE, linewidth=0.5)
    for name, spine in area.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(RULE)


def _dated(times: Sequence[float]) -> list[int]:
    """Return the scans whose dates are written: the first and this one, and of the others those that have room."""
    width = -1.24 * times[0]
    shown = {0, len(times) - 1}
    for k in range(len(times) - 2, 0, -1):
        if min(abs(times[k] - times[other]) for other in shown) >= _CLOSEST_DATES * width:
            shown.add(k)
    return sorted(shown)


def _date(findings: Findings, scan: int) -> str:
    if scan < len(findings.trend):
        return day(findings.trend[scan].study_date)
    moment = None if findings.series is None else studied_at(findings.series)
    assert moment is not None  # a scan without a date is compared with nothing
    return moment.date().isoformat()
