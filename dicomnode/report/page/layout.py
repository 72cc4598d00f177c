"""The layout of the summary page: warnings, doubts, pictures, numbers, risk, and what made them, from top to bottom."""

import textwrap
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.findings import Findings, Flag, Quantities, SliceRelevance
from dicomnode.report.page.style import BACKGROUND
from dicomnode.report.page.style import FAINT as _FAINT
from dicomnode.report.page.style import FONT as _FONT
from dicomnode.report.page.style import LEFT_LUNG as _LEFT
from dicomnode.report.page.style import RIGHT_LUNG as _RIGHT
from dicomnode.report.page.style import RULE as _RULE
from dicomnode.report.page.style import TEXT as _TEXT
from dicomnode.report.page.style import write as _write
from dicomnode.report.page.views import View, Views
from dicomnode.report.wording import DEMO, is_demo, made_from, plain

DPI: Final = 100
SIZE_INCHES: Final = (10.24, 12.80)
#: Of the height, from the bottom: between the numbers and what made them nothing is drawn.
SEAM: Final = 0.119

_RESEARCH: Final = "#8c1c13"
_DEMO: Final = "#b36b00"
_SEVERITY: Final = {"error": "#ff6b5e", "warning": "#ffc24b", "info": _FAINT}
# Lung window: level -600, width 1500 HU.
_WINDOW: Final = (-1350.0, 150.0)
_MOST_LINES: Final = 6


def draw(figure: Figure, views: Views, findings: Findings) -> None:
    """Draw the page on an empty figure of `SIZE_INCHES`."""
    _banner(figure, findings)
    _flags(figure, findings.flags)
    _images(figure, views, findings.risk.slice_relevance if findings.risk is not None else ())
    _table(figure, findings)
    _risk(figure, findings)
    _provenance(figure, findings)


def _banner(figure: Figure, findings: Findings) -> None:
    _band(figure, 0.968, 0.032, "RESEARCH USE ONLY - NOT FOR DIAGNOSIS", _RESEARCH)
    if is_demo(findings):
        _band(figure, 0.940, 0.028, DEMO, _DEMO)
    _write(figure, 0.03, 0.918, "Chest CT: lung measurements and mortality risk", size=15, weight="bold")
    _write(figure, 0.97, 0.918, f"dicomnode {plain(findings.software_version)}", size=9, color=_FAINT, right=True)


def _flags(figure: Figure, flags: tuple[Flag, ...]) -> None:
    """Write the doubts before the numbers, the worst first."""
    _write(figure, 0.03, 0.895, "Check the images first.", size=10, color=_TEXT)
    ranked = sorted(flags, key=lambda flag: tuple(_SEVERITY).index(flag.severity))
    lines = [
        (line, _SEVERITY[flag.severity])
        for flag in ranked
        for line in textwrap.wrap(f"{flag.severity.upper()}: {plain(flag.text)}", 125, subsequent_indent="    ")
    ]
    if not lines:
        lines = [("The automatic checks raised no doubts about input or result.", _FAINT)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], ("... more in the structured report", _FAINT)]
    for k, (line, color) in enumerate(lines):
        _write(figure, 0.03, 0.876 - 0.0165 * k, line, size=9, color=color)


def _images(figure: Figure, views: Views, relevance: tuple[SliceRelevance, ...]) -> None:
    coronal = figure.add_axes((0.03, 0.435, 0.49 if relevance else 0.54, 0.335))
    middle = figure.add_axes((0.60, 0.6075, 0.37, 0.1625))
    basal = figure.add_axes((0.60, 0.435, 0.37, 0.1625))
    for axes, view in ((coronal, views.coronal), (middle, views.middle), (basal, views.basal)):
        _image(axes, view)
    if relevance:
        _relevance(figure.add_axes((0.527, 0.435, 0.043, 0.335)), coronal, views, relevance)
        words = "Bars: weight of each slice level in the networks' prediction; not proof of disease there."
        _write(figure, 0.97, 0.398, words, size=8, color=_FAINT, right=True)
    _write(figure, 0.03, 0.413, "Right lung", size=9, color=_RIGHT, weight="bold")
    _write(figure, 0.115, 0.413, "Left lung", size=9, color=_LEFT, weight="bold")
    _write(
        figure,
        0.97,
        0.413,
        "Outlines: automatic segmentation. Window -600/1500 HU. The patient's right is on the left.",
        size=8,
        color=_FAINT,
        right=True,
    )


def _image(axes: Axes, view: View) -> None:
    row_mm, column_mm = view.spacing_mm
    axes.set_facecolor("black")
    axes.imshow(
        view.hu,
        cmap="gray",
        vmin=_WINDOW[0],
        vmax=_WINDOW[1],
        aspect=row_mm / column_mm,
        interpolation="bilinear",
        interpolation_stage="data",
    )
    for number, color in ((RIGHT, _RIGHT), (LEFT, _LEFT)):
        inside = view.labels == number
        if inside.any():
            axes.contour(inside.astype(np.float32), levels=[0.5], colors=[color], linewidths=1.1)
    # The box has one shape and the slice another: the rest of the box stays black, and the letters stand at its edges.
    axes.set_adjustable("datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_RULE)
    _mark(axes, 0.03, 0.5, "R", size=13, center=True)
    _mark(axes, 0.97, 0.5, "L", size=13, center=True)
    _mark(axes, 0.02, 0.96, view.name, size=9)


def _relevance(axes: Axes, coronal: Axes, views: Views, relevance: tuple[SliceRelevance, ...]) -> None:
    """Draw a bar for each slice that the networks looked at, at its height in the coronal picture beside it."""
    top_mm, bottom_mm = views.coronal_z_mm
    last_row = views.coronal.hu.shape[0] - 1
    heights = np.array([one.z_mm for one in relevance])
    weights = np.array([one.weight for one in relevance])
    rows = (heights - top_mm) / (bottom_mm - top_mm) * last_row
    apart = np.ptp(rows) / (len(rows) - 1) if len(rows) > 1 else last_row / 2
    axes.barh(rows, weights / weights.max(), height=0.8 * apart, color=_FAINT)
    coronal.apply_aspect()  # only then are the limits those that are drawn
    axes.set_ylim(coronal.get_ylim())
    axes.set_xlim(0, 1)
    axes.axis("off")


def _mark(axes: Axes, x: float, y: float, words: str, *, size: float, center: bool = False) -> None:
    """Words upon an image, with a dark rim so that they show on bone too."""
    axes.text(
        x,
        y,
        words,
        transform=axes.transAxes,
        family=_FONT,
        fontsize=size,
        fontweight="bold",
        color="white",
        ha="center" if center else "left",
        va="center" if center else "top",
        path_effects=[withStroke(linewidth=2.5, foreground="black")],
    )


def _table(figure: Figure, findings: Findings) -> None:
    assert findings.lungs is not None
    volume = findings.lungs.volume_ml
    columns = {"lungs": ("Both", _TEXT), "right": ("Right", _RIGHT), "left": ("Left", _LEFT)}
    quantities = [findings.quantities.get(region) for region in columns]
    volumes = (volume.total, volume.right, volume.left)
    rows = [("Volume, ml", [f"{v:.0f}" for v in volumes])]
    rows += [(name, [_number(q, attribute, form) for q in quantities]) for name, attribute, form in _ROWS]
    top, step = 0.375, 0.0205
    _write(figure, 0.03, top, "Measurements", size=11, weight="bold")
    for k, (name, color) in enumerate(columns.values()):
        _write(figure, 0.335 + 0.085 * k, top, name, size=9, color=color, weight="bold", right=True)
    for row, (name, values) in enumerate(rows):
        y = top - step * (row + 1.25)
        _rule(figure, y + 0.5 * step, 0.03, 0.505)
        _write(figure, 0.03, y, name, size=9, color=_FAINT)
        for k, value in enumerate(values):
            _write(figure, 0.335 + 0.085 * k, y, value, size=9.5, right=True)
    for part, (name, regions) in enumerate(_PARTS, start=len(rows)):
        y = top - step * (part + 1.25)
        _rule(figure, y + 0.5 * step, 0.03, 0.505)
        _write(figure, 0.03, y, name, size=9, color=_FAINT)
        shares = (_number(findings.quantities.get(region), "haa_percent", ".1f") for region in regions)
        _write(figure, 0.505, y, " / ".join(shares), size=9.5, right=True)


_ROWS: Final = (
    ("High attenuation (-600 to -250 HU), %", "haa_percent", ".1f"),
    ("Dense (> -250 HU), %", "dense_percent", ".1f"),
    ("Low attenuation (< -950 HU), %", "laa950_percent", ".1f"),
    ("Mean attenuation, HU", "mean_hu", ".0f"),
    ("Standard deviation, HU", "sd_hu", ".0f"),
    ("15th percentile, HU", "p15_hu", ".0f"),
    ("Median, HU", "p50_hu", ".0f"),
    ("85th percentile, HU", "p85_hu", ".0f"),
)
#: Disease of systemic sclerosis begins at the base and under the pleura: high attenuation there, in one line each.
_PARTS: Final = (
    ("HAA upper / middle / lower third, %", ("upper_third", "middle_third", "lower_third")),
    ("HAA core / outer 20 mm / its basal third, %", ("core", "rim", "lower_third_rim")),
)


def _number(quantities: Quantities | None, attribute: str, form: str) -> str:
    value = None if quantities is None else getattr(quantities, attribute)
    return "-" if value is None else format(value, form)


def _risk(figure: Figure, findings: Findings) -> None:
    _write(figure, 0.56, 0.375, "Predicted risk of death (all causes)", size=11, weight="bold")
    risk = findings.risk
    if risk is None:
        _write(figure, 0.56, 0.348, "No risk was predicted for this study.", size=9.5, color=_FAINT)
        return
    horizons = sorted(risk.horizons, key=lambda h: h.years)
    years = [0, *(h.years for h in horizons)]
    percent = np.array([(0.0, 0.0, 0.0), *((h.probability, h.lower, h.upper) for h in horizons)]) * 100.0
    axes = figure.add_axes((0.605, 0.185, 0.365, 0.17), facecolor=BACKGROUND)
    axes.fill_between(years, percent[:, 1], percent[:, 2], color=_LEFT, alpha=0.22, linewidth=0)
    axes.plot(years, percent[:, 0], color=_LEFT, marker="o", markersize=5, linewidth=1.8)
    highest = max(float(percent.max()), 10.0)
    # There is room for the numbers of five horizons; of more, for those of the first, the middle and the last.
    shown = range(len(horizons)) if len(horizons) <= 5 else (0, len(horizons) // 2, len(horizons) - 1)
    for index in shown:
        horizon, (value, lower, upper) = horizons[index], percent[1 + index]
        label = f"{value:.0f} %\n{lower:.0f} to {upper:.0f}"
        axes.text(
            horizon.years,
            upper + 0.03 * highest,
            label,
            ha="center",
            va="bottom",
            color=_TEXT,
            fontsize=8,
            family=_FONT,
        )
    axes.set_xlim(0, years[-1] * 1.12)
    axes.set_ylim(0, highest * 1.35)
    # Room above for the labels, but no probability beyond 100 %.
    axes.set_yticks([t for t in axes.get_yticks() if t <= min(100.0, highest * 1.2)])
    axes.set_xticks(years)
    axes.set_xlabel("years after the scan", color=_FAINT, fontsize=8.5, family=_FONT)
    axes.set_ylabel("%", color=_FAINT, fontsize=8.5, family=_FONT, rotation=0, labelpad=8)
    axes.tick_params(colors=_FAINT, labelsize=8, labelfontfamily=_FONT)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(_RULE)
    # The first clause; the structured report has all of it.
    what = plain(risk.interval).partition(";")[0]
    words = f"Band: {what[:1].lower()}{what[1:]}" if what else "The model does not define the band."
    for i, line in enumerate(textwrap.wrap(words, 76, max_lines=2, placeholder=" ...")):
        _write(figure, 0.56, 0.138 - 0.013 * i, line, size=8, color=_FAINT)


def _provenance(figure: Figure, findings: Findings) -> None:
    assert findings.lungs is not None
    assert findings.series is not None
    s, lungs, risk = findings.series, findings.lungs, findings.risk
    z, y, x = s.spacing_mm
    model = (
        "none"
        if risk is None
        else f"{plain(risk.bundle)} {plain(risk.version)} (sha256 {risk.bundle_sha256[:16]}), {risk.intended_use}"
    )
    lines = (
        f"Series {s.series_uid}",
        f"{s.slices} slices, voxel {x:.2f} x {y:.2f} x {z:.2f} mm (x, y, z), kernel {plain(s.kernel) or 'not stated'}",
        f"Segmentation: {plain(lungs.segmenter)} {plain(lungs.segmenter_version)}. Risk model: {model}.",
        "Computed automatically, without human review. Not validated outside systemic sclerosis.",
        *made_from(findings),
    )
    _rule(figure, 0.115, 0.03, 0.97)
    for k, line in enumerate(lines):
        _write(
            figure, 0.03, 0.096 - 0.0165 * k, textwrap.shorten(line, 140, placeholder=" ..."), size=8.5, color=_FAINT
        )
    _band(figure, 0.0, 0.026, "RESEARCH USE ONLY - NOT FOR DIAGNOSIS", _RESEARCH)


def _band(figure: Figure, bottom: float, height: float, words: str, color: str) -> None:
    axes = figure.add_axes((0.0, bottom, 1.0, height), facecolor=color)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.47, words, ha="center", va="center", color="white", fontsize=13, fontweight="bold", family=_FONT)


def _rule(figure: Figure, y: float, left: float, right: float) -> None:
    figure.add_artist(Line2D([left, right], [y, y], color=_RULE, linewidth=0.8))
