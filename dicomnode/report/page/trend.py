"""The strip of the summary page that shows a patient's scans over time: volume, HAA, mean attenuation, risk."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.measures.change import studied_at
from dicomnode.report.page.style import BACKGROUND, FAINT, FONT, LEFT_LUNG, RULE, TEXT, write
from dicomnode.report.wording import change_line, plain

SIZE_INCHES: Final = (10.24, 2.60)
#: Of the width of a plot: dates that stand closer would run into each other.
_CLOSEST_DATES: Final = 0.38


def draw(figure: Figure, findings: Findings) -> None:
    """Draw the strip on an empty figure of `SIZE_INCHES`; the findings must have a trend."""
    write(figure, 0.03, 0.90, f"Over time: {len(findings.trend) + 1} scans", size=11, weight="bold")
    if findings.change is not None:
        write(figure, 0.97, 0.90, plain(change_line(findings.change)), size=9, right=True)
    write(figure, 0.03, 0.06, _legend(findings), size=8, color=FAINT)
    times = [-point.days_before / 365.25 for point in findings.trend] + [0.0]
    doubtful = [bool(point.doubts) for point in findings.trend] + [False]
    for place, (name, lines) in enumerate(_panels(findings)):
        axes = figure.add_axes((0.062 + 0.243 * place, 0.225, 0.178, 0.44), facecolor=BACKGROUND)
        write(figure, 0.03 + 0.243 * place, 0.755, name, size=8.5, color=FAINT)
        for values, label in lines:
            _line(axes, times, values, doubtful, label)
        _dress(axes, times, findings)


def _legend(findings: Findings) -> str:
    if not any(point.doubts for point in findings.trend):
        return ""
    return "Open markers: not fully comparable with this scan (kernel, thickness, scanner, inspiration or method)."


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
        ("Predicted risk of death, %" if findings.risk else "No risk predicted", _risks(findings)),
    ]


def _risks(findings: Findings) -> list[tuple[list[float | None], str]]:
    """Return a line for each horizon, only of the scans that the same bundle has judged."""
    if findings.risk is None:
        return []
    judged = [p.horizons if p.bundle_sha256 == findings.risk.bundle_sha256 else () for p in findings.trend]
    by_scan = [{h.years: 100 * h.probability for h in horizons} for horizons in (*judged, findings.risk.horizons)]
    return [([scan.get(h.years) for scan in by_scan], f"{h.years} y") for h in findings.risk.horizons]


def _line(
    axes: Axes, times: Sequence[float], values: Sequence[float | None], doubtful: Sequence[bool], label: str
) -> None:
    known = [(t, v, d) for t, v, d in zip(times, values, doubtful, strict=True) if v is not None]
    if not known:
        return
    x, y, hollow = (list(column) for column in zip(*known, strict=True))
    axes.plot(x, y, color=LEFT_LUNG, linewidth=1.4)
    fill = [BACKGROUND if h else LEFT_LUNG for h in hollow]
    axes.scatter(x, y, s=26, zorder=3, edgecolors=LEFT_LUNG, linewidths=1.3, c=fill)
    if label:
        axes.annotate(
            *(label, (x[-1], y[-1]), (5, 0)),
            textcoords="offset points", va="center", color=TEXT, fontsize=7.5, family=FONT,
        )  # fmt: skip


def _dress(axes: Axes, times: Sequence[float], findings: Findings) -> None:
    span = -times[0]
    axes.set_xlim(times[0] - 0.08 * span, 0.16 * span)
    low, high = axes.get_ylim()
    # A difference that is far below what a rescan gives must not fill the plot from bottom to top.
    room = max(0.15 * (high - low), 0.02 * max(abs(low), abs(high)))
    axes.set_ylim(low - room, high + room)
    shown = _dated(times)
    axes.set_xticks([times[k] for k in shown], [_date(findings, k) for k in shown])
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(colors=FAINT, labelsize=7.5, labelfontfamily=FONT)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    for name, spine in axes.spines.items():
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
        written = findings.trend[scan].study_date.replace(".", "")
        return f"{written[:4]}-{written[4:6]}-{written[6:8]}"
    moment = None if findings.series is None else studied_at(findings.series)
    assert moment is not None  # a scan without a date is compared with nothing
    return moment.date().isoformat()
