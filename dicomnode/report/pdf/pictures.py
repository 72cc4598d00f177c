"""The PDF's pictures as SVG: the slices with their outlines, and the numbers over time."""

import base64
import io
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.measures.change import DAYS_A_YEAR
from dicomnode.report import letters
from dicomnode.report.comparison import day
from dicomnode.report.numbers import share, whole
from dicomnode.report.page import explained
from dicomnode.report.page.slices import draw
from dicomnode.report.page.style import cut, extent, mark
from dicomnode.report.page.views import Views

_DPI: Final = 150
_INCHES: Final = (7.2, 2.5)


def slices(views: Views) -> str:
    """Return the three views side by side."""
    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white")
    for place, view in enumerate((views.coronal, views.middle, views.basal)):
        draw(figure.add_axes((place / 3 + 0.003, 0.0, 1 / 3 - 0.006, 1.0)), view, size=8)
    return _png(figure)


def looked(findings: Findings, views: Views) -> str:
    """Return the slices that weigh most with the networks side by side, with their heat; "" where there are none."""
    risk = findings.risk
    arms = () if risk is None or risk.explanation is None else risk.explanation.arms
    heat = {arm.arm: arm.heat for arm in arms if arm.heat is not None and arm.weight > 0}
    shown = [one for one in views.looked if one.arm in heat][:3]
    if not shown:
        return ""
    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white")
    for place, one in enumerate(shown):
        area = figure.add_axes((place / 3 + 0.003, 0.0, 1 / 3 - 0.006, 1.0))
        explained.draw(area, one, heat[one.arm], size=8)
        mark(area, 0.02, 0.96, cut(letters.shown(one.arm), 300, size=8, weight="bold"), size=8)
    return _png(figure)


def _png(figure: Figure) -> str:
    """Return a figure of `_INCHES` as an image in SVG."""
    FigureCanvasAgg(figure).draw()
    png = io.BytesIO()
    # Without matplotlib's version in it, which would change the bytes.
    figure.savefig(png, format="png", metadata={"Software": None})
    width, height = (round(inches * _DPI) for inches in _INCHES)
    coded = base64.b64encode(png.getvalue()).decode("ascii")
    image = f'<image width="{width}" height="{height}" href="data:image/png;base64,{coded}"/>'
    return _svg(width, height, image)


def trend(findings: Findings) -> str:
    """Return volume, high attenuation and mean attenuation of the known scans over time, one plot beside the other.

    Hollow: not fully comparable with this scan.
    """
    assert findings.lungs is not None
    now = findings.quantities.get("lungs")
    points = findings.trend
    times = [-p.days_before / DAYS_A_YEAR for p in points] + [0.0]
    hollow = [bool(p.doubts) for p in points] + [False]
    ends = letters.shown(day(points[0].study_date)), "this scan"
    panels: Sequence[tuple[str, list[float | None], bool]] = (
        ("Lung volume, ml", [*(p.volume_ml for p in points), findings.lungs.volume_ml.total], False),
        ("High attenuation, %", [*(p.haa_percent for p in points), None if now is None else now.haa_percent], True),
        ("Mean attenuation, HU", [*(p.mean_hu for p in points), None if now is None else now.mean_hu], False),
    )
    drawn = "".join(
        f'<g transform="translate({_PANEL * k},0)">{_panel(name, times, values, hollow, is_share, ends)}</g>'
        for k, (name, values, is_share) in enumerate(panels)
    )
    return _svg(3 * _PANEL, 104, drawn)


#: Units of the picture: from one plot to the next, and where the first and this scan stand in it. The axis is at 24.
_PANEL: Final = 240
_FIRST: Final = 58.0
_NOW: Final = 196.0
_LETTERS: Final = 9.0


def _panel(
    name: str,
    times: Sequence[float],
    values: Sequence[float | None],
    hollow: Sequence[bool],
    is_share: bool,
    ends: tuple[str, str],
) -> str:
    known = [(t, v, h) for t, v, h in zip(times, values, hollow, strict=True) if v is not None]
    title = _text(4, 12, name)
    if not known:
        return title + _text(60, 55, "not measured")
    low, high = min(v for _, v, _ in known), max(v for _, v, _ in known)
    # A difference far below what a rescan gives must not fill the plot.
    room = max(0.15 * (high - low), 0.02 * max(abs(low), abs(high)), 0.1)
    low, high = low - room, high + room
    span = -times[0]

    def across(time: float) -> float:
        # Scans of one day stand above each other, in the middle.
        return _FIRST + (_NOW - _FIRST) * (1 + time / span if span else 0.5)

    places = [(across(t), 84 - 54 * (v - low) / (high - low), v, h) for t, v, h in known]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    look = 'r="3" stroke="black" stroke-width="1.2"'
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" {look} fill="{"white" if h else "black"}"/>' for x, y, _, h in places
    )
    numbers = [(x, y - 6, share(v) if is_share else whole(v)) for x, y, v, _ in (places[-1], places[0])]
    dates = [(across(times[-1]), 98.0, ends[1]), (across(times[0]), 98.0, ends[0])]
    labels = "".join(_text(*label, "middle") for label in (*_apart(numbers), *_apart(dates)))
    axis = '<path d="M24,20 V88 H220" fill="none" stroke="#888" stroke-width="0.8"/>'
    return f'{title}{axis}<polyline points="{line}" fill="none" stroke="black" stroke-width="1.2"/>{dots}{labels}'


def _apart(labels: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return the label of this scan, and the first one's where they do not run into each other: it is in the table."""
    (now, now_y, now_words), (first, first_y, first_words) = labels
    first_words = cut(first_words, 2 * (_FIRST - 4), size=_points())
    needed = (extent(now_words, _points())[0] + extent(first_words, _points())[0]) / 2 + 4
    if abs(now - first) < needed and abs(now_y - first_y) < _LETTERS + 2:
        return [labels[0]]
    return [labels[0], (first, first_y, first_words)]


def _points() -> float:
    # `extent` counts 100 pixels an inch: so an em is as many pixels as here it is units.
    return _LETTERS * 72 / 100


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    font = f'font-family="{", ".join(letters.families(words))}" font-size="{_LETTERS:.0f}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {font} text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: int, height: int, inside: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{inside}</svg>'
