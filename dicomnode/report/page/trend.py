"""The strip of the summary page that shows a patient's scans over time: volume, HAA, mean attenuation, risk."""

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
    FAINT,
    LEFT_LUNG,
    MARGIN,
    RULE,
    SMALL,
    FittedWords,
    axes,
    beside,
    dress,
    fitted,
    new_figure,
    paragraph,
    ticks,
    write,
)

#: From one plot to the next; so wide is each with the numbers beside it.
_PANEL: Final = 246
_WIDEST_DATE: Final = 100


def strip(findings: Findings) -> Figure:
    """Return the strip; the findings must have a trend."""
    said = _said(findings)
    top = 46 + sum(words.height for words in said)
    figure = new_figure(top + 214)
    write(figure, MARGIN, 22, f"Over time: {len(findings.trend) + 1} scans", size=14, weight="bold")
    _write(figure, said)
    times = [-point.days_before / 365.25 for point in findings.trend] + [0.0]
    doubtful = [bool(point.doubts) for point in findings.trend] + [False]
    for place, (name, lines) in enumerate(_panels(findings)):
        area = axes(figure, 70 + _PANEL * place, top + 32, 170, 124)
        write(figure, MARGIN + _PANEL * place, top + 14, name, size=SMALL, color=FAINT, width=_PANEL - 10)
        for values, _ in lines:
            _line(area, times, values, doubtful)
        _dress(area, times, findings)
        ends = [([v for v in values if v is not None][-1:], label) for values, label in lines]
        beside(area, [(0.0, value, label) for last, label in ends for value in last if label])
    if any(doubtful):
        words = "Open markers: not fully comparable with this scan (kernel, thickness, scanner, inspiration or method)."
        write(figure, MARGIN, top + 198, words, size=SMALL, color=FAINT)
    return figure


def words(findings: Findings) -> Figure:
    """Return the comparison alone, for findings that have a change and no trend: those of early versions."""
    said = _said(findings)
    figure = new_figure(50 + sum(words.height for words in said))
    write(figure, MARGIN, 22, "Change", size=14, weight="bold")
    _write(figure, said)
    return figure


def _write(figure: Figure, said: Sequence[FittedWords]) -> None:
    top: float = 38
    for paragraph_ in said:
        top = paragraph(figure, MARGIN, top, paragraph_)


def _said(findings: Findings) -> list[FittedWords]:
    """Return the comparison with the latest prior scan: in a sentence, then where disease begins.

    The PDF and the structured report have the other measures.
    """
    if findings.change is None:
        return []
    others = [c.line for c in comparisons(findings.change) if c.name == "lower_third_rim.haa_percent"]
    told = [sentence(findings.change), *others]
    return [fitted(letters.shown(words)) for words in told]


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


def _line(area: Axes, times: Sequence[float], values: Sequence[float | None], doubtful: Sequence[bool]) -> None:
    known = [(t, v, d) for t, v, d in zip(times, values, doubtful, strict=True) if v is not None]
    if not known:
        return
    x, y, hollow = (list(column) for column in zip(*known, strict=True))
    area.plot(x, y, color=LEFT_LUNG, linewidth=1.6)
    fill = [BACKGROUND if h else LEFT_LUNG for h in hollow]
    area.scatter(x, y, s=30, zorder=3, edgecolors=LEFT_LUNG, linewidths=1.4, c=fill)


def _dress(area: Axes, times: Sequence[float], findings: Findings) -> None:
    span = -times[0]
    # Scans of one day stand above each other, in the middle.
    area.set_xlim(*((times[0] - 0.08 * span, 0.16 * span) if span else (-1.0, 1.0)))
    low, high = area.get_ylim()
    # A difference that is far below what a rescan gives must not fill the plot from bottom to top.
    room = max(0.15 * (high - low), 0.02 * max(abs(low), abs(high)))
    area.set_ylim(low - room, high + room)
    area.locator_params(axis="y", nbins=4)
    area.grid(axis="y", color=RULE, linewidth=0.5)
    dress(area)
    ticks(area, [(time, _date(findings, k)) for k, time in enumerate(times)], most=_WIDEST_DATE)


def _date(findings: Findings, scan: int) -> str:
    if scan < len(findings.trend):
        return letters.shown(day(findings.trend[scan].study_date))
    moment = None if findings.series is None else studied_at(findings.series)
    assert moment is not None  # a scan without a date is compared with nothing
    return moment.date().isoformat()
